//! Events and cursors.

use super::sandbox::api_state;
use super::timestamp;
use crate::error::{Error, Result};
use crate::record::{Cursor, Event, EventKind};
use crate::sandboxes::{WatchFilter, WatchItem};
use crate::store::Store;
use hostel_proto::v1::{self, watch_sandboxes_response::Item};
use hostel_sandbox::label::Selector;
use hostel_sandbox::{Error as DomainError, SandboxId};

/// Most sandboxes that one watcher names.
const MOST_SANDBOXES: usize = 1000;

/// A cursor as clients see it: that of another store is noticed.
pub(crate) fn api_cursor(store: &Store, cursor: Cursor) -> String {
    format!("{}-{cursor}", store.identity())
}

/// Reads a cursor; `None` where none is given.
pub(crate) fn cursor(store: &Store, text: &str) -> Result<Option<Cursor>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts = text.split_once('-').and_then(|(identity, number)| Some((identity, number.parse().ok()?)));
    match parts {
        None => Err(DomainError::invalid("cursor", "not a cursor of ours").into()),
        Some((identity, _)) if identity != store.identity() => {
            Err(Error::CursorExpired { cursor: text.chars().take(64).collect() })
        }
        Some((_, cursor)) => Ok(Some(cursor)),
    }
}

pub(crate) fn filter(sandbox_ids: Vec<String>, label_selector: &str) -> Result<WatchFilter> {
    if sandbox_ids.len() > MOST_SANDBOXES {
        return Err(DomainError::invalid("sandbox_ids", format!("at most {MOST_SANDBOXES}")).into());
    }
    let sandboxes = sandbox_ids.into_iter().map(SandboxId::parse).collect::<hostel_sandbox::Result<_>>()?;
    Ok(WatchFilter { sandboxes, selector: Selector::parse(label_selector)? })
}

pub(crate) fn api_item(store: &Store, item: &WatchItem) -> v1::WatchSandboxesResponse {
    let item = match item {
        WatchItem::Event(event) => Item::Event(api_event(store, event)),
        WatchItem::Bookmark(cursor) => Item::Bookmark(api_cursor(store, *cursor)),
    };
    v1::WatchSandboxesResponse { item: Some(item) }
}

fn api_event(store: &Store, event: &Event) -> v1::SandboxEvent {
    let kind = match event.kind {
        EventKind::Created => v1::SandboxEventKind::Created,
        EventKind::StateChanged => v1::SandboxEventKind::StateChanged,
        EventKind::Updated => v1::SandboxEventKind::Updated,
        EventKind::Deleted => v1::SandboxEventKind::Deleted,
    };
    v1::SandboxEvent {
        cursor: api_cursor(store, event.cursor),
        sandbox_id: event.sandbox.to_string(),
        kind: kind.into(),
        old_state: event.old_state.map_or(v1::SandboxState::Unspecified, api_state).into(),
        new_state: api_state(event.transition.state).into(),
        reason: event.transition.reason.clone(),
        actor: event.transition.actor.clone(),
        time: Some(timestamp(event.transition.time)),
    }
}
