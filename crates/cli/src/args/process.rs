//! `hostel exec`, `ps`, `attach`, `kill`.

use super::sandbox::environment;
use super::value;
use crate::failure::Failure;
use clap::Args;
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{ProcessId, SandboxId};
use std::path::PathBuf;
use std::time::Duration;

/// How to run a command.
#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Pass stdin on to the command.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal. With -i it behaves like ssh.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Stop the command after this long: SIGTERM, and 5 seconds later SIGKILL. Exit code 124.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) timeout: Option<Duration>,
}

/// What to run in a sandbox that is there.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with the command's code. The command belongs to the sandbox: when the connection to the daemon breaks, or the daemon is restarted, hostel attaches again and nothing is lost. Ctrl-C goes to the command; a second one kills it.

Examples:
  hostel exec sb-1 -- ls -l /workspace
  hostel exec -it sb-1 -- bash
  tar c . | hostel exec -i sb-1 -- tar x -C /workspace
  hostel exec -d sb-1 -- make all        prints the id of the process; see `hostel attach`

With --json, stdout is as for `hostel run --json`, from \"opened\" on; with -d it is the process.")]
pub(crate) struct ExecArgs {
    /// How to run it.
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// Start it, print its id and return. With -i its stdin stays open for `hostel attach -i`.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Set an environment variable; NAME alone passes on its value.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = value::env)]
    env: Vec<(String, Option<String>)>,
    /// Read environment variables from a file, NAME=VALUE a line.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Directory to start in [the sandbox's].
    #[arg(short = 'w', long, visible_alias = "workdir", value_name = "DIR")]
    cwd: Option<String>,
    /// User to run as: a name, uid, uid:gid or name:group [the sandbox's].
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Id for the process [made by the daemon].
    #[arg(long, value_name = "ID", value_parser = value::process)]
    id: Option<ProcessId>,
    /// The sandbox.
    #[arg(value_name = "SANDBOX", value_parser = value::sandbox)]
    pub(crate) sandbox: SandboxId,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

impl ExecArgs {
    /// The process to ask for. Its terminal has no size yet.
    ///
    /// # Errors
    /// When an environment file cannot be read.
    pub(crate) fn spec(&self) -> Result<ProcessSpec, Failure> {
        Ok(ProcessSpec {
            id: self.id.clone(),
            argv: self.command.clone(),
            env: environment(&self.env_file, self.env.clone())?,
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            stdin: self.process.interactive,
            timeout: self.process.timeout,
            ..ProcessSpec::default()
        })
    }
}

/// Whose processes to list.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// The sandbox.
    #[arg(value_name = "SANDBOX", value_parser = value::sandbox)]
    pub(crate) sandbox: SandboxId,
    /// Print ids only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// One process.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// The sandbox.
    #[arg(value_name = "SANDBOX", value_parser = value::sandbox)]
    pub(crate) sandbox: SandboxId,
    /// The process, as `hostel ps` lists it.
    #[arg(value_name = "PROCESS", value_parser = value::process)]
    pub(crate) process: ProcessId,
}

/// What to attach to.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints what the process wrote, from the beginning or from an offset, then what it writes, and exits with its code. Works after the process has ended, too. Ctrl-C detaches; with -i on a terminal it goes to the process.

Examples:
  hostel attach sb-1 p-build
  hostel attach --from 1048576 sb-1 p-build
  hostel attach --new -i sb-1 p-shell")]
pub(crate) struct AttachArgs {
    /// Write to its stdin.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Take stdin from whoever writes to it now.
    #[arg(long, requires = "interactive")]
    pub(crate) take_over: bool,
    /// Offset to read stdout from, in bytes.
    #[arg(long, value_name = "OFFSET", default_value_t = 0, hide_default_value = true)]
    pub(crate) from: u64,
    /// Offset to read stderr from, in bytes.
    #[arg(long, value_name = "OFFSET", default_value_t = 0, hide_default_value = true)]
    pub(crate) stderr_from: u64,
    /// Only what is written from now on.
    #[arg(long, conflicts_with_all = ["from", "stderr_from"])]
    pub(crate) new: bool,
    /// The process.
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

/// Which process gets which signal.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal: a name or a number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", value_parser = value::signal)]
    pub(crate) signal: i32,
    /// Kill everything that runs in the sandbox, also what the commands started, with SIGKILL.
    #[arg(short, long, conflicts_with_all = ["process", "signal"])]
    pub(crate) all: bool,
    /// The sandbox.
    #[arg(value_name = "SANDBOX", value_parser = value::sandbox)]
    pub(crate) sandbox: SandboxId,
    /// The process, as `hostel ps` lists it; its whole group gets the signal.
    #[arg(value_name = "PROCESS", value_parser = value::process, required_unless_present = "all")]
    pub(crate) process: Option<ProcessId>,
}
