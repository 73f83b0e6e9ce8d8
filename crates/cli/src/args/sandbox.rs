//! `hostel run` and `hostel sandbox`.

use super::limits::LimitOptions;
use super::process::ProcessOptions;
use super::reach::ReachOptions;
use super::value;
use crate::failure::Failure;
use clap::{Args, Subcommand};
use hostel_sandbox::{BackendName, Capability, SandboxId, SandboxSpec, SandboxState, TemplateId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a sandbox shall be.
#[derive(Debug, Args)]
pub(crate) struct SandboxOptions {
    /// Template to make it from [the backend's default].
    #[arg(short = 'T', long, value_name = "NAME", value_parser = value::template)]
    template: Option<TemplateId>,
    /// Backend to make it with [the node's default].
    #[arg(long, value_name = "NAME", value_parser = value::backend)]
    backend: Option<BackendName>,
    /// Its limits.
    #[command(flatten)]
    limits: LimitOptions,
    /// Set an environment variable; NAME alone passes on its value. Not for secrets.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = value::env)]
    env: Vec<(String, Option<String>)>,
    /// Read environment variables from a file, NAME=VALUE a line.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Label it, for selection.
    #[arg(short, long, value_name = "K=V", value_parser = value::label)]
    label: Vec<(String, String)>,
    /// User that processes run as: a name, uid, uid:gid or name:group inside.
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Directory that processes start in; made if absent.
    #[arg(short, long, visible_alias = "cwd", value_name = "DIR")]
    workdir: Option<String>,
    /// Fail unless the backend can do this here, for example disk_limit.
    #[arg(long, value_name = "CAPABILITY", value_parser = value::capability, value_delimiter = ',')]
    require: Vec<Capability>,
    /// Claim it from this pool [any that fits, where there is one]. When none is warm it is made on demand.
    #[arg(long, value_name = "NAME", value_parser = value::pool)]
    pool: Option<String>,
    /// What it may reach.
    #[command(flatten)]
    reach: ReachOptions,
}

impl SandboxOptions {
    /// The sandbox to ask for.
    ///
    /// # Errors
    /// When an environment file cannot be read, or network options contradict each other.
    pub(crate) fn create(self) -> Result<hostel_client::CreateSandbox, Failure> {
        let network = self.reach.network()?;
        let network_given = network.is_some();
        let spec = SandboxSpec {
            backend: self.backend,
            template: self.template,
            labels: self.label.into_iter().collect(),
            limits: self.limits.limits(),
            env: environment(&self.env_file, self.env)?,
            user: self.user,
            workdir: self.workdir,
            network: network.unwrap_or_default(),
            secrets: self.reach.secrets(),
            model: self.reach.model(),
            required_capabilities: self.require.into_iter().collect(),
            ..SandboxSpec::default()
        };
        Ok(hostel_client::CreateSandbox { spec, network_given, pool: self.pool, ..Default::default() })
    }
}

/// The variables of the files, and over them those of the command line. What is passed on and not set here is left
/// out.
pub(crate) fn environment(
    files: &[PathBuf],
    variables: Vec<(String, Option<String>)>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut environment = BTreeMap::new();
    for file in files {
        environment.extend(env_file(file)?);
    }
    environment.extend(variables);
    Ok(environment.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

fn env_file(path: &Path) -> Result<Vec<(String, Option<String>)>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::other("LOCAL_FILE", format!("cannot read {}: {error}", path.display())))?;
    value::env_lines(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// What to run in a new sandbox.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes a sandbox, copies files in, runs the command with its output streaming, exits with its code and deletes the sandbox, whatever happens. Ctrl-C goes to the command as SIGINT; a second one kills it.

Examples:
  hostel run -- sh -c 'echo hello; exit 3'
  hostel run --memory 256M --cpus 0.5 --timeout 30s -- python3 -c 'print(sum(range(10**6)))'
  hostel run --file ./main.py:/workspace/ --workdir /workspace -- python3 main.py
  echo 'some input' | hostel run -i -- wc -c
  hostel run -it -- bash
  hostel run -v --pool web -- true                  says whether the sandbox was warm, and what took how long

With --json, stdout has one object a line: {\"event\":\"created\",\"start_kind\":\"warm\" or \"cold\",\"stages\",…}, {\"event\":\"opened\",…}, {\"event\":\"output\",\"stream\",\"offset\",\"text\" or \"base64\"}, {\"event\":\"gap\",…}, {\"event\":\"exited\",\"sandbox_id\",\"process_id\",\"exit\":{…}}.")]
pub(crate) struct RunArgs {
    /// The sandbox.
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
    /// Copy a file or directory in first. DST ends with / to keep the name.
    #[arg(long, value_name = "SRC:DST", value_parser = value::file)]
    pub(crate) file: Vec<(PathBuf, String)>,
    /// How to run it.
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// Keep the sandbox and say its id on stderr.
    #[arg(long)]
    pub(crate) keep: bool,
    /// How long making the sandbox may take: its template's start commands, and the wait for room.
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "15m")]
    pub(crate) wait: Duration,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// What can be done with sandboxes.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Make a sandbox that stays.
    Create(Box<CreateArgs>),
    /// List sandboxes, newest first.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Tell about one sandbox.
    Get(OneArgs),
    /// End sandboxes with everything in them.
    #[command(visible_alias = "delete")]
    Rm(RmArgs),
    /// Freeze every process of a sandbox; memory is kept.
    Pause(OneArgs),
    /// Let the processes of a paused sandbox go on.
    Resume(OneArgs),
    /// Make a template of the files of a sandbox.
    Snapshot(SnapshotArgs),
    /// Make sandboxes that begin with a copy of the files of another.
    Fork(ForkArgs),
    /// Tell what a sandbox uses.
    Stats(StatsArgs),
    /// Change a sandbox while it lives: labels, limits, times, what it may reach.
    Update(Box<UpdateArgs>),
    /// Tell what a sandbox tried to reach, and what became of it.
    Network(NetworkArgs),
    /// Print changes of sandboxes as they happen.
    Watch(WatchArgs),
}

