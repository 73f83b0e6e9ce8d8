//! What to start, and with which options.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// MCP servers by name, as the agent's configuration has them.
pub type McpServers = BTreeMap<String, Value>;

/// A process to start. Shown without the values of its environment and its arguments, where there may be keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment over the sandbox's.
    pub env: BTreeMap<String, String>,
    /// Where to start it; `None` is the sandbox's directory.
    pub cwd: Option<String>,
}

/// How an agent is to be. What it is told later, by [`Request`](crate::Request)s, is not here. Shown without what may
/// hold keys.
#[derive(Clone, Default, PartialEq)]
pub struct LaunchOptions {
    /// The program; `None` is `claude` in the sandbox's PATH. For [`AgentKind::Exec`](crate::AgentKind) the command.
    pub program: Option<String>,
    /// More arguments, after ours.
    pub extra_args: Vec<String>,
    /// Environment over the sandbox's.
    pub env: BTreeMap<String, String>,
    /// Environment of this session alone, over that. A spare has it for what it starts; of what is read when a process
    /// starts it can have none.
    pub session_env: BTreeMap<String, String>,
    /// The directory that it works in.
    pub workspace: String,
    /// Where it keeps its state: transcripts, settings.
    pub state_directory: Option<String>,
    /// The conversation's id: a uuid, new. A claimed spare has one of its own, which it tells when it is
    /// [ready](crate::Meaning::Ready).
    pub conversation: Option<String>,
    /// Go on with a conversation: its id, or the absolute path of its transcript.
    pub resume: Option<String>,
    /// Go on only up to this message of it.
    pub resume_at: Option<String>,
    /// What was spent before this process, in dollars: an agent that goes on with a conversation goes on counting, and
    /// older ones do not tell what is new.
    pub spent: f64,
    /// Go on with a copy of it, under an id of its own.
    pub fork: bool,
    /// The agent was started before as [a spare](crate::claude::spare) and is claimed: only what can be said to it
    /// then is said, and the rest must be as the spare has it: also its environment.
    pub claimed_spare: bool,
    /// The model.
    pub model: Option<String>,
    /// The model to fall back to.
    pub fallback_model: Option<String>,
    /// Instead of the agent's own system prompt.
    pub system_prompt: Option<String>,
    /// After the agent's own system prompt.
    pub append_system_prompt: Option<String>,
    /// The most model calls in one turn.
    pub max_turns: Option<u32>,
    /// The most that may be spent by the agent's own estimate, in dollars: this process has what is left of it after
    /// what was [`spent`](Self::spent) before.
    pub max_budget_usd: Option<f64>,
    /// The most tokens to think with.
    pub max_thinking_tokens: Option<u32>,
    /// What it may do without asking.
    pub permission_mode: PermissionMode,
    /// Whether it asks us when it may not; otherwise what it may not do is refused, and the tools that ask its user are
    /// not there.
    pub ask: bool,
    /// Tools, or rules for them, that need no asking.
    pub allowed_tools: Vec<String>,
    /// What was allowed for the rest of the conversation that it goes on with, as
    /// [`granted`](crate::claude::granted) gives it.
    pub granted: Vec<Value>,
    /// Tools, or rules for them, that it may not use.
    pub disallowed_tools: Vec<String>,
    /// Directories that it may work in besides.
    pub additional_directories: Vec<String>,
    /// MCP servers.
    pub mcp_servers: McpServers,
    /// Whether only these MCP servers are used, not those of the workspace.
    pub strict_mcp_config: bool,
    /// MCP servers that the host itself is: their calls come as
    /// [`HostCall`](crate::Meaning::HostCall).
    pub host_mcp_servers: Vec<String>,
    /// Subagents by name, as the agent's configuration has them.
    pub agents: BTreeMap<String, Value>,
    /// Hooks that the host answers: by event, what to match and the ids to call.
    pub host_hooks: Option<Value>,
    /// Hooks that the agent runs itself, where it is: by event, what to match and what to run, as in its settings.
    pub hooks: Option<Value>,
    /// Directories or archives of plugins, where the agent is; relative ones are of the workspace.
    pub plugins: Vec<String>,
    /// Where settings are read from. Empty: nowhere, so that what is in the workspace cannot change how it works.
    pub setting_sources: Vec<SettingSource>,
    /// The form that the answer shall have, as JSON schema.
    pub json_schema: Option<Value>,
    /// A name for the conversation.
    pub title: Option<String>,
}

/// What an agent may do without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// Reading, and what rules allow.
    Default,
    /// Changing files too.
    #[default]
    AcceptEdits,
    /// Everything. The sandbox is the limit.
    BypassPermissions,
    /// Reading only, until a plan is accepted.
    Plan,
    /// What it would ask for is refused.
    DontAsk,
}

/// Where settings are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingSource {
    /// The user's, in the state directory.
    User,
    /// The workspace's, as committed.
    Project,
    /// The workspace's, not committed.
    Local,
}

impl fmt::Debug for Launch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Launch")
            .field("program", &self.argv.first())
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LaunchOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LaunchOptions")
            .field("program", &self.program)
            .field("env", &self.env.keys())
            .field("session_env", &self.session_env.keys())
            .field("workspace", &self.workspace)
            .field("conversation", &self.conversation)
            .field("resume", &self.resume)
            .field("claimed_spare", &self.claimed_spare)
            .field("model", &self.model)
            .field("permission_mode", &self.permission_mode)
            .field("mcp_servers", &self.mcp_servers.keys())
            .finish_non_exhaustive()
    }
}
