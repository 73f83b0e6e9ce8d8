//! The journal: as an event stream, or page by page.

use super::app::App;
use super::input::{Id, Query, wants_json};
use super::problem::{Problem, Result};
use super::sse::{self, COMMENT, KEEP_ALIVE};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use hostel_session::{ClientListener, Delivery, Disconnect, Event, EventKind, EventTypes, SessionId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Events on a page where nobody says how many.
const PAGE: usize = 1000;
/// Most events on a page.
const LARGEST_PAGE: usize = 10_000;

/// Which events.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Those after this number; 0 for all. `Last-Event-ID` goes over it.
    after: Option<u64>,
    /// Only these types, with commas between.
    types: Option<String>,
    /// Whether to go on with events that come. Only for streams.
    follow: Option<bool>,
    /// How many at most. Only for pages.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
}

impl Which {
    /// All after a number, of some types.
    pub(super) fn since(after: Option<u64>, types: Option<String>) -> Self {
        Self { after, types, ..Self::default() }
    }

    /// The number to begin after.
    ///
    /// # Errors
    /// Where `Last-Event-ID` is none.
    pub(super) fn after(&self, headers: &HeaderMap) -> Result<u64> {
        let Some(last) = headers.get("last-event-id") else { return Ok(self.after.unwrap_or(0)) };
        let number = last.to_str().ok().filter(|text| !text.is_empty()).map_or(Ok(0), str::parse);
        number.map_err(|_| Problem::invalid("Last-Event-ID", "must be the number of an event"))
    }

    /// The types that are wanted.
    ///
    /// # Errors
    /// Where one is none.
    pub(super) fn types(&self) -> Result<EventTypes> {
        let words = self.types.as_deref().unwrap_or_default();
        EventTypes::parse(words.split(',')).map_err(|problem| Problem::invalid("types", problem))
    }
}

/// What a client is told that is not there any more: deltas of blocks whose whole text comes with their completion.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
pub(super) struct Gap {
    /// Always `gap`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: Word,
    /// The first number that is gone.
    pub(super) from: u64,
    /// The last.
    pub(super) to: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
enum Word {
    #[serde(rename = "gap")]
    Gap,
}

impl Gap {
    pub(super) fn new(from: u64, to: u64) -> Self {
        Self { kind: Word::Gap, from, to }
    }

    fn frame(self) -> Bytes {
        let json = serde_json::to_string(&self).unwrap_or_default();
        format!("id: {}\nevent: gap\ndata: {json}\n\n", self.to).into()
    }
}

/// Some events.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct EventPage {
    /// They, oldest first.
    #[schema(value_type = Vec<EventBody>)]
    events: Vec<Arc<Event>>,
    /// What to give as `after` for those that follow.
    next: u64,
}

/// An event of a journal.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
struct EventBody {
    /// Its number in the session, from 1.
    seq: u64,
    /// What kind.
    #[serde(rename = "type")]
    kind: EventKind,
    /// The message whose turn it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// When it was journaled.
    #[schema(format = DateTime)]
    time: String,
    /// What of it depends on the type.
    #[schema(value_type = Object)]
    data: serde_json::Value,
}

/// Read the journal
///
/// As an event stream, the number as its `id`: first what is there, then what comes. A reader that was away goes on
/// with `Last-Event-ID`. With `Accept: application/json` one page of events.
#[utoipa::path(get, path = "/api/sessions/{id}/events", tag = "events", params(Which), responses(
    (status = 200, description = "Events", content((sse::Frame = "text/event-stream"), (EventPage = "application/json")))
))]
pub(super) async fn events(
    State(app): State<App>,
    Id(id): Id,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<Response> {
    let (after, types) = (which.after(&headers)?, which.types()?);
    if wants_json(&headers) {
        let limit = which.limit.unwrap_or(PAGE);
        if !(1..=LARGEST_PAGE).contains(&limit) {
            return Err(Problem::invalid("limit", format!("must be 1 to {LARGEST_PAGE}")));
        }
        return page(&app, &id, after, limit, &types).await.map(|page| Json(page).into_response());
    }
    if which.limit.is_some() {
        return Err(Problem::invalid("limit", "is for pages: ask with Accept: application/json"));
    }
    if which.follow == Some(false) {
        return Ok(sse::fallible(kept(app, id, after, types).await?));
    }
    let client = app.hub.connect(&id, after, types).await?;
    let frames =
        unfold(client, |mut client| async move { frame(&mut client).await.map(|frame| (frame, client)) });
    Ok(sse::response(frames))
}

async fn page(app: &App, id: &SessionId, after: u64, limit: usize, types: &EventTypes) -> Result<EventPage> {
    let mut events = app.host.events(id, after, limit).await?;
    let next = events.last().map_or(after, |event| event.seq);
    events.retain(|event| types.want(event.kind));
    Ok(EventPage { events, next })
}

/// The next frame; `None` when the session is deleted, or the client shall come again.
async fn frame(client: &mut ClientListener) -> Option<Bytes> {
    match tokio::time::timeout(KEEP_ALIVE, client.next()).await {
        Ok(Ok(Delivery::Event(event))) => Some(event.frame()),
        Ok(Ok(Delivery::Compacted { from, to })) => Some(Gap::new(from, to).frame()),
        Ok(Err(Disconnect::Failed(error))) => {
            tracing::warn!(%error, "events cannot be read; a client is told to come again");
            None
        }
        Ok(Err(Disconnect::Deleted | Disconnect::Stopping)) => None,
        Err(_) => Some(COMMENT),
    }
}

/// The frames of what is there now.
async fn kept(
    app: App,
    id: SessionId,
    after: u64,
    types: EventTypes,
) -> Result<impl futures::Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
    // The first page now, so that a session that is not there is refused.
    let first = app.host.events(&id, after, PAGE).await?;
    let state = (app.host, id, after, first);
    Ok(unfold(Some(state), move |state| {
        let types = types.clone();
        async move {
            let (host, id, after, events) = state?;
            let last = events.last()?.seq;
            let frames = frames(after, &events, &types);
            // A page may be short because it is large; none is the end.
            match host.events(&id, last, PAGE).await {
                Ok(more) => Some((Ok(frames), Some((host, id, last, more)))),
                Err(error) => {
                    tracing::warn!(%error, "events could not be read");
                    Some((Err(std::io::Error::other(error)), None))
                }
            }
        }
    }))
}

/// The frames of a page, with gaps where numbers are missing.
fn frames(mut after: u64, events: &[Arc<Event>], types: &EventTypes) -> Bytes {
    let mut frames = Vec::new();
    for event in events {
        if event.seq > after + 1 && types.want(EventKind::BlockDelta) {
            frames.extend_from_slice(&Gap::new(after + 1, event.seq - 1).frame());
        }
        if types.want(event.kind) {
            frames.extend_from_slice(&event.frame());
        }
        after = event.seq;
    }
    frames.into()
}
