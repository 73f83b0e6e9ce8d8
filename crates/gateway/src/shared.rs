//! What every request of every sandbox shares.

use crate::config::{ApiFetches, Limits};
use crate::counters::Tally;
use crate::intake::Room;
use crate::ledger::Ledger;
use crate::price::Prices;
use crate::store::Store;
use crate::upstream::Line;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;

pub(crate) struct Core {
    pub limits: Limits,
    pub api_fetches: ApiFetches,
    /// Turns at long bodies; see [`crate::fetches`].
    pub looking: Arc<Semaphore>,
    pub prices: Prices,
    pub ledger: Arc<Ledger>,
    pub store: Store,
    pub tally: Tally,
    /// For bodies of requests of all sandboxes; see [`crate::intake`].
    pub room: Room,
    /// In failover order.
    pub lines: Vec<Line>,
    /// Of the next row.
    pub next_id: AtomicU64,
}
