//! How the agent of a session is to be.

use hostel_agent::{AgentKind, PermissionMode, SettingSource};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// How the agent of a session is to be, and what its sandbox. Fixed when the session is created, but for the model,
/// the permission mode and the budget.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionConfig {
    /// `claude` (the default) or `exec`.
    #[serde(skip_serializing_if = "is_default")]
    #[schema(value_type = String)]
    pub agent: AgentKind,
    /// The model; the agent's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model to fall back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_model: Option<String>,
    /// What the agent is told before everything else, after its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Whether `systemPrompt` takes the place of the agent's own words.
    #[serde(skip_serializing_if = "is_default")]
    pub replace_system_prompt: bool,
    /// The most model calls in one turn. Where the session has no `maxTurns` of its own it is that too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// The most that it may spend by its own estimate, in dollars; it is started with that. Where the session has no
    /// `maxBudgetUsd` of its own it is that too; where that is changed later, so is this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_budget_usd: Option<crate::usd::Usd>,
    /// The most tokens to think with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_thinking_tokens: Option<u32>,
    /// What it may do without asking.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub permission_mode: Option<PermissionMode>,
    /// Accepted for callers that set it together with `bypassPermissions`.
    #[serde(skip_serializing_if = "is_default")]
    pub allow_dangerously_skip_permissions: bool,
    /// Whether the agent asks over the API when it may not; otherwise what it may not do is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub ask_permissions: bool,
    /// Tools, or rules for them, that need no asking.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_tools: Vec<String>,
    /// Tools, or rules for them, that it may not use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disallowed_tools: Vec<String>,
    /// Where it works, inside the sandbox; `/workspace` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Directories that it may work in besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_directories: Vec<String>,
    /// Environment of the agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The program, for `exec` with its arguments in `executableArgs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// More arguments of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub executable_args: Vec<String>,
    /// Not supported: which conversation is the latest cannot be known. Use `resumeSessionId`.
    #[serde(skip_serializing_if = "is_default")]
    pub continue_session: bool,
    /// Go on with the conversation of another session: its `id` or `sessionId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_session_id: Option<String>,
    /// Go on only up to this message of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_at_message_id: Option<String>,
    /// Go on with a copy of it.
    #[serde(skip_serializing_if = "is_default")]
    pub fork_session: bool,
    /// MCP servers by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp_servers: BTreeMap<String, Value>,
    /// Whether only these MCP servers are used.
    #[serde(skip_serializing_if = "is_default")]
    pub strict_mcp_config: bool,
    /// Subagents by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_agents: BTreeMap<String, Value>,
    /// Hooks that the agent runs in its sandbox, as `hooks` of its settings has them: by event what to match, and the
    /// commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Value>,
    /// Plugins of the agent that are in its sandbox.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
    /// Where settings are read from: `user`, `project`, `local`. `project` where absent; empty for nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub setting_sources: Option<Vec<SettingSource>>,
    /// The form that answers shall have, as JSON schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<Value>,
    /// The template of the sandbox; the server's where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The backend of the sandbox; the daemon's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The pool of the sandbox; any that fits where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// What the sandbox may reach, as `hostel run --network` takes it: `none`, `open`, or hosts to allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Vec<String>>,
}

/// A plugin of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Plugin {
    /// A directory, or a `.zip`, in the sandbox.
    Local {
        /// Where; relative to `workingDirectory`.
        path: String,
    },
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
