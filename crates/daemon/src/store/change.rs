//! What is written in one transaction.

use super::requests::{RequestKey, StoredRequest};
use crate::error::{Error, Result};
use crate::record::{Event, SandboxRecord, WarmRecord};
use bytes::Bytes;
use hostel_sandbox::SandboxId;
use serde::Serialize;
use std::sync::Arc;

/// A sandbox as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSandbox {
    pub record: Arc<SandboxRecord>,
    /// What its backend needs to find it again; empty once it is gone.
    pub handle: Bytes,
}

/// A warm sandbox as the store keeps it.
#[derive(Debug, Clone)]
pub(crate) struct StoredWarm {
    pub record: WarmRecord,
    /// What its backend needs to find it again.
    pub handle: Bytes,
}

/// All of it becomes durable, or nothing.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Sandboxes to write, new or changed.
    pub put: Vec<StoredSandbox>,
    /// Sandboxes to forget.
    pub remove: Vec<SandboxId>,
    /// Warm sandboxes to write.
    pub put_warm: Vec<StoredWarm>,
    /// Warm sandboxes to forget.
    pub remove_warm: Vec<SandboxId>,
    /// Events to append, in order.
    pub events: Vec<Event>,
    /// A request that this change fulfils, for when it is repeated.
    pub request: Option<(RequestKey, StoredRequest)>,
}

impl Change {
    /// One sandbox and the event about it.
    pub(crate) fn of(record: Arc<SandboxRecord>, handle: Bytes, event: Event) -> Self {
        Self { put: vec![StoredSandbox { record, handle }], events: vec![event], ..Self::default() }
    }

    /// Forgetting one sandbox.
    pub(crate) fn removal(event: Event) -> Self {
        Self { remove: vec![event.sandbox.clone()], events: vec![event], ..Self::default() }
    }
}

/// A row of the tables that hold records with their handles.
pub(super) struct Row {
    pub id: SandboxId,
    pub record: String,
    pub handle: Bytes,
}

/// A change as it is written. What the database holds as text is text already: to make it is work for whoever wants
/// the change, not for the one thread that all wait for.
pub(super) struct Prepared {
    pub put: Vec<Row>,
    pub remove: Vec<SandboxId>,
    pub put_warm: Vec<Row>,
    pub remove_warm: Vec<SandboxId>,
    pub events: Vec<(Event, String)>,
    pub request: Option<(RequestKey, StoredRequest)>,
}

impl Change {
    /// Makes text of what is kept as text.
    pub(super) fn prepare(self) -> Result<Prepared> {
        let put = self.put.into_iter().map(|one| row(&one.record.id, &*one.record, one.handle));
        let put_warm = self.put_warm.into_iter().map(|one| row(&one.record.id, &one.record, one.handle));
        let events = self.events.into_iter().map(|event| {
            let text = text(&event, "write an event")?;
            Ok((event, text))
        });
        Ok(Prepared {
            put: put.collect::<Result<_>>()?,
            remove: self.remove,
            put_warm: put_warm.collect::<Result<_>>()?,
            remove_warm: self.remove_warm,
            events: events.collect::<Result<_>>()?,
            request: self.request,
        })
    }
}

fn row(id: &SandboxId, record: &impl Serialize, handle: Bytes) -> Result<Row> {
    Ok(Row { id: id.clone(), record: text(record, "write a record")?, handle })
}

fn text(value: &impl Serialize, what: &str) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::store(what, error))
}
