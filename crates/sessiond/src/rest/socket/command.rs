//! What clients say over a WebSocket.

use super::COMMANDS;
use crate::rest::app::App;
use crate::rest::control::bounded;
use crate::rest::input::parse;
use crate::rest::messages::{Ack, MessageBody};
use crate::rest::problem::Problem;
use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use axum::http::StatusCode;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use hostel_session::agent::Content;
use hostel_session::{QuestionAnswer, SendMessage, SessionId, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::task::Poll;
use tokio::sync::mpsc;

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
    /// End the agent at once. Braces, for serde takes any field where there are none.
    Kill {},
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

impl Command {
    /// Whether it is waited for until a turn has ended.
    fn takes_long(&self) -> bool {
        matches!(self, Self::Interrupt { .. } | Self::Stop { .. } | Self::Kill {})
    }
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

impl Reply {
    /// A client says more than it waits for.
    pub(super) fn too_many(text: &Utf8Bytes) -> Self {
        let reference = match read(text.as_bytes()) {
            Ok((reference, _)) | Err((reference, _)) => reference,
        };
        let detail = "too many commands wait for those before them; wait for replies";
        Self::of(
            reference,
            Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", "Too much at once", detail)),
        )
    }

    fn of(reference: Option<Value>, done: Result<Value, Problem>) -> Self {
        match done {
            Ok(more) => Self { kind: "reply", reference, ok: true, more },
            Err(problem) => {
                let more = json!({
                    "error": problem.title(), "reason": problem.reason(), "detail": problem.detail(),
                    "status": problem.status().as_u16(),
                });
                Self { kind: "reply", reference, ok: false, more }
            }
        }
    }
}

/// Does what a client says, one after another: a message is accepted before the next is, and before a stop that was
/// said after it. Stops take as long as they take; what follows need not wait for their end.
pub(super) async fn follow(
    app: App,
    id: SessionId,
    mut said: mpsc::Receiver<Utf8Bytes>,
    replies: mpsc::Sender<Reply>,
) {
    let mut stops = FuturesUnordered::new();
    loop {
        let reply = tokio::select! {
            text = said.recv(), if stops.len() < COMMANDS => {
                let Some(text) = text else { return };
                match read(text.as_bytes()) {
                    Err((reference, problem)) => Reply::of(reference, Err(problem)),
                    Ok((reference, command)) => {
                        let takes_long = command.takes_long();
                        let (app, id) = (app.clone(), id.clone());
                        let mut done = async move { Reply::of(reference, run(&app, &id, command).await) }.boxed();
                        // A session in memory has it with the first poll.
                        match (takes_long, futures::poll!(&mut done)) {
                            (_, Poll::Ready(reply)) => reply,
                            (false, Poll::Pending) => done.await,
                            (true, Poll::Pending) => {
                                stops.push(done);
                                continue;
                            }
                        }
                    }
                }
            }
            Some(reply) = stops.next() => reply,
        };
        if replies.send(reply).await.is_err() {
            return;
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

async fn run(app: &App, id: &SessionId, command: Command) -> Result<Value, Problem> {
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
        Command::Kill {} => json!({ "session": host.kill(id).await? }),
        Command::Cancel { message_id } => json!({ "message": host.cancel(id, &message_id).await? }),
        Command::Answer { question_id, verdict, message, input, interrupt, decided_by } => {
            let answer = QuestionAnswer { verdict, message, input, interrupt, decided_by };
            json!({ "question": host.answer(id, &question_id, answer).await? })
        }
    })
}
