//! What the output of an agent means.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What one line of output, or the end of the process, means. A line may mean several things; the first of its events
/// then has the line.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentEvent {
    /// The line as the agent wrote it, where it was JSON and is no delta.
    pub raw: Option<Value>,
    /// The subagent that it comes from; `None` is the agent itself. It is the id of the tool call that started it.
    pub subagent: Option<String>,
    /// What it means.
    pub meaning: Meaning,
}

impl AgentEvent {
    /// Something that the agent itself did.
    #[must_use]
    pub fn new(meaning: Meaning) -> Self {
        Self { raw: None, subagent: None, meaning }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Meaning {
    /// The agent takes prompts. Comes once, before everything else that is asked for by prompts.
    Ready(Ready),
    /// The conversation's own id became known, or is another from now on.
    Conversation {
        /// The agent's id of the conversation.
        id: String,
        /// The model that it speaks with, where it said so.
        model: Option<String>,
    },
    /// The agent is busy.
    Running,
    /// The agent is idle: nothing of any turn runs. Commands that it left running in the background may; when they are
    /// over it may begin again by itself. Comes once for each [`Running`](Self::Running), after the results.
    Idle,
    /// What became of a prompt.
    Prompt {
        /// The uuid that it was sent with.
        uuid: String,
        /// What became of it.
        state: MessageState,
    },
    /// A part of an answer began.
    BlockStart(Block),
    /// A part of an answer grew.
    BlockDelta {
        /// Which block.
        block: String,
        /// Its place in its message.
        index: u32,
        /// What grew.
        kind: DeltaKind,
        /// By what.
        delta: String,
    },
    /// Something of a block is known that was not: the state of a tool. A null input means that it is as it was.
    BlockUpdate(Block),
    /// A part of an answer is complete, and this is all of it. It may be the first that is told of it. The call of a
    /// tool is complete before the tool has run.
    BlockComplete(Block),
    /// A part of an answer that began will not become complete, as the model was cut short. What is asked again comes
    /// as parts of its own.
    BlockAbandoned {
        /// Which block.
        block: String,
    },
    /// The agent asks whether it may, or what is wanted. Somebody has to answer.
    Question(Question),
    /// A question needs no answer any more.
    QuestionWithdrawn {
        /// Its id.
        id: String,
    },
    /// The agent calls a tool or hook that the host provides. The host has to answer.
    HostCall {
        /// To answer with.
        id: String,
        /// The MCP server, or the id of the hook.
        name: String,
        /// Whether it is a hook.
        hook: bool,
        /// What it says: a JSON-RPC message, or the hook's input.
        message: Value,
    },
    /// What came of a request of ours that has an answer.
    Answered {
        /// The id that the request had.
        id: String,
        /// The answer, or why not.
        result: std::result::Result<Value, String>,
    },
    /// A turn has a result. It does not mean that the agent is idle. Every prompt gets one, also where it has no turn:
    /// with `cancelled` or `repeated` as its terminal reason.
    Result(TurnResult),
    /// The model could not be asked and is asked again.
    Retry(Retry),
    /// Something that the agent does on the side.
    Subagent {
        /// The id of the tool call, or of the task.
        id: String,
        /// Where it is.
        state: SubagentState,
        /// What it is for.
        description: String,
    },
    /// Lines of the conversation's transcript, as the agent keeps them.
    Transcript {
        /// The file inside the sandbox.
        path: String,
        /// The lines, in order.
        entries: Vec<Value>,
    },
    /// Something to tell to people.
    Log {
        /// `debug`, `info`, `warn` or `error`.
        level: &'static str,
        /// One sentence.
        message: String,
    },
    /// A line that has no meaning here. It is passed through.
    Other {
        /// Its type, `system/…` with the subtype where it has one.
        kind: String,
    },
    /// Output that is not what the agent's protocol says: not JSON, too long, bytes missing.
    Malformed {
        /// What is wrong, with the beginning of it.
        problem: String,
    },
}

/// What an agent that is ready says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ready {
    /// Its version.
    pub version: Option<String>,
    /// What it can do, by its own names.
    pub capabilities: Vec<String>,
    /// The conversation, where it is known before the first prompt.
    pub conversation: Option<String>,
}

/// What became of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// The agent has it.
    Queued,
    /// It is being worked on.
    Started,
    /// It is dealt with.
    Completed,
    /// It was dropped.
    Cancelled,
}