/// What to make.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hostel sandbox create --memory 1G --label project=demo\n  \
    id=$(hostel sandbox create -q --lifetime 1h)\n  \
    hostel sandbox create --file ./settings.json:/workspace/\n  hostel sandbox create --json | jq -r .id")]
pub(crate) struct CreateArgs {
    /// The sandbox.
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
    /// Begin with a copy of this file, at most 64 with 1 MiB together; for more there is hostel cp. DST ends with / to
    /// keep the name.
    #[arg(long, value_name = "SRC:DST", value_parser = value::file)]
    pub(crate) file: Vec<(PathBuf, String)>,
    /// The id to have [made by the daemon].
    #[arg(long, visible_alias = "name", value_name = "ID", value_parser = value::sandbox)]
    pub(crate) id: Option<SandboxId>,
    /// Makes the call repeatable: the same text with the same options gives the same sandbox.
    #[arg(long, value_name = "TEXT")]
    pub(crate) request_id: Option<String>,
    /// Delete it after this long: 30m, 2h.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) lifetime: Option<Duration>,
    /// Delete it when nothing happened in it for this long.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) idle_timeout: Option<Duration>,
    /// How long making it may take: its template's start commands, and the wait for room.
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "15m")]
    pub(crate) wait: Duration,
    /// Print the id only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What to change.
