//! What a session's configuration means for its sandbox and its agent.

use crate::config::{Plugin, SessionConfig};
use crate::error::{Error, Result};
use crate::local::HostConfig;
use crate::session::{Limits, Session};
use crate::usd::Usd;
use hostel_agent::{AgentKind, Launch, LaunchOptions, PermissionMode, SettingSource};
use hostel_client::CreateSandbox;
use hostel_client::domain::{
    BackendName, ModelAccess, ModelBudget, NetworkMode, NetworkPolicy, SandboxSpec, TemplateId,
};
use std::time::Duration;

/// The label that says whose sandbox it is.
const LABEL: &str = "hostel-session";
/// The label that says in which store that session is.
const STORE: &str = "hostel-session-store";
/// Where agents work unless the session says otherwise.
pub(crate) const WORKSPACE: &str = "/workspace";
/// How much longer a sandbox may live than its session, so that one that nobody looks after goes away.
const SLACK: Duration = Duration::from_secs(60 * 60);
/// How long making a sandbox may take, with the wait for room and a template's start commands.
const MAKING: Duration = Duration::from_secs(15 * 60);
/// The longest that a sandbox may be told to live.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Which sandboxes are a session's.
pub(crate) fn selector(store: &str, session: &crate::id::SessionId) -> String {
    format!("{LABEL}={session},{STORE}={store}")
}

/// Where the agent works.
pub(crate) fn workspace(config: &SessionConfig) -> &str {
    config.working_directory.as_deref().unwrap_or(WORKSPACE)
}

/// What the gateway is told to let through.
pub(crate) fn model_access(host: &HostConfig, limits: &Limits, spent: u64) -> Option<ModelAccess> {
    let left = limits.max_budget_usd.map(|budget| budget.micros().saturating_sub(spent));
    let budget = ModelBudget { cost_micros: left, ..ModelBudget::default() };
    host.gateway.then_some(ModelAccess { budget })
}

/// How long a sandbox may live from now on: a little longer than its session may.
pub(crate) fn lifetime(limits: &Limits) -> Duration {
    let lifetime = |millis| Duration::from_millis(millis).saturating_add(SLACK).min(LONGEST);
    limits.max_lifetime_ms.map_or(LONGEST, lifetime)
}

/// The sandbox to make.
///
/// # Errors
/// [`Error::Invalid`] naming the field.
pub(crate) fn sandbox(
    host: &HostConfig,
    store: &str,
    session: &Session,
    attempt: u64,
) -> Result<CreateSandbox> {
    let config = &session.config;
    let template = config.template.as_deref().unwrap_or(&host.template);
    let backend = config.backend.as_deref().or(host.backend.as_deref());
    let labels = [
        (LABEL, session.id.to_string()),
        (STORE, store.to_owned()),
        ("hostel-pattern", session.pattern.as_str().to_owned()),
    ];
    let spec = SandboxSpec {
        template: Some(TemplateId::parse(template).map_err(|error| invalid("config.template", &error))?),
        backend: backend
            .map(BackendName::parse)
            .transpose()
            .map_err(|error| invalid("config.backend", &error))?,
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        workdir: Some(workspace(config).to_owned()),
        network: network(config.network.as_deref().unwrap_or(&host.network))?,
        model: model_access(host, &session.limits, session.total_cost.micros()),
        lifetime: Some(lifetime(&session.limits)),
        ..SandboxSpec::default()
    };
    spec.validate().map_err(|error| invalid("config", &error))?;
    let own_pool = || Spares::of(host, config).map(|spares| spares.pool().to_owned());
    Ok(CreateSandbox {
        request_id: Some(format!(
            "{:.32}-{}-{attempt}",
            session.id.as_str(),
            session.created_at.as_microsecond()
        )),
        network_given: true,
        pool: config.pool.clone().or_else(own_pool).or_else(|| host.pool.clone()),
        spec,
        wait: Some(MAKING),
        ..CreateSandbox::default()
    })
}

/// Agents that are kept started and wait for sessions that say nothing of what must be said when they are started. Of
/// that there is one thing that many sessions say: that the agent asks for permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spares {
    /// They ask nobody.
    Silent,
    /// They ask.
    Asking,
}

impl Spares {
    pub(crate) const ALL: [Self; 2] = [Self::Silent, Self::Asking];

    /// The pool that they are in.
    pub(crate) fn pool(self) -> &'static str {
        match self {
            Self::Silent => "hostel-agents",
            Self::Asking => "hostel-agents-asking",
        }
    }

    /// How many are wanted.
    pub(crate) fn wanted(self, host: &HostConfig) -> u32 {
        match self {
            Self::Silent => host.warm_agents,
            Self::Asking => host.warm_asking_agents,
        }
    }

    /// What they are.
    pub(crate) fn launch(self) -> Option<Launch> {
        let config = SessionConfig { ask_permissions: self == Self::Asking, ..SessionConfig::default() };
        hostel_agent::claude::spare(&agent(&config))
    }

    /// Those that are kept for sessions like this.
    fn of(host: &HostConfig, config: &SessionConfig) -> Option<Self> {
        let usual = config.template.is_none() && config.backend.is_none();
        let spares = if asks(config) { Self::Asking } else { Self::Silent };
        (usual && spares.wanted(host) > 0).then_some(spares)
    }
}

/// Whether an agent asks for permissions: without that there would be no end to its planning.
fn asks(config: &SessionConfig) -> bool {
    config.ask_permissions || config.permission_mode == Some(PermissionMode::Plan)
}

