//! What an agent can be asked for.

use crate::launch::PermissionMode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something to tell an agent. Those with an `id` are answered by [`Meaning::Answered`](crate::Meaning::Answered).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Request {
    /// A message of the user.
    Prompt(Prompt),
    /// Stop the turn that runs, and drop what waits.
    Interrupt {
        /// To know the answer by.
        id: String,
    },
    /// Answer a question.
    Answer(Answer),
    /// Answer a call of a tool or hook that the host provides.
    HostAnswer(HostAnswer),
    /// Speak with another model from now on; `None` is the default.
    SetModel {
        /// To know the answer by.
        id: String,
        /// The model.
        model: Option<String>,
    },
    /// May do other things without asking from now on.
    SetPermissionMode {
        /// To know the answer by.
        id: String,
        /// The mode.
        mode: PermissionMode,
    },
    /// Have other MCP servers from now on, besides those it was started with.
    SetMcpServers {
        /// To know the answer by.
        id: String,
        /// All of them.
        servers: crate::launch::McpServers,
    },
    /// Ask what the conversation fills of the model's context.
    ContextUsage {
        /// To know the answer by.
        id: String,
    },
    /// Ask what the process spent by its own estimate.
    Cost {
        /// To know the answer by.
        id: String,
    },
    /// Say anything else of the agent's own protocol.
    Control {
        /// To know the answer by.
        id: String,
        /// The body, with its `subtype`.
        body: Value,
    },
    /// Finish what was asked for and end.
    End,
}

/// A message of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// A uuid: the agent does nothing for one that it has seen.
    pub uuid: String,
    /// What it says.
    pub content: Vec<Content>,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
        media_type: String,
        /// The file in base64.
        data: String,
    },
}

impl Content {
    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Text { text } => text.len(),
            Self::Image { data, .. } => data.len(),
        }
    }
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The question.
    pub question: String,
    /// What was decided.
    pub decision: Decision,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Do it.
    Allow {
        /// With this input instead of the one that was told.
        input: Option<Value>,
        /// And do not ask for the like again in this conversation.
        for_session: bool,
    },
    /// Do not do it.
    Deny {
        /// What the agent is told.
        message: String,
        /// Whether the turn ends too.
        interrupt: bool,
    },
}

/// An answer to a call of the host's tool or hook.
#[derive(Debug, Clone, PartialEq)]
pub struct HostAnswer {
    /// The call.
    pub call: String,
    /// The JSON-RPC answer or the hook's output; or why there is none.
    pub result: std::result::Result<Value, String>,
}
