//! Listing: newest first, by label and state.

use super::Sandboxes;
use crate::record::{Cursor, SandboxRecord};
use hostel_sandbox::label::Selector;
use hostel_sandbox::{SandboxId, SandboxState};
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

/// Where a page ends: the creation time and id of its last sandbox.
pub(crate) type Position = (SystemTime, SandboxId);

/// One page.
pub(crate) struct Page {
    pub records: Vec<Arc<SandboxRecord>>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Position>,
    /// Watching from here misses nothing that came after this page was read.
    pub cursor: Cursor,
}

impl Sandboxes {
    /// One page of at most `size`, after `after`.
    pub(crate) fn page(
        &self,
        selector: &Selector,
        states: &[SandboxState],
        after: Option<&Position>,
        size: usize,
    ) -> Page {
        // First the cursor, then the map: what comes between is told twice rather than never.
        let cursor = self.0.store.latest_cursor();
        let mut records: Vec<_> = self
            .all()
            .iter()
            .map(|entry| entry.record())
            .filter(|record| states.is_empty() || states.contains(&record.state()))
            .filter(|record| selector.matches(record.labels()))
            .filter(|record| after.is_none_or(|after| order(record) > order_of(after)))
            .collect();
        records.sort_by(|left, right| order(left).cmp(&order(right)));
        let more = records.len() > size;
        records.truncate(size);
        let next = more.then(|| records.last().map(|last| position(last))).flatten();
        Page { records, next, cursor }
    }
}

/// Where a page that ends with a sandbox ends.
pub(crate) fn position(record: &SandboxRecord) -> Position {
    (record.created, record.id.clone())
}

fn order(record: &SandboxRecord) -> (Reverse<SystemTime>, &SandboxId) {
    (Reverse(record.created), &record.id)
}

fn order_of((created, id): &Position) -> (Reverse<SystemTime>, &SandboxId) {
    (Reverse(*created), id)
}