fn invalid(field: &str, error: &impl std::fmt::Display) -> Error {
    Error::invalid(field, error.to_string())
}

/// Reads `none`, `open`, or hosts to allow.
fn network(words: &[String]) -> Result<NetworkPolicy> {
    let mode = match words {
        [] => NetworkMode::None,
        [word] if word == "none" => NetworkMode::None,
        [word] if word == "open" => NetworkMode::Open,
        _ => NetworkMode::Allowlist,
    };
    let rules = match mode {
        NetworkMode::Allowlist => words
            .iter()
            .map(|word| word.parse().map_err(|error: String| Error::invalid("config.network", error)))
            .collect::<Result<_>>()?,
        NetworkMode::None | NetworkMode::Open => Vec::new(),
    };
    Ok(NetworkPolicy { mode, rules, presets: Vec::new() })
}

/// How the agent is to be started, a new conversation or `resume`d.
pub(crate) fn launch(session: &Session, gateway: bool, resume: bool, attempt: u64) -> LaunchOptions {
    let config = &session.config;
    LaunchOptions {
        conversation: (!resume).then(|| conversation(session, attempt)),
        resume: resume.then(|| session.session_id.clone()),
        spent: session.agent_cost.dollars(),
        resume_at: config.resume_at_message_id.clone().filter(|_| resume && session.num_turns == 0),
        fork: config.fork_session && session.num_turns == 0 && resume,
        max_budget_usd: agent_budget(session, gateway).map(Usd::dollars),
        title: session.description.clone(),
        ..agent(config)
    }
}

/// The budget that the agent itself keeps: one that is configured for it, and where there is no gateway the session's.
/// A gateway is the better bound: it counts what the agent only estimates, holds while the agent works, and follows
/// when the budget is changed.
pub(crate) fn agent_budget(session: &Session, gateway: bool) -> Option<Usd> {
    let of_session = session.limits.max_budget_usd.filter(|_| !gateway);
    session.config.max_budget_usd.into_iter().chain(of_session).min()
}

/// How an agent is to be, whatever session it is for.
fn agent(config: &SessionConfig) -> LaunchOptions {
    let (system_prompt, append_system_prompt) = match (&config.system_prompt, config.replace_system_prompt) {
        (Some(prompt), true) => (Some(prompt.clone()), None),
        (prompt, _) => (None, prompt.clone()),
    };
    LaunchOptions {
        program: config.executable.clone(),
        extra_args: config.executable_args.clone(),
        session_env: config.env.clone(),
        workspace: workspace(config).to_owned(),
        model: config.model.clone(),
        fallback_model: config.fallback_model.clone(),
        system_prompt,
        append_system_prompt,
        max_turns: config.max_turns,
        max_thinking_tokens: config.max_thinking_tokens,
        permission_mode: config.permission_mode.unwrap_or_default(),
        ask: asks(config),
        allowed_tools: config.allowed_tools.clone(),
        disallowed_tools: config.disallowed_tools.clone(),
        additional_directories: config.additional_directories.clone(),
        mcp_servers: config.mcp_servers.clone(),
        strict_mcp_config: config.strict_mcp_config,
        agents: config.custom_agents.clone(),
        hooks: config.hooks.clone(),
        plugins: config.plugins.iter().map(|Plugin::Local { path }| path.clone()).collect(),
        setting_sources: config.setting_sources.clone().unwrap_or_else(|| vec![SettingSource::Project]),
        json_schema: config.json_schema.clone(),
        ..LaunchOptions::default()
    }
}

/// The id of a new conversation: the session's own the first time, for who looks for one by the other. The same attempt
/// has the same, so that it can be made again.
fn conversation(session: &Session, attempt: u64) -> String {
    let own = session.id.as_str();
    if attempt <= 1 && uuid::Uuid::parse_str(own).is_ok() {
        return own.to_owned();
    }
    let name = format!("{own} {} {attempt}", session.created_at.as_microsecond());
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

/// What an option of the agent is called where a session is configured.
fn configured(option: &str) -> String {
    let name = match option {
        "program" => "executable",
        "extra_args" => "executableArgs",
        "workspace" => "workingDirectory",
        "resume" | "claimed_spare" => "resumeSessionId",
        "resume_at" => "resumeAtMessageId",
        "agents" => "customAgents",
        same => same,
    };
    let mut words = name.split('_');
    let first = format!("config.{}", words.next().unwrap_or_default());
    words.fold(first, |name, word| name + &word[..1].to_ascii_uppercase() + &word[1..])
}

/// Checks what can be known to be wrong before anything is started.
///
/// # Errors
/// [`Error::Invalid`] naming the field.
pub(crate) fn check(host: &HostConfig, session: &Session) -> Result<()> {
    let config = &session.config;
    if config.continue_session {
        return Err(Error::invalid(
            "config.continueSession",
            "which conversation is the latest cannot be known; use resumeSessionId",
        ));
    }
    if config.agent == AgentKind::Exec && config.executable.is_none() {
        return Err(Error::invalid("config.executable", "the agent exec needs a program"));
    }
    sandbox(host, "", session, 1)?;
    match config.agent.launch(&launch(session, host.gateway, false, 1)) {
        Err(hostel_agent::Error::Options { field, problem }) => {
            Err(Error::invalid(configured(field), problem))
        }
        other => Ok(other.map(drop)?),
    }
}
