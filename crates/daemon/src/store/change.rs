//! What is written in one transaction.

use super::requests::{RequestKey, StoredRequest};
use crate::record::{Event, SandboxRecord, WarmRecord};
use bytes::Bytes;
use hostel_sandbox::SandboxId;

/// A sandbox as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSandbox {
    pub record: SandboxRecord,
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
    pub(crate) fn of(record: SandboxRecord, handle: Bytes, event: Event) -> Self {
        Self { put: vec![StoredSandbox { record, handle }], events: vec![event], ..Self::default() }
    }

    /// Forgetting one sandbox.
    pub(crate) fn removal(event: Event) -> Self {
        Self { remove: vec![event.sandbox.clone()], events: vec![event], ..Self::default() }
    }
}
