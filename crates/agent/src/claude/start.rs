//! What to start, and what to say first.

use super::environment::{comes_late, environment};
use super::state::{Asked, FORMAT, State};
use super::turns::{self, Turns};
use super::{hooks, result};
use crate::error::{Error, Result};
use crate::launch::{Launch, LaunchOptions, McpServers, PermissionMode, SettingSource};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where a spare waits: an empty directory of every Linux (FHS 3.0, 3.12). What is in the directory that a process
/// begins in is read once, so it must not be the one that it will work in.
const NEUTRAL: &str = "/mnt";
/// Makes the CLI wait until a driver claims it.
pub(super) const AWAIT_CLAIM: &str = "--await-claim";
/// Linux takes no longer argument (execve(2), MAX_ARG_STRLEN).
const MAX_ARGUMENT: usize = 128 * 1024;
/// The least that a process may spend, in thousand-millionths of a dollar.
const LEAST_BUDGET: u64 = 1000;
/// Prompts, subagents, hooks and the like may have so many bytes together.
const MAX_OPENING: usize = 16 << 20;

/// The process for these options.
pub(super) fn process(options: &LaunchOptions) -> Result<Launch> {
    check(options)?;
    if options.claimed_spare {
        return spare(options).ok_or_else(|| Error::Options {
            field: "claimed_spare",
            problem: "a spare cannot resume, has no plugins or arguments of its own, no variables that are read at \
                      the start, none in MCP servers, and not both its own of those and the host's"
                .to_owned(),
        });
    }
    let mut argv = common(options);
    if let Some(turns) = options.max_turns {
        argv.extend(["--max-turns".to_owned(), turns.to_string()]);
    }
    argv.extend(["--permission-mode".to_owned(), word(mode(options)).to_owned()]);
    let mut add = |flag: &str, value: String| argv.extend([flag.to_owned(), value]);
    if let Some(resume) = &options.resume {
        add("--resume", resume.clone());
        if let Some(message) = &options.resume_at {
            add("--resume-session-at", message.clone());
        }
    }
    let is_new = options.resume.is_none() || options.fork;
    if let Some(id) = options.conversation.as_ref().filter(|_| is_new) {
        add("--session-id", id.clone());
    }
    if let Some(model) = &options.model {
        add("--model", model.clone());
    }
    if !options.mcp_servers.is_empty() {
        add("--mcp-config", json!({ "mcpServers": options.mcp_servers }).to_string());
    }
    if let Some(hooks) = &options.hooks {
        add("--settings", json!({ "hooks": hooks }).to_string());
    }
    for plugin in &options.plugins {
        add("--plugin-dir", plugin.clone());
    }
    // Each is one argument, as these flags take as many as come.
    for tool in &options.allowed_tools {
        add("--allowedTools", tool.clone());
    }
    for tool in &options.disallowed_tools {
        add("--disallowedTools", tool.clone());
    }
    for directory in &options.additional_directories {
        add("--add-dir", directory.clone());
    }
    if options.fork {
        argv.push("--fork-session".to_owned());
    }
    if options.strict_mcp_config {
        argv.push("--strict-mcp-config".to_owned());
    }
    argv.extend(options.extra_args.iter().cloned());
    if let Some(argument) = argv.iter().find(|argument| argument.len() >= MAX_ARGUMENT) {
        return Err(Error::TooLarge { what: "an argument", bytes: argument.len(), limit: MAX_ARGUMENT });
    }
    let cwd = Some(options.workspace.clone()).filter(|directory| !directory.is_empty());
    Ok(Launch { argv, env: environment(options, &options.session_env), cwd })
}

/// The process of a spare. Only what cannot be said at the claim is in it.
pub(super) fn spare(options: &LaunchOptions) -> Option<Launch> {
    // Variables in MCP servers are filled in only where they come by argument.
    let variable = |server: &Value| server.to_string().contains("${");
    let possible = options.resume.is_none()
        && !options.mcp_servers.values().any(variable)
        // MCP servers that it is given at the claim take the place of those of the host.
        && (options.mcp_servers.is_empty() || options.host_mcp_servers.is_empty())
        && options.session_env.iter().all(|(name, value)| comes_late(name, value))
        && options.plugins.is_empty()
        && options.extra_args.is_empty();
    possible.then(|| {
        let mut argv = common(options);
        argv.push(AWAIT_CLAIM.to_owned());
        if options.strict_mcp_config {
            argv.push("--strict-mcp-config".to_owned());
        }
        Launch { argv, env: environment(options, &BTreeMap::new()), cwd: Some(NEUTRAL.to_owned()) }
    })
}

