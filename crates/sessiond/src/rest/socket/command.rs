//! What clients say over a WebSocket.

use crate::rest::app::App;
use crate::rest::control::bounded;
use crate::rest::input::parse;
use crate::rest::messages::{Ack, MessageBody};
use crate::rest::problem::Problem;
use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use hostel_session::agent::Content;
use hostel_session::{QuestionAnswer, SendMessage, SessionId, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What to do, and how the caller calls it.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Command {
    /// Send a message.
    Message { prompt: Option<String>, content: Option<Vec<Content>>, idempotency_key: Option<String> },
    /// Ask the agent to stop its turn.
    Interrupt { wait_ms: Option<u64> },
    /// Stop the turn, by force where need be.
    Stop { grace_ms: Option<u64> },
    /// End the agent at once.
    Kill,
    /// Take a waiting message back.
    Cancel { message_id: String },
    /// Answer a question.
    Answer {
        question_id: String,
        verdict: Verdict,
        message: Option<String>,
        input: Option<Value>,
        #[serde(default)]
        interrupt: bool,
        decided_by: Option<String>,
    },
}

/// What came of a command.
#[derive(Debug, Serialize)]
pub(super) struct Reply {
    #[serde(rename = "type")]
    kind: &'static str,
    /// What the caller calls it.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<Value>,
    ok: bool,
    #[serde(flatten)]
    more: Value,
}

impl Reply {
    pub(super) fn json(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// Does what a client says.
pub(super) async fn run(app: App, id: SessionId, text: Utf8Bytes) -> Reply {
    let (reference, done) = match read(text.as_bytes()) {
        Ok((reference, command)) => (reference, follow(&app, &id, command).await),
        Err((reference, problem)) => (reference, Err(problem)),
    };
    match done {
        Ok(more) => Reply { kind: "reply", reference, ok: true, more },
        Err(problem) => {
            let more = json!({
                "error": problem.title(), "reason": problem.reason(), "detail": problem.detail(),
                "status": problem.status().as_u16(),
            });
            Reply { kind: "reply", reference, ok: false, more }
        }
    }
}

/// Reads a command, and what the caller calls it even where the rest is wrong.
fn read(text: &[u8]) -> Result<(Option<Value>, Command), (Option<Value>, Problem)> {
    let mut whole: Value = parse(text).map_err(|problem| (None, problem))?;
    let reference = whole.as_object_mut().and_then(|fields| fields.remove("ref"));
    match serde_json::from_value(whole) {
        Ok(command) => Ok((reference, command)),
        Err(error) => Err((reference, Problem::invalid("", error))),
    }
}

async fn follow(app: &App, id: &SessionId, command: Command) -> Result<Value, Problem> {
    let host = &app.host;
    Ok(match command {
        Command::Message { prompt, content, idempotency_key } => {
            let content = MessageBody::content(prompt, content)?;
            let accepted = host.send(id, SendMessage { content, idempotency_key }).await?;
            serde_json::to_value(Ack::of(&accepted)).unwrap_or_default()
        }
        Command::Interrupt { wait_ms } => {
            json!({ "session": host.interrupt(id, bounded("waitMs", wait_ms)?).await? })
        }
        Command::Stop { grace_ms } => {
            json!({ "session": host.stop(id, bounded("graceMs", grace_ms)?).await? })
        }
        Command::Kill => json!({ "session": host.kill(id).await? }),
        Command::Cancel { message_id } => json!({ "message": host.cancel(id, &message_id).await? }),
        Command::Answer { question_id, verdict, message, input, interrupt, decided_by } => {
            let answer = QuestionAnswer { verdict, message, input, interrupt, decided_by };
            json!({ "question": host.answer(id, &question_id, answer).await? })
        }
    })
}