/// A part of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// Unique in the session.
    pub id: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: BlockKind,
}

/// What a part of a conversation is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum BlockKind {
    /// Said by the user.
    UserMessage {
        /// The text; images are told in brackets.
        text: String,
    },
    /// Said by the agent.
    AssistantText {
        /// The text.
        text: String,
    },
    /// Thought by the agent.
    Thinking {
        /// The text.
        text: String,
    },
    /// A call of a tool.
    ToolUse {
        /// The tool.
        name: String,
        /// Its input; null while it is being written, and where only its state is told. Then it is not in JSON, so
        /// that an update leaves it as it was.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        input: Value,
        /// Where it is.
        status: ToolStatus,
    },
    /// What came of a call.
    ToolResult {
        /// The block of the call.
        tool_use_id: String,
        /// What it gave.
        content: Value,
        /// Whether it failed.
        is_error: bool,
    },
    /// Said by the program around the agent.
    System {
        /// What about.
        subtype: String,
        /// One sentence.
        message: String,
    },
}

/// Where a call of a tool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// It is being written, or waits for a permission.
    Pending,
    /// It runs.
    Running,
    /// It succeeded.
    Success,
    /// It failed.
    Error,
}

/// What of a block grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeltaKind {
    /// Text.
    Text,
    /// Thinking.
    Thinking,
    /// The input of a tool, as JSON text.
    Input,
}

/// Something that the agent wants to know before it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// To answer with.
    pub id: String,
    /// The tool that it wants to use; `AskUserQuestion` and `ExitPlanMode` are questions to people.
    pub tool: String,
    /// What it wants to do with it.
    pub input: Value,
    /// What it is about, in a few words.
    pub description: Option<String>,
    /// The block of the call.
    pub tool_use_id: Option<String>,
    /// Permissions that would make it not ask again, as the agent suggests them.
    pub suggestions: Vec<Value>,
}

/// Where something on the side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubagentState {
    /// It began.
    Started,
    /// It goes on.
    Progress,
    /// It is done.
    Completed,
    /// It failed or was stopped.
    Failed,
}

/// The model could not be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Which attempt failed, from 1.
    pub attempt: u32,
    /// How many there are at most.
    pub max_retries: u32,
    /// How long until the next, in milliseconds.
    pub delay_ms: u64,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// Why, in one word.
    pub error: String,
}

/// What a turn used of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Usage {
    /// Tokens read that were in no cache.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
    /// Tokens put into a cache.
    pub cache_creation: u64,
    /// Tokens read from a cache.
    pub cache_read: u64,
}

/// How a turn ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TurnResult {
    /// `success`, `error_during_execution`, `error_max_turns`, `error_max_budget_usd`, or another word of the agent;
    /// `agent_exited` where it ended without one.
    pub subtype: String,
    /// Whether it failed, whatever the subtype says.
    pub is_error: bool,
    /// The agent's last words, or what went wrong.
    pub text: Option<String>,
    /// Why it ended: `completed`, `api_error`, `aborted_streaming`, `aborted_tools`, …; `cancelled` where it was before
    /// its turn began, `repeated` where the conversation has the prompt already.
    pub terminal_reason: Option<String>,
    /// Whether somebody interrupted it.
    pub interrupted: bool,
    /// The status of the model's answer that made it fail.
    pub api_error_status: Option<u16>,
    /// What was used in this turn.
    pub usage: Usage,
    /// What this turn cost by the agent's own estimate, in dollars.
    pub cost_usd: f64,
    /// How many times the model was asked.
    pub num_turns: u32,
    /// How long it took by the agent's clock, in milliseconds.
    pub duration_ms: u64,
    /// The prompts that it answers, where the agent says so.
    pub prompts: Vec<String>,
    /// Whether the agent began it by itself, after something on the side was done.
    pub unasked: bool,
    /// The answer in the form that was asked for.
    pub structured_output: Option<Value>,
}