/// Arguments that are fixed when a process starts, for a spare too.
fn common(options: &LaunchOptions) -> Vec<String> {
    let mut argv: Vec<String> = [
        options.program.as_deref().unwrap_or("claude"),
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--include-partial-messages",
        "--session-mirror",
        // Only then may the mode be changed to bypassPermissions later. It changes nothing by itself.
        "--allow-dangerously-skip-permissions",
    ]
    .map(str::to_owned)
    .into();
    let sources: Vec<&str> = options.setting_sources.iter().map(|source| source_word(*source)).collect();
    argv.extend(["--setting-sources".to_owned(), sources.join(",")]);
    let mut add = |flag: &str, value: String| argv.extend([flag.to_owned(), value]);
    if options.ask {
        add("--permission-prompt-tool", "stdio".to_owned());
    }
    if let Some(model) = &options.fallback_model {
        add("--fallback-model", model.clone());
    }
    if let Some(budget) = options.max_budget_usd {
        // Each process counts from nothing, also one that goes on with a conversation. It takes no 0.
        let left = result::nano(budget).saturating_sub(result::nano(options.spent)).max(LEAST_BUDGET);
        add("--max-budget-usd", result::dollars(left).to_string());
    }
    argv
}

/// The driver's beginning: everything is said at once and in order, the process takes prompts right behind it.
pub(super) fn opening(options: &LaunchOptions) -> Result<State> {
    let mut state = State {
        format: FORMAT.to_owned(),
        claim: options.claimed_spare,
        spent: if options.resume.is_some() { result::nano(options.spent) } else { 0 },
        budget: options.max_budget_usd.map(result::nano),
        granted: options.granted.clone(),
        turns: Turns::new(options),
        ..State::default()
    };
    state.ask("hostel:initialize", &initialize(options), Asked::Initialize);
    if options.claimed_spare {
        if !options.session_env.is_empty() {
            // Before the claim, which starts what the workspace has.
            let settings = json!({ "env": options.session_env });
            let body = json!({ "subtype": "apply_flag_settings", "settings": settings });
            state.ask("hostel:env", &body, Asked::Option);
        }
        let claim = json!({
            "subtype": "claim_session",
            "cwd": options.workspace,
            "permission_mode": word(options.permission_mode),
        });
        state.ask("hostel:claim", &claim, Asked::Claim);
        if let Some(model) = &options.model {
            state.ask("hostel:model", &json!({ "subtype": "set_model", "model": model }), Asked::Option);
        }
        let settings = claimed_settings(options);
        if !settings.is_empty() {
            let body = json!({ "subtype": "apply_flag_settings", "settings": settings });
            state.ask("hostel:settings", &body, Asked::Option);
        }
        if !options.mcp_servers.is_empty() {
            let body = json!({ "subtype": "mcp_set_servers", "servers": claimed_servers(options) });
            state.ask("hostel:mcp", &body, Asked::Servers);
        }
    }
    let rules = rules(&options.granted);
    if !rules.is_empty() {
        // Not as arguments, which are cut at spaces and commas.
        let settings = json!({ "permissions": { "allow": rules } });
        let body = json!({ "subtype": "apply_flag_settings", "settings": settings });
        state.ask("hostel:granted", &body, Asked::Option);
    }
    if let Some(tokens) = options.max_thinking_tokens {
        let body = json!({ "subtype": "set_max_thinking_tokens", "max_thinking_tokens": tokens });
        state.ask("hostel:thinking", &body, Asked::Option);
    }
    if state.input.len() > MAX_OPENING {
        return Err(Error::TooLarge {
            what: "what the agent is told at its start",
            bytes: state.input.len(),
            limit: MAX_OPENING,
        });
    }
    Ok(state)
}

/// What the host provides, and texts that may be longer than an argument.
fn initialize(options: &LaunchOptions) -> Value {
    let mut body = Map::from_iter([("subtype".to_owned(), json!("initialize"))]);
    let mut add = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(key.to_owned(), value);
        }
    };
    add("hooks", options.host_hooks.clone());
    add("systemPrompt", options.system_prompt.as_ref().map(|text| json!([text])));
    add("appendSystemPrompt", options.append_system_prompt.as_ref().map(|text| json!(text)));
    add("title", options.title.as_ref().map(|text| json!(text)));
    add("jsonSchema", options.json_schema.clone());
    add("agents", (!options.agents.is_empty()).then(|| json!(options.agents)));
    add("sdkMcpServers", (!options.host_mcp_servers.is_empty()).then(|| json!(options.host_mcp_servers)));
    Value::Object(body)
}

