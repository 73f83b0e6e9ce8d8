//! Sessions by their address alone: whoever names one has it.

use super::app::App;
use super::input::{Id, LargeJson};
use super::messages::{self, MessageBody, Mode};
use super::problem::{Problem, Result};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use hostel_session::{CreateSession, Error, Pattern, SendMessage, Session, SessionId};
use serde::Deserialize;

/// What to say.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChatBody {
    /// As text.
    prompt: Option<String>,
    /// Or as the conversation so far: the last message of the user is what is said, for the session knows the others.
    messages: Option<Vec<ChatMessage>>,
    /// Whether the answer comes as an event stream while it is made (the default), or whole at the end.
    streaming: Option<bool>,
}

/// A message of a conversation.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
struct ChatMessage {
    /// `user` or another.
    role: String,
    /// What was said: text, or parts of `{"type":"text","text":…}`.
    content: Option<Said>,
    /// What was said, in parts of `{"type":"text","text":…}`.
    parts: Option<Vec<Part>>,
}

/// Text, or parts with text.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
enum Said {
    /// As it is.
    Text(String),
    /// In parts.
    Parts(Vec<Part>),
}

/// A part of what was said. What has no text is left out.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
struct Part {
    text: Option<String>,
}

impl ChatBody {
    /// What is said now.
    fn text(self) -> Result<String> {
        let (prompt, messages) = (self.prompt, self.messages.unwrap_or_default());
        let last = messages.into_iter().rfind(|message| message.role == "user").map(ChatMessage::text);
        let text = prompt.or(last).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| {
            Problem::invalid("prompt", "is missing: give prompt, or messages with one of the user")
        })
    }
}

impl ChatMessage {
    fn text(self) -> String {
        let parts = match self.content {
            Some(Said::Text(text)) => return text,
            Some(Said::Parts(parts)) => parts,
            None => Vec::new(),
        };
        let texts: Vec<String> =
            parts.into_iter().chain(self.parts.unwrap_or_default()).filter_map(|part| part.text).collect();
        texts.join("\n")
    }
}

/// Say something in a session that is made where it is not there
#[utoipa::path(post, path = "/agent/chat/{id}", tag = "chat", request_body = ChatBody, responses(
    (status = 200, description = "As of POST /api/sessions/{id}/message", content(
        (super::sse::Frame = "text/event-stream"), (super::reply::Answer = "application/json")
    ))
))]
pub(super) async fn send(
    State(app): State<App>,
    Id(id): Id,
    LargeJson(body): LargeJson<ChatBody>,
) -> Result<Response> {
    say(app, id, body).await
}

/// Say something in a new session; `X-Session-Id` of the answer names it
#[utoipa::path(post, path = "/agent/chat", tag = "chat", request_body = ChatBody, responses(
    (status = 200, description = "As of POST /api/sessions/{id}/message", content(
        (super::sse::Frame = "text/event-stream"), (super::reply::Answer = "application/json")
    ))
))]
pub(super) async fn begin(State(app): State<App>, LargeJson(body): LargeJson<ChatBody>) -> Result<Response> {
    say(app, SessionId::generate(), body).await
}

/// Get the session of a chat
#[utoipa::path(get, path = "/agent/chat/{id}", tag = "chat", responses(
    (status = 200, description = "The session", body = Session)
))]
pub(super) async fn get(State(app): State<App>, Id(id): Id) -> Result<Response> {
    let session = app.host.get(&id).await?;
    Ok(named(&id, Json(session).into_response()))
}

async fn say(app: App, id: SessionId, body: ChatBody) -> Result<Response> {
    let mode = if body.streaming == Some(false) { Mode::Batch } else { Mode::Stream };
    let content = MessageBody::content(Some(body.text()?), None)?;
    if let Err(Error::NotFound { .. }) = app.host.get(&id).await {
        let pattern = Some(Pattern::LongRunning);
        let create = CreateSession { id: Some(id.clone()), pattern, ..CreateSession::default() };
        match app.host.create(create).await {
            // Somebody else was first.
            Ok(_) | Err(Error::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let message = SendMessage { content, idempotency_key: None };
    // The session is there whatever becomes of the message.
    let answer = messages::answer(app, id.clone(), message, mode).await;
    Ok(named(&id, answer.unwrap_or_else(IntoResponse::into_response)))
}

fn named(id: &SessionId, mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert("x-session-id", id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_the_user_are_said() {
        let text = |body: &str| serde_json::from_str::<ChatBody>(body).unwrap().text();
        assert_eq!(text(r#"{"prompt": "a"}"#).unwrap(), "a");
        let whole = r#"{"id": "x", "messages": [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "parts": [{"type": "text", "text": "c"}, {"type": "file"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "d"}]}]}"#;
        assert_eq!(text(whole).unwrap(), "c");
        assert!(
            text("{}").is_err() && text(r#"{"messages": [{"role": "system", "content": "a"}]}"#).is_err()
        );
    }
}
