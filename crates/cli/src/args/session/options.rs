//! What a new session shall be.

use super::value;
use crate::args::reach::dollars;
use crate::failure::Failure;
use clap::Args;
use hostel_client::CreateSession;
use hostel_client::model::{LimitAction, SessionLimits};
use serde_json::{Map, Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest configuration that is read, in bytes.
const CONFIG: u64 = 4 << 20;

/// Bounds of a session.
#[derive(Debug, Default, Args)]
pub(crate) struct SessionBounds {
    /// What it may spend, in US dollars: 2.50.
    #[arg(long, value_name = "USD", value_parser = dollars)]
    budget: Option<u64>,
    /// How often it may ask the model.
    #[arg(long, value_name = "N")]
    max_turns: Option<u64>,
    /// How long it may wait for a message.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    max_idle: Option<Duration>,
    /// How long it may live, from its first turn on.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    max_lifetime: Option<Duration>,
}

impl SessionBounds {
    /// As they are asked for.
    pub(crate) fn limits(&self) -> SessionLimits {
        SessionLimits {
            max_idle_time: self.max_idle,
            max_lifetime: self.max_lifetime,
            max_budget_micros: self.budget,
            max_turns: self.max_turns,
            on_limit: None,
        }
    }
}

/// What a new session shall be.
#[derive(Debug, Args)]
pub(crate) struct SessionOptions {
    /// Template of its sandbox [the server's].
    #[arg(short = 'T', long, value_name = "NAME")]
    template: Option<String>,
    /// Backend of its sandbox.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Pool of its sandbox [any that fits].
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// What it may reach: none, open, or a host. May be given several times for several hosts [the server's].
    #[arg(long, value_name = "WHAT")]
    network: Vec<String>,
    /// The agent: claude, or exec for any command (see --executable) [claude].
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// The program of the agent.
    #[arg(long, value_name = "PROGRAM")]
    executable: Option<String>,
    /// The model [the agent's default].
    #[arg(long, value_name = "MODEL")]
    model_name: Option<String>,
    /// What the agent is told before everything else, after its own words.
    #[arg(long, value_name = "TEXT")]
    system_prompt: Option<String>,
    /// What it may do without asking: default, acceptEdits, bypassPermissions, plan or dontAsk [acceptEdits].
    #[arg(long, value_name = "MODE")]
    permission_mode: Option<String>,
    /// Have the agent ask when it may not do something [it is refused].
    #[arg(long)]
    ask: bool,
    /// A tool, or a rule for one, that needs no asking: 'Bash(git *)'. May be given several times.
    #[arg(long, value_name = "RULE")]
    allow_tool: Vec<String>,
    /// A tool, or a rule for one, that it may not use. May be given several times.
    #[arg(long, value_name = "RULE")]
    deny_tool: Vec<String>,
    /// Where it works, inside the sandbox [/workspace].
    #[arg(short, long, visible_alias = "cwd", value_name = "DIR")]
    workdir: Option<String>,
    /// Set an environment variable; NAME alone passes on its value.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = value::env)]
    env: Vec<(String, Option<String>)>,
    /// Its bounds.
    #[command(flatten)]
    bounds: SessionBounds,
    /// At a limit be idle until it is raised [end].
    #[arg(long)]
    pause_on_limit: bool,
    /// A tag, to find it by. May be given several times.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Whose it is.
    #[arg(long, value_name = "USER")]
    user_id: Option<String>,
    /// Read the `config` of the REST API from a JSON file, - for stdin. Options above go over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SessionOptions {
    /// The session to ask for.
    ///
    /// # Errors
    /// When the file with the configuration cannot be read or holds no JSON object.
    pub(crate) fn create(self) -> Result<CreateSession, Failure> {
        let limits = SessionLimits {
            on_limit: self.pause_on_limit.then_some(LimitAction::Pause),
            ..self.bounds.limits()
        };
        let mut config = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let texts = [
            ("template", self.template),
            ("backend", self.backend),
            ("pool", self.pool),
            ("agent", self.agent),
            ("executable", self.executable),
            ("model", self.model_name),
            ("systemPrompt", self.system_prompt),
            ("permissionMode", self.permission_mode),
            ("workingDirectory", self.workdir),
        ];
        for (key, text) in texts {
            config.extend(text.map(|text| (key.to_owned(), Value::String(text))));
        }
        let lists = [
            ("network", self.network),
            ("allowedTools", self.allow_tool),
            ("disallowedTools", self.deny_tool),
        ];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            config.insert(key.to_owned(), json!(list));
        }
        if self.ask {
            config.insert("askPermissions".to_owned(), Value::Bool(true));
        }
        for (name, value) in self.env {
            let Some(value) = value else { continue };
            let env = config.entry("env").or_insert_with(|| json!({}));
            match env.as_object_mut() {
                Some(env) => env.insert(name, Value::String(value)),
                None => return Err(Failure::usage("env of the configuration is no object")),
            };
        }
        Ok(CreateSession {
            config,
            limits,
            tags: self.tag,
            description: self.description,
            user_id: self.user_id,
            ..CreateSession::default()
        })
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(CONFIG).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(CONFIG).read_to_string(&mut text))
    };
    let (name, wrong) = (path.display(), |problem| Failure::usage(format!("{}: {problem}", path.display())));
    read.map_err(|error| Failure::other("LOCAL_FILE", format!("cannot read {name}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| wrong(format!("no JSON object: {error}")))
}
