//! Messages: sending, looking at, taking back.

use super::app::App;
use super::input::{Id, LargeJson, MessageId, idempotency_key};
use super::problem::{Problem, Result};
use super::reply::{self, Answer};
use super::sse;
use super::turn::Turn;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hostel_session::agent::Content;
use hostel_session::{Accepted, Message, SendMessage, SessionId};
use serde::{Deserialize, Serialize};

/// A message to send.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "prompt": "Make the tests pass.", "streaming": false }))]
pub(super) struct MessageBody {
    /// What it says, as text.
    prompt: Option<String>,
    /// What it says, in parts: `{"type":"text","text":…}` and `{"type":"image","mediaType":…,"data":…}`.
    #[schema(value_type = Option<Vec<Object>>)]
    content: Option<Vec<Content>>,
    /// Whether the answer comes as an event stream while it is made (the default), or whole at the end.
    streaming: Option<bool>,
    /// How it is answered; goes over `streaming`.
    mode: Option<Mode>,
    /// Makes sending repeatable, as the header `Idempotency-Key`: 1 to 255 printable ASCII characters.
    idempotency_key: Option<String>,
}

/// How a message is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// By an event stream whose last frame is `done`.
    Stream,
    /// By everything at the end.
    Batch,
    /// At once, with where it waits. What comes of it is in the events.
    Ack,
}

/// A message that was taken.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ack {
    /// The message.
    message_id: String,
    /// How many are before it.
    position: usize,
    /// The number of the event that tells of it; what comes of it has higher ones.
    seq: u64,
    /// Whether the same key had sent it before.
    replayed: bool,
}

impl Ack {
    pub(super) fn of(accepted: &Accepted) -> Self {
        let Accepted { message, position, replayed } = accepted;
        Self { message_id: message.id.clone(), position: *position, seq: message.seq, replayed: *replayed }
    }
}

/// Messages that wait or run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Queue {
    /// They, in order.
    messages: Vec<Message>,
}

impl MessageBody {
    /// What it says.
    ///
    /// # Errors
    /// Where it says nothing, or the same twice.
    pub(super) fn content(prompt: Option<String>, content: Option<Vec<Content>>) -> Result<Vec<Content>> {
        match (prompt, content) {
            (Some(_), Some(_)) => Err(Problem::invalid("content", "give either prompt or content")),
            (Some(text), None) if text.trim().is_empty() => {
                Err(Problem::invalid("prompt", "must not be empty"))
            }
            (Some(text), None) => Ok(vec![Content::Text { text }]),
            (None, Some(content)) if !content.is_empty() => Ok(content),
            (None, _) => Err(Problem::invalid("prompt", "is missing: give what the agent is to do")),
        }
    }

    fn mode(&self, headers: &HeaderMap) -> Mode {
        let prefer = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let asynchronous =
            prefer.flat_map(|value| value.split(',')).any(|word| word.trim() == "respond-async");
        match (self.mode, self.streaming) {
            (Some(mode), _) => mode,
            (None, Some(true)) => Mode::Stream,
            (None, _) if asynchronous => Mode::Ack,
            (None, Some(false)) => Mode::Batch,
            (None, None) => Mode::Stream,
        }
    }
}

/// Send a message
///
/// It gets a turn of its own after those before it. By default the answer is an event stream: frames
/// `data: {"type", "data"}` with the agent's messages as its SDK has them, and always a last `data: {"type":"done"}`.
/// With `"streaming": false` it is whole, and with `"mode": "ack"`, or `Prefer: respond-async` where no stream is asked
/// for, it comes at once. Who disconnects cancels nothing.
#[utoipa::path(post, path = "/api/sessions/{id}/message", tag = "messages", request_body = MessageBody, responses(
    (status = 200, description = "The turn", content((sse::Frame = "text/event-stream"), (Answer = "application/json"))),
    (status = 202, description = "Taken", body = Ack),
))]
pub(super) async fn send(
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
    LargeJson(body): LargeJson<MessageBody>,
) -> Result<Response> {
    let mode = body.mode(&headers);
    let key = match (idempotency_key(&headers)?, body.idempotency_key) {
        (Some(header), Some(body)) if header != body => {
            return Err(Problem::invalid("idempotencyKey", "the header Idempotency-Key has another one"));
        }
        (header, body) => header.or(body),
    };
    let content = MessageBody::content(body.prompt, body.content)?;
    answer(app, id, SendMessage { content, idempotency_key: key }, mode).await
}

/// Sends a message and answers as asked.
pub(super) async fn answer(app: App, id: SessionId, message: SendMessage, mode: Mode) -> Result<Response> {
    let accepted = app.host.send(&id, message).await?;
    let ack = Ack::of(&accepted);
    let headers = [
        ("x-message-id", ack.message_id.clone()),
        ("x-queue-position", ack.position.to_string()),
        ("idempotency-replayed", ack.replayed.to_string()),
    ];
    let response = follow(app, id, &accepted, mode).await;
    // It was taken, whatever went wrong since.
    let mut response = response.map_err(|problem| problem.with("messageId", accepted.message.id.as_str()))?;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// What comes of a message that was taken.
async fn follow(app: App, id: SessionId, accepted: &Accepted, mode: Mode) -> Result<Response> {
    Ok(match mode {
        Mode::Ack => (StatusCode::ACCEPTED, Json(Ack::of(accepted))).into_response(),
        Mode::Stream => sse::response(reply::frames(Turn::follow(app, id, accepted).await?)),
        Mode::Batch => {
            let turn = Turn::follow(app.clone(), id.clone(), accepted).await?;
            let whole = reply::whole(turn).await?;
            Json(whole.answer(app.host.get(&id).await?)).into_response()
        }
    })
}

/// List messages that wait or run
#[utoipa::path(get, path = "/api/sessions/{id}/queue", tag = "messages", responses(
    (status = 200, description = "In order", body = Queue)
))]
pub(super) async fn queue(State(app): State<App>, Id(id): Id) -> Result<Json<Queue>> {
    Ok(Json(Queue { messages: app.host.queue(&id).await? }))
}

/// Take a waiting message back
#[utoipa::path(delete, path = "/api/sessions/{id}/queue/{messageId}", tag = "messages", responses(
    (status = 200, description = "The message, cancelled", body = Message)
))]
pub(super) async fn cancel(
    State(app): State<App>,
    Id(id): Id,
    MessageId(message): MessageId,
) -> Result<Json<Message>> {
    Ok(Json(app.host.cancel(&id, &message).await?))
}

/// Get a message, also when it is done
#[utoipa::path(get, path = "/api/sessions/{id}/messages/{messageId}", tag = "messages", responses(
    (status = 200, description = "The message", body = Message)
))]
pub(super) async fn get(
    State(app): State<App>,
    Id(id): Id,
    MessageId(message): MessageId,
) -> Result<Json<Message>> {
    Ok(Json(app.host.message(&id, &message).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_asked_for() {
        let mode = |body: &str, prefer: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(prefer) = prefer {
                headers.insert("prefer", HeaderValue::from_static(prefer));
            }
            serde_json::from_str::<MessageBody>(body).unwrap().mode(&headers)
        };
        assert_eq!(mode("{}", None), Mode::Stream);
        assert_eq!(mode(r#"{"streaming": false}"#, None), Mode::Batch);
        assert_eq!(mode(r#"{"streaming": false}"#, Some("wait=5, respond-async")), Mode::Ack);
        assert_eq!(mode(r#"{"streaming": true}"#, Some("respond-async")), Mode::Stream);
        assert_eq!(mode(r#"{"streaming": true, "mode": "ack"}"#, None), Mode::Ack);
    }
}
