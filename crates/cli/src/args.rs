//! The command line: what can be typed and what it means.

mod chat;
mod cp;
mod limits;
mod pool;
mod process;
mod reach;
mod sandbox;
pub(crate) mod schedule;
mod session;
mod template;
mod testkit;
mod usage;
pub(crate) mod value;

pub(crate) use chat::ChatArgs;
pub(crate) use cp::{CpArgs, Place};
pub(crate) use pool::{CreatePoolArgs, PlanArgs, PoolCommand, SetPoolArgs, WatchPoolArgs};
pub(crate) use process::{AttachArgs, ExecArgs, KillArgs, ProcessOptions, PsArgs};
pub(crate) use reach::changed as changed_bounds;
pub(crate) use sandbox::{
    CreateArgs, ForkArgs, ListArgs, NetworkArgs, RmArgs, RunArgs, SandboxCommand, SnapshotArgs, StatsArgs,
    UpdateArgs, WatchArgs,
};
pub(crate) use session::{
    AttachSessionArgs, CreateSessionArgs, EventsArgs, ListSessionsArgs, SendArgs, SessionCommand,
    SessionPlace, UpdateSessionArgs,
};
pub(crate) use template::{BuildArgs, ImportArgs, InstallArgs, TemplateCommand};
pub(crate) use testkit::{ModelArgs, TestkitCommand};
pub(crate) use usage::{AuditCommand, BudgetCommand, SecretCommand, UsageArgs};

use crate::failure::Failure;
use clap::{Args, Parser, Subcommand};
use hostel_client::SESSIOND_ADDRESS_VARIABLE;
use std::ffi::OsString;
use std::net::SocketAddr;

const EXIT_CODES: &str = "\
Exit codes:
  0        success; for run, exec and attach: the command's own code
  1        doctor found something that does not work; audit verify: a record was changed, added or taken out;
           session send, chat: the turn failed
  2        the command line is wrong
  124      the command ran longer than its --timeout
  125      hostel or hosteld failed, not the command
  126      the command is there but cannot be executed
  127      there is no such command in the sandbox
  128+N    signal N ended the command, or hostel
  130      the same for Ctrl-C; session send: the turn was interrupted
  137      the same for SIGKILL, and out of memory: stderr says which
  141      nobody reads stdout any more, as in `hostel … | head`

Environment:
  HOSTEL_ADDR   where the daemon is: unix:///path or http://host:port
                [/run/hostel/hosteld.sock; for users $XDG_RUNTIME_DIR/hostel/hosteld.sock]
  HOSTEL_SESSIOND_ADDR    where the session server is [http://127.0.0.1:3333]
  HOSTEL_SESSIOND_TOKEN   the token for it, where it wants one

Data goes to stdout, everything else to stderr. With --json, stdout has JSON: one object, or for commands that stream one object a line; errors are {\"error\":{\"reason\",\"message\",…}} and remarks {\"note\":{\"message\"}}, on stderr.

Examples:
  hostel up                                     start a daemon and a session server here
  hostel run -- python3 -c 'print(6 * 7)'       one command in a sandbox of its own
  hostel run -it -- bash                        look around
  id=$(hostel sandbox create -q)                a sandbox that stays …
  hostel cp ./project $id:/workspace            … with files in it …
  hostel exec $id -- make -C /workspace         … that does something
  hostel chat                                   talk with an agent in a sandbox";

/// Real sandboxes on this machine: run commands where they can do no harm.
#[derive(Debug, Parser)]
#[command(name = "hostel", version, about = "Real sandboxes on this machine: run commands where they can do no harm.", after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    /// Where the daemon is: unix:///path or http://host:port.
    #[arg(long, global = true, env = "HOSTEL_ADDR", value_name = "ADDRESS", hide_env = true)]
    pub(crate) addr: Option<String>,
    /// Where the session server is: http://host:port.
    #[arg(long, global = true, env = SESSIOND_ADDRESS_VARIABLE, value_name = "ADDRESS", hide_env = true)]
    pub(crate) sessions: Option<String>,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on stderr: also without a terminal, when a broken connection to the daemon is taken up again.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What hostel can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a daemon and a session server in the foreground, on embedded defaults.
    Up(Box<UpArgs>),
    /// Run a command in a new sandbox and delete the sandbox.
    Run(Box<RunArgs>),
    /// Make, list and change sandboxes.
    #[command(subcommand, visible_alias = "sb")]
    Sandbox(SandboxCommand),
    /// Run a command in a sandbox.
    Exec(Box<ExecArgs>),
    /// List the processes of a sandbox.
    Ps(PsArgs),
    /// Read the output of a process, and write to it with -i.
    Attach(AttachArgs),
    /// Send a signal to a process.
    Kill(KillArgs),
    /// Copy files and directories into and out of sandboxes.
    Cp(CpArgs),
    /// Make, list and change agent sessions, send messages to them, follow what happens.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Talk with an agent in a sandbox.
    Chat(Box<ChatArgs>),
    /// List, build, import and remove templates.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Keep sandboxes warm, so that making one takes no time, and choose how many from facts.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Tell what sandboxes used of models, and what it cost.
    Usage(UsageArgs),
    /// Bound what sandboxes may use of models together.
    #[command(subcommand)]
    Budget(BudgetCommand),
    /// Give the daemon values that sandboxes use and never see.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Check the record of what sandboxes reached and which secrets they used.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Tell about the machine that the daemon runs on.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Say what this host can give to sandboxes and what is missing, with the command that fixes it.
    Doctor,
    /// Stand in for what sandboxes talk to: for tests and demonstrations.
    #[command(subcommand)]
    Testkit(TestkitCommand),
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  hostel completions bash > /etc/bash_completion.d/hostel")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version of this program, and of the daemon if one answers.
    Version,
}

/// How to start a daemon.
#[derive(Debug, Args)]
#[command(
    after_help = "Without options no file is needed. Ctrl-C stops both; sandboxes and turns live on and are \
    found again at the next start. The session server takes its other options from the environment and its file, \
    as hostel-sessiond does.\n\nExample:\n  hostel up --state-dir /srv/hostel --listen tcp://127.0.0.1:7070"
)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) daemon: hosteld::arguments::Arguments,
    /// Where clients of the session server connect [127.0.0.1:3333].
    #[arg(long, env = "HOSTEL_SESSIOND_LISTEN", value_name = "ADDRESS:PORT", conflicts_with = "no_sessions")]
    pub(crate) sessions_listen: Option<SocketAddr>,
    /// Start the daemon alone, without a session server.
    #[arg(long)]
    pub(crate) no_sessions: bool,
}

/// What can be asked of a node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Tell what the machine has, what of it is taken, and what isolation it gives.
    Info,
    /// Take no new sandboxes; what runs goes on.
    Drain {
        /// Take new sandboxes again.
        #[arg(long)]
        resume: bool,
    },
}

/// Whether a command line that cannot be parsed asks for JSON: before what is a command's own.
pub(crate) fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// What is wrong with a command line, without the help that follows it.
pub(crate) fn failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let help = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|help| text.find(help)).min();
    let problem = text.get(..help.unwrap_or(text.len())).unwrap_or(&text);
    let problem = problem.trim().trim_start_matches("error: ");
    Failure::usage(problem.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
