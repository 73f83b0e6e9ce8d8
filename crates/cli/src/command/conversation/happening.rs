//! What an event means to who looks on. Only what is shown is read; what is missing counts as empty.

use hostel_client::model::SessionEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The agent itself, where events name who speaks.
const MAIN: &str = "main";

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Happening {
    /// A message was accepted.
    Queued { message: String, text: String },
    /// A message will not be worked on.
    Cancelled { message: String },
    /// A turn began.
    TurnStarted,
    /// A turn ended.
    TurnCompleted { message: String, outcome: Outcome },
    /// A part of an answer began, or more is known of it, or it is complete.
    Block { subagent: bool, block: Block, complete: bool },
    /// A part of an answer grew.
    Delta { subagent: bool, block: String, kind: String, delta: String },
    /// The agent asks.
    Asked(Question),
    /// A question has its answer, or needs none.
    Resolved { question: String, by: String },
    /// Something to say about the sandbox.
    Environment { status: String, message: String },
    /// The model could not be asked and is asked again.
    Retry { attempt: u64, of: u64, error: String },
    /// Something to tell people.
    Told { level: String, message: String },
    /// The session ended.
    Ended { reason: String, message: String },
    /// Nothing that is shown.
    Other,
}

/// How a turn ended, as the journal has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) is_error: bool,
    pub(crate) result: String,
    pub(crate) text: Option<String>,
    pub(crate) usage: Usage,
    /// In US dollars.
    pub(crate) cost: f64,
    /// In milliseconds.
    pub(crate) latency: u64,
    pub(crate) num_turns: u32,
}

/// Tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cache_creation: u64,
    pub(crate) cache_read: u64,
}

/// A part of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Block {
    pub(crate) id: String,
    /// `assistant_text`, `thinking`, `tool_use`, `tool_result` and others.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) text: Option<String>,
    /// Of a tool.
    pub(crate) name: Option<String>,
    pub(crate) input: Option<Value>,
    /// `pending`, `running`, `success` or `error`.
    pub(crate) status: Option<String>,
    /// The call that a result is of.
    pub(crate) tool_use_id: Option<String>,
    pub(crate) content: Option<Value>,
    pub(crate) is_error: bool,
    /// Of the program around the agent.
    pub(crate) message: Option<String>,
}

/// A question of the agent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Question {
    pub(crate) id: String,
    pub(crate) tool: String,
    pub(crate) input: Value,
    pub(crate) description: Option<String>,
}

/// What events have besides.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Fields {
    message_id: String,
    content: Vec<Content>,
    outcome: Outcome,
    conversation_id: String,
    block_id: String,
    block: Block,
    updates: Block,
    kind: String,
    delta: String,
    question: Question,
    question_id: String,
    decided_by: String,
    environment: Environment,
    attempt: u64,
    max_retries: u64,
    error: String,
    level: String,
    message: Text,
    reason: String,
    problem: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Environment {
    status: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content {
    text: Option<String>,
}

/// Text where it is text; what an agent wrote has the same key.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Else(serde::de::IgnoredAny),
    #[default]
    Nothing,
}

impl Text {
    fn text(self) -> String {
        match self {
            Self::Plain(text) => text,
            Self::Else(_) | Self::Nothing => String::new(),
        }
    }
}

fn read<T: DeserializeOwned + Default>(event: &SessionEvent) -> T {
    // An event of a form that we do not know says nothing to us.
    serde_json::from_str(event.data.get()).unwrap_or_default()
}

