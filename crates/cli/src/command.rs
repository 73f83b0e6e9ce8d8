//! What each command does.

mod attach;
mod chat;
mod conversation;
mod cp;
mod exec;
mod network;
mod node;
mod pool;
mod ps;
mod run;
mod sandbox;
mod secret;
mod session;
mod stream;
mod template;
mod testkit;
mod up;
mod usage;
mod watch;

use crate::args::{AuditCommand, Cli, Command, NodeCommand, SandboxCommand};
use crate::failure::Failure;
use crate::output::{self, human};
use clap::CommandFactory as _;
use hostel_client::model::CreatedSandbox;
use hostel_client::{Address, Client, SESSIOND_TOKEN_VARIABLE, SessionClient};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// The exit code, or why there is none of the command's own.
pub(crate) type Outcome = Result<u8, Failure>;

/// All went well.
pub(crate) const SUCCESS: u8 = 0;

/// What every command knows.
pub(crate) struct Context {
    address: Option<String>,
    /// Where the session server is.
    sessions: Option<String>,
    /// Whether to print JSON.
    pub(crate) json: bool,
    /// Whether to say more on stderr.
    pub(crate) verbose: bool,
}

impl Context {
    /// Whether to say that the connection broke and is back: to people who look on, and to who asked for it.
    pub(crate) fn tells_of_reconnecting(&self) -> bool {
        !self.json && (self.verbose || crate::terminal::stderr_is_terminal())
    }

    /// Says how a sandbox came to be, to who asked for more.
    pub(crate) fn tell_of_start(&self, created: &CreatedSandbox, took: Duration) {
        if self.verbose && !self.json {
            output::note(&human::start(created, took));
        }
    }

    /// Connects to the daemon.
    ///
    /// # Errors
    /// When the address is wrong or nobody answers.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let address = match self.address.as_deref() {
            Some(text) if !text.is_empty() => text.parse()?,
            _ => Address::default_for_user(),
        };
        Ok(Client::connect(&address).await?)
    }

    /// Connects to the session server.
    ///
    /// # Errors
    /// When the address is wrong or nobody answers.
    pub(crate) async fn connect_sessions(&self) -> Result<SessionClient, Failure> {
        let address = match self.sessions.as_deref() {
            Some(text) if !text.is_empty() => text.parse()?,
            _ => SessionClient::default_address(),
        };
        // Not an option: command lines are for everybody to see.
        let token = std::env::var(SESSIOND_TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        Ok(SessionClient::connect(&address, token.as_deref()).await?)
    }
}

/// Removes one after another and prints the name of each; with JSON all of them at the end. One that cannot be removed
/// keeps none of the others.
///
/// # Errors
/// Why the last of those that stay could not be removed; the others' are told.
async fn remove_each<T: AsRef<str> + Serialize>(
    context: &Context,
    names: &[T],
    remove: impl AsyncFn(&T) -> hostel_client::Result<()>,
) -> Outcome {
    let mut deleted = Vec::new();
    let mut failed = None;
    for name in names {
        match remove(name).await {
            Ok(()) => {
                if !context.json {
                    output::line(name.as_ref())?;
                }
                deleted.push(name);
            }
            Err(error) => {
                if let Some(earlier) = failed.replace(Failure::from(error)) {
                    output::failure(&earlier, context.json);
                }
            }
        }
    }
    if context.json {
        output::json(&json!({ "deleted": deleted }))?;
    }
    failed.map_or(Ok(SUCCESS), Err)
}

/// Does what was typed.
///
/// # Errors
/// Why it could not be done.
pub(crate) async fn execute(cli: Cli) -> Outcome {
    let context = Context { address: cli.addr, sessions: cli.sessions, json: cli.json, verbose: cli.verbose };
    let context = &context;
    match cli.command {
        Command::Up(args) => up::up(*args).await,
        Command::Run(args) => run::run(context, *args).await,
        Command::Sandbox(SandboxCommand::Watch(args)) => watch::sandboxes(context, args).await,
        Command::Sandbox(SandboxCommand::Stats(args)) => watch::stats(context, args).await,
        Command::Sandbox(SandboxCommand::Network(args)) => network::network(context, args).await,
        Command::Sandbox(command) => sandbox::execute(context, command).await,
        Command::Exec(args) => exec::exec(context, *args).await,
        Command::Ps(args) => ps::ps(context, args).await,
        Command::Kill(args) => ps::kill(context, args).await,
        Command::Attach(args) => attach::attach(context, args).await,
        Command::Cp(args) => cp::cp(context, args).await,
        Command::Session(command) => session::execute(context, command).await,
        Command::Chat(args) => chat::chat(context, *args).await,
        Command::Template(command) => template::execute(context, command).await,
        Command::Pool(command) => pool::execute(context, command).await,
        Command::Usage(args) => usage::usage(context, args).await,
        Command::Budget(command) => usage::budget(context, command).await,
        Command::Secret(command) => secret::execute(context, command).await,
        Command::Audit(AuditCommand::Verify) => network::verify_audit(context).await,
        Command::Node(NodeCommand::Info) => node::info(context).await,
        Command::Node(NodeCommand::Drain { resume }) => node::drain(context, resume).await,
        Command::Testkit(command) => testkit::execute(context, command).await,
        Command::Doctor => node::doctor(context).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "hostel", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())?;
            Ok(SUCCESS)
        }
        Command::Version => node::version(context).await,
    }
}