/// What it may do without asking, with what was allowed since. Only the one step that the agent itself suggests.
fn mode(options: &LaunchOptions) -> PermissionMode {
    let edits = |update: &Value| update["type"] == "setMode" && update["mode"] == "acceptEdits";
    match options.permission_mode {
        PermissionMode::Default if options.granted.iter().any(edits) => PermissionMode::AcceptEdits,
        mode => mode,
    }
}

/// Rules that were allowed, as settings have them: a tool, or `TOOL(WHAT)` with its own parentheses escaped.
fn rules(granted: &[Value]) -> Vec<String> {
    let allowed =
        granted.iter().filter(|update| update["type"] == "addRules" && update["behavior"] == "allow");
    let rules = allowed.flat_map(|update| update["rules"].as_array().into_iter().flatten());
    rules
        .filter_map(|rule| {
            let tool = rule["toolName"].as_str()?;
            Some(match rule["ruleContent"].as_str() {
                Some(what) => {
                    let what = what.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)");
                    format!("{tool}({what})")
                }
                None => tool.to_owned(),
            })
        })
        .collect()
}

/// What other processes are told by arguments.
fn claimed_settings(options: &LaunchOptions) -> Map<String, Value> {
    let given = [("permissions", permissions(options)), ("hooks", turns::hooks(options))];
    given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// MCP servers as they are said later: then those that are commands need their arguments, also where they have none.
fn claimed_servers(options: &LaunchOptions) -> McpServers {
    let mut servers = options.mcp_servers.clone();
    for server in servers.values_mut().filter_map(Value::as_object_mut) {
        if server.contains_key("command") {
            server.entry("args").or_insert_with(|| json!([]));
        }
    }
    servers
}

fn permissions(options: &LaunchOptions) -> Option<Value> {
    let mut settings = Map::new();
    for (key, list) in [
        ("allow", &options.allowed_tools),
        ("deny", &options.disallowed_tools),
        ("additionalDirectories", &options.additional_directories),
    ] {
        if !list.is_empty() {
            settings.insert(key.to_owned(), json!(list));
        }
    }
    (!settings.is_empty()).then_some(Value::Object(settings))
}

fn check(options: &LaunchOptions) -> Result<()> {
    let wrong = |field, problem: &str| Err(Error::Options { field, problem: problem.to_owned() });
    if options.resume.is_none() && (options.fork || options.resume_at.is_some()) {
        return wrong("resume", "fork and resume_at need a conversation to go on with");
    }
    if options.claimed_spare && options.workspace.is_empty() {
        return wrong("workspace", "a spare has to be told where it works");
    }
    if options.max_budget_usd.is_some_and(|budget| !budget.is_finite() || budget <= 0.0) {
        return wrong("max_budget_usd", "must be a number of dollars above 0");
    }
    if !options.spent.is_finite() || options.spent < 0.0 {
        return wrong("spent", "must be a number of dollars");
    }
    if options.max_turns == Some(0) {
        return wrong("max_turns", "must be at least 1");
    }
    if let Some(hooks) = &options.hooks {
        hooks::check(hooks)?;
    }
    // A value that begins so would be taken for a flag.
    let values: [(&'static str, Vec<&String>); 8] = [
        ("resume", options.resume.iter().collect()),
        ("resume_at", options.resume_at.iter().collect()),
        ("conversation", options.conversation.iter().collect()),
        ("model", options.model.iter().chain(&options.fallback_model).collect()),
        ("allowed_tools", options.allowed_tools.iter().collect()),
        ("disallowed_tools", options.disallowed_tools.iter().collect()),
        ("additional_directories", options.additional_directories.iter().collect()),
        ("plugins", options.plugins.iter().collect()),
    ];
    for (field, values) in values {
        if values.iter().any(|value| value.is_empty() || value.starts_with('-') || value.contains('\0')) {
            return wrong(field, "must not be empty, begin with - or have a NUL in it");
        }
    }
    Ok(())
}

/// The agent's word for a mode.
pub(super) fn word(mode: PermissionMode) -> &'static str {
    match mode {
        PermissionMode::Default => "default",
        PermissionMode::AcceptEdits => "acceptEdits",
        PermissionMode::BypassPermissions => "bypassPermissions",
        PermissionMode::Plan => "plan",
        PermissionMode::DontAsk => "dontAsk",
    }
}

fn source_word(source: SettingSource) -> &'static str {
    match source {
        SettingSource::User => "user",
        SettingSource::Project => "project",
        SettingSource::Local => "local",
    }
}