impl Happening {
    /// What an event means.
    pub(crate) fn of(event: &SessionEvent) -> Self {
        match event.kind.as_str() {
            // The bulk of a journal, and nothing of it is shown.
            "agent:message" | "usage:update" | "metadata:update" => return Self::Other,
            _ => {}
        }
        let fields: Fields = read(event);
        let subagent = !matches!(fields.conversation_id.as_str(), "" | MAIN);
        let block = |block: Block, complete| {
            let id = if block.id.is_empty() { fields.block_id.clone() } else { block.id.clone() };
            Self::Block { subagent, block: Block { id, ..block }, complete }
        };
        match event.kind.as_str() {
            "message:queued" => Self::Queued { message: fields.message_id, text: said(&fields.content) },
            "message:cancelled" => Self::Cancelled { message: fields.message_id },
            "turn:started" => Self::TurnStarted,
            "turn:completed" => Self::TurnCompleted { message: fields.message_id, outcome: fields.outcome },
            "block:start" => block(fields.block, false),
            "block:update" => block(fields.updates, false),
            "block:complete" => block(fields.block, true),
            "block:delta" => {
                Self::Delta { subagent, block: fields.block_id, kind: fields.kind, delta: fields.delta }
            }
            "permission:requested" => Self::Asked(fields.question),
            "permission:resolved" => Self::Resolved { question: fields.question_id, by: fields.decided_by },
            "environment:changed" => {
                Self::Environment { status: fields.environment.status, message: fields.environment.message }
            }
            "model:retry" => {
                Self::Retry { attempt: fields.attempt, of: fields.max_retries, error: fields.error }
            }
            "log" => Self::Told { level: fields.level, message: fields.message.text() },
            "error" => Self::Told { level: "error".to_owned(), message: fields.message.text() },
            "output:damaged" => Self::Told { level: "warn".to_owned(), message: fields.problem },
            "session:ended" => Self::Ended { reason: fields.reason, message: fields.message.text() },
            _ => Self::Other,
        }
    }
}

fn said(content: &[Content]) -> String {
    let parts = content.iter().map(|part| part.text.as_deref().unwrap_or("[picture]"));
    parts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn event(kind: &str, data: &str) -> Happening {
        Happening::of(&SessionEvent {
            seq: 1,
            kind: kind.to_owned(),
            message_id: None,
            time: None,
            data: RawValue::from_string(data.to_owned()).unwrap(),
        })
    }

    #[test]
    fn events_are_read_as_the_journal_writes_them() {
        let tool = r#"{"conversationId":"main","block":{"id":"b1","type":"tool_use","name":"Bash",
            "input":{"command":"ls"},"status":"running"}}"#;
        let Happening::Block { subagent: false, block, complete: false } = event("block:start", tool) else {
            panic!("no block")
        };
        assert_eq!((block.id.as_str(), block.name.as_deref()), ("b1", Some("Bash")));
        let update = r#"{"conversationId":"main","blockId":"b1","updates":{"status":"success"}}"#;
        let Happening::Block { block, .. } = event("block:update", update) else { panic!("no block") };
        assert_eq!((block.id.as_str(), block.status.as_deref()), ("b1", Some("success")));
        let end = r#"{"messageId":"m","outcome":{"isError":false,"result":"success","usage":{"input":3,"output":4,
            "cacheCreation":0,"cacheRead":0},"cost":0.25,"latency":1200,"numTurns":2}}"#;
        let Happening::TurnCompleted { message, outcome } = event("turn:completed", end) else {
            panic!("no end")
        };
        assert_eq!((message.as_str(), outcome.usage.output, outcome.latency), ("m", 4, 1200));
        let sent = r#"{"messageId":"m","position":0,"content":[{"type":"text","text":"hi"},
            {"type":"image","mediaType":"image/png","data":"AA=="}]}"#;
        let queued = Happening::Queued { message: "m".to_owned(), text: "hi\n[picture]".to_owned() };
        assert_eq!(event("message:queued", sent), queued);
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        assert_eq!(event("agent:message", r#"{"message":{"type":"system"}}"#), Happening::Other);
        assert_eq!(event("later:invented", r#"{"message":{"a":1}}"#), Happening::Other);
        let odd = event("log", r#"{"level":"info","message":{"a":1}}"#);
        assert_eq!(odd, Happening::Told { level: "info".to_owned(), message: String::new() });
        assert!(matches!(event("turn:completed", "[]"), Happening::TurnCompleted { .. }));
    }
}