#[derive(Debug, Args)]
#[command(
    after_help = "What is not named stays. Connections that a new network policy does not allow are cut at \
    once.\n\nExamples:\n  hostel sandbox update sb-… --allow api.example.com\n  \
    hostel sandbox update sb-… --network none\n  hostel sandbox update sb-… --budget 5    raises its budget"
)]
pub(crate) struct UpdateArgs {
    /// The sandbox.
    #[arg(value_name = "ID", value_parser = value::sandbox)]
    pub(crate) id: SandboxId,
    /// Give it these labels instead of those it has.
    #[arg(short, long, value_name = "K=V", value_parser = value::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Delete it this long from now.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) lifetime: Option<Duration>,
    /// Delete it when nothing happened in it for this long.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) idle_timeout: Option<Duration>,
    /// Its limits.
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
    /// What it may reach.
    #[command(flatten)]
    pub(crate) reach: ReachOptions,
    /// Take its secrets away.
    #[arg(long, conflicts_with = "secret")]
    pub(crate) no_secrets: bool,
    /// Take its way to a model away.
    #[arg(long, conflicts_with_all = ["model", "budget", "model_tokens", "model_requests"])]
    #[arg(conflicts_with_all = ["model_requests_per_minute", "model_tokens_per_minute"])]
    pub(crate) no_model: bool,
}

/// Whose network to tell about.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// The sandbox.
    #[arg(value_name = "ID", value_parser = value::sandbox)]
    pub(crate) id: SandboxId,
    /// Go on until the sandbox ends or Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// Which sandboxes to list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those with these labels: k=v, k!=v, k, !k, joined with commas.
    #[arg(short, long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub(crate) label: String,
    /// Only those in these states.
    #[arg(long, value_name = "STATE", value_parser = value::state, value_delimiter = ',')]
    pub(crate) state: Vec<SandboxState>,
    /// Print ids only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// One sandbox.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// The sandbox.
    #[arg(value_name = "ID", value_parser = value::sandbox)]
    pub(crate) id: SandboxId,
}

/// Which sandboxes to end.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The sandboxes.
    #[arg(required_unless_present = "all", value_name = "ID", value_parser = value::sandbox)]
    pub(crate) ids: Vec<SandboxId>,
    /// All of them.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// It is no error when one is not there.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Send SIGTERM and wait this long before SIGKILL.
    #[arg(long, value_name = "DURATION", value_parser = value::duration, conflicts_with = "force")]
    pub(crate) grace: Option<Duration>,
}

/// What to make a template of.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// The sandbox.
    #[arg(value_name = "ID", value_parser = value::sandbox)]
    pub(crate) id: SandboxId,
    /// Name of the template [made by the daemon].
    #[arg(value_name = "TEMPLATE", value_parser = value::template)]
    pub(crate) template: Option<TemplateId>,
    /// Label the template.
    #[arg(short, long, value_name = "K=V", value_parser = value::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Print the name only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What to copy.
#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// The sandbox to copy.
    #[arg(value_name = "ID", value_parser = value::sandbox)]
    pub(crate) id: SandboxId,
    /// How many forks.
    #[arg(short = 'n', long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) count: u32,
    /// Labels over those of the parent.
    #[arg(short, long, value_name = "K=V", value_parser = value::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Delete the forks after this long [as the parent].
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) lifetime: Option<Duration>,
    /// Makes the call repeatable: the same text with the same options gives the same forks [made up].
    #[arg(long, value_name = "TEXT")]
    pub(crate) request_id: Option<String>,
    /// How long making them may take, all together: their template's start commands, and the wait for room.
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "15m")]
    pub(crate) wait: Duration,
    /// Print ids only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The sandbox.
    #[arg(value_name = "ID", value_parser = value::sandbox)]
    pub(crate) id: SandboxId,
    /// Again and again, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Time between two measurements.
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "1s")]
    pub(crate) interval: Duration,
}

/// What to watch.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Only these sandboxes [all].
    #[arg(value_name = "ID", value_parser = value::sandbox)]
    pub(crate) ids: Vec<SandboxId>,
    /// Only those with these labels.
    #[arg(short, long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub(crate) label: String,
    /// Begin after this cursor, which every event has [now].
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    pub(crate) from: String,
}
