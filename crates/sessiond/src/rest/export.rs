//! All that is kept of a session, as JSON lines.

use super::app::App;
use super::input::Id;
use super::problem::Result;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use futures::stream::try_unfold;
use hostel_session::SessionId;
use serde_json::{Value, json};

/// Events that are read at once.
const PAGE: usize = 1000;

/// Where an export is.
enum Part {
    /// The record, and the number of the last event that it knows.
    Session(Value, u64),
    /// Events after a number, up to another.
    Events(u64, u64),
    /// What is left of the transcripts, the last first.
    Transcripts(Vec<(String, String)>),
}

/// Download all that is kept of a session, as JSON lines
///
/// First `{"session":…}`, then the journal as `{"event":…}`, then the agent's own transcripts as
/// `{"transcript":{"path","content"}}`. An export that is whole ends with `{"end":true}`.
#[utoipa::path(get, path = "/api/sessions/{id}/export", tag = "sessions", responses(
    (status = 200, description = "Lines", body = String, content_type = "application/x-ndjson")
))]
pub(super) async fn export(State(app): State<App>, Id(id): Id) -> Result<impl IntoResponse> {
    let session = app.host.get(&id).await?;
    let first = Part::Session(json!({ "session": session }), session.last_event);
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"session-{id}.jsonl\"")),
    ];
    let lines = try_unfold(Some(first), move |part| {
        let (app, id) = (app.clone(), id.clone());
        async move {
            match part {
                Some(part) => next(&app, &id, part).await.map(Some),
                None => Ok(None),
            }
        }
    });
    Ok((headers, Body::from_stream(lines)))
}

async fn next(app: &App, id: &SessionId, part: Part) -> hostel_session::Result<(Bytes, Option<Part>)> {
    match part {
        Part::Session(session, until) => Ok((line(&session), Some(Part::Events(0, until)))),
        Part::Events(after, until) => {
            let mut events = app.host.events(id, after, PAGE).await?;
            // What came since is in no record here, and of an agent that goes on there is no end.
            events.retain(|event| event.seq <= until);
            let Some(last) = events.last().map(|event| event.seq) else {
                let mut files = app.host.transcripts(id).await?;
                files.reverse();
                return Ok((Bytes::new(), Some(Part::Transcripts(files))));
            };
            let mut lines = Vec::new();
            for event in &events {
                lines.extend_from_slice(b"{\"event\":");
                lines.extend_from_slice(&event.json());
                lines.extend_from_slice(b"}\n");
            }
            Ok((lines.into(), Some(Part::Events(last, until))))
        }
        Part::Transcripts(mut files) => Ok(match files.pop() {
            Some((path, content)) => {
                let file = json!({ "transcript": { "path": path, "content": content } });
                (line(&file), Some(Part::Transcripts(files)))
            }
            None => (line(&json!({ "end": true })), None),
        }),
    }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}
