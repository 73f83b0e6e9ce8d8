//! What a message is answered with: a stream of frames, everything at the end, or that it was taken.

use super::problem::{Problem, Result};
use super::sse::{self, COMMENT, KEEP_ALIVE};
use super::turn::{Growth, Step, Turn};
use axum::body::Bytes;
use axum::http::StatusCode;
use futures::Stream;
use futures::stream::unfold;
use hostel_session::agent::{DeltaKind, Usage};
use hostel_session::{MessageOutcome, Session, SessionId, Usd};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a whole answer is waited for. The turn goes on after it.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// How a turn ended: the last frame of a stream.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    /// Always `done`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The message.
    message_id: String,
    /// The session.
    session_id: String,
    /// Milliseconds from acceptance to end.
    latency: u64,
    /// Tokens: `input`, `output`, `cacheCreation`, `cacheRead`.
    #[schema(value_type = Object)]
    usage: Usage,
    /// What it cost, in dollars.
    cost: Usd,
    /// How often the model was asked.
    num_turns: u32,
    /// Whether it failed.
    is_error: bool,
    /// `success`, or how it failed in a word.
    result: String,
    /// The agent's last words.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Names of the tools that were used, sorted.
    tools_used: Vec<String>,
    /// What went wrong, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The agent's own result.
    #[serde(skip)]
    raw: Option<serde_json::Value>,
}

impl Done {
    pub(super) fn new(
        id: &SessionId,
        message: &str,
        outcome: MessageOutcome,
        tools: &BTreeSet<String>,
    ) -> Self {
        let MessageOutcome { is_error, result, text, usage, cost, latency, num_turns, raw } = outcome;
        let error = is_error.then(|| text.clone().unwrap_or_else(|| result.clone()));
        Self {
            kind: "done",
            message_id: message.to_owned(),
            session_id: id.as_str().to_owned(),
            latency,
            usage,
            cost,
            num_turns,
            is_error,
            result,
            text,
            tools_used: tools.iter().cloned().collect(),
            error,
            raw,
        }
    }
}

/// A whole answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    /// The agent's last message, as the model's API has messages; null where it said nothing.
    #[schema(value_type = Option<Object>)]
    response: Option<Box<RawValue>>,
    /// The agent's own result, as it wrote it; null where it wrote none.
    #[schema(value_type = Option<Object>)]
    result: Option<serde_json::Value>,
    /// Milliseconds from acceptance to end.
    latency: u64,
    /// The session after the turn.
    session: Session,
    /// The message.
    message_id: String,
    /// Tokens: `input`, `output`, `cacheCreation`, `cacheRead`.
    #[schema(value_type = Object)]
    usage: Usage,
    /// What it cost, in dollars.
    cost: Usd,
    /// How often the model was asked.
    num_turns: u32,
    /// Whether it failed.
    is_error: bool,
    /// Names of the tools that were used, sorted.
    tools_used: Vec<String>,
    /// What went wrong, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The frames of a turn, `done` last.
pub(super) fn frames(turn: Turn) -> impl Stream<Item = Bytes> + Send + 'static {
    unfold(Some(turn), |turn| async move {
        let mut turn = turn?;
        match tokio::time::timeout(KEEP_ALIVE, turn.next()).await {
            Err(_) => Some((COMMENT, Some(turn))),
            Ok(Step::Done(done)) => Some((sse::data(&done), None)),
            Ok(Step::Said { kind, line }) => {
                Some((sse::data(&Frame { kind: &kind, data: &line }), Some(turn)))
            }
            Ok(Step::Grew(growth)) => {
                let frame = Frame { kind: "stream_event", data: stream_event(&growth) };
                Some((sse::data(&frame), Some(turn)))
            }
        }
    })
}

/// A message of the agent, as its SDK has it.
#[derive(Serialize)]
struct Frame<'a, D> {
    #[serde(rename = "type")]
    kind: &'a str,
    data: D,
}

/// A delta as the agent's SDK has it.
fn stream_event(growth: &Growth) -> serde_json::Value {
    let Growth { conversation_id, index, kind, delta } = growth;
    let delta = match kind {
        DeltaKind::Text => json!({ "type": "text_delta", "text": delta }),
        DeltaKind::Thinking => json!({ "type": "thinking_delta", "thinking": delta }),
        DeltaKind::Input => json!({ "type": "input_json_delta", "partial_json": delta }),
    };
    let parent = (conversation_id != "main").then_some(conversation_id);
    json!({
        "type": "stream_event",
        "event": { "type": "content_block_delta", "index": index, "delta": delta },
        "parent_tool_use_id": parent,
    })
}

/// Waits for the end of a turn: its end, the agent's last message, the agent's result.
///
/// # Errors
/// Where it takes too long.
pub(super) async fn whole(mut turn: Turn) -> Result<Whole> {
    let (mut response, mut result) = (None, None);
    let wait = async {
        loop {
            match turn.next().await {
                Step::Done(done) => return done,
                Step::Said { kind, line } if kind == "assistant" => {
                    let said: Option<Assistant> = serde_json::from_str(line.get()).ok();
                    // What subagents say is not the answer.
                    if let Some(said) = said.filter(|said| said.parent_tool_use_id.is_none()) {
                        response = Some(said.message);
                    }
                }
                Step::Said { kind, line } if kind == "result" => {
                    result = serde_json::from_str(line.get()).ok()
                }
                Step::Said { .. } | Step::Grew(_) => {}
            }
        }
    };
    let slow = |_| {
        let detail = "the turn goes on; read its end from the events";
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "slow_turn", "Timeout", detail)
    };
    let done = tokio::time::timeout(LONGEST_WAIT, wait).await.map_err(slow)?;
    Ok(Whole { done: *done, response, result })
}

/// A turn that has ended.
pub(super) struct Whole {
    done: Done,
    response: Option<Box<RawValue>>,
    result: Option<serde_json::Value>,
}

impl Whole {
    pub(super) fn answer(self, session: Session) -> Answer {
        let Self { done, response, result } = self;
        Answer {
            response,
            result: done.raw.or(result),
            latency: done.latency,
            session,
            message_id: done.message_id,
            usage: done.usage,
            cost: done.cost,
            num_turns: done.num_turns,
            is_error: done.is_error,
            tools_used: done.tools_used,
            error: done.error,
        }
    }
}

#[derive(Deserialize)]
struct Assistant {
    message: Box<RawValue>,
    parent_tool_use_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_look_as_the_sdk_has_them() {
        let grew = |kind, conversation: &str| {
            let (conversation_id, delta) = (conversation.to_owned(), "x".to_owned());
            stream_event(&Growth { conversation_id, index: 2, kind, delta })
        };
        let text = grew(DeltaKind::Text, "main");
        assert_eq!(
            text["event"],
            json!({ "type": "content_block_delta", "index": 2, "delta": { "type": "text_delta", "text": "x" } })
        );
        assert_eq!(text["type"], "stream_event");
        assert!(text["parent_tool_use_id"].is_null());
        let input = grew(DeltaKind::Input, "toolu_1");
        assert_eq!(input["event"]["delta"], json!({ "type": "input_json_delta", "partial_json": "x" }));
        assert_eq!(input["parent_tool_use_id"], "toolu_1");
    }
}
