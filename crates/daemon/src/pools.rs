//! Pools of warm sandboxes: what the daemon holds of each, and everything that changes them.
//!
//! `hostel_pool` decides, without clocks or tasks: how many shall be warm, which one a claim gets, what is made,
//! checked and removed, and when. Here its decisions are carried out (`driver.rs`), told to clients, and kept across
//! restarts. A warm sandbox has no sandbox record and is in no listing; it becomes one at its claim.

mod change;
mod claim;
mod clock;
mod declare;
mod driver;
mod generation;
mod live;
mod plan;
mod pressure;
mod recover;
mod refill;

pub(crate) use change::{PoolUpdate, PoolView};
pub(crate) use claim::{Claimed, NotGiven, Wanted};
pub(crate) use clock::moment;
pub(crate) use declare::read as read_declarations;
pub(crate) use live::LivePool;
pub(crate) use plan::PlanView;
pub use pressure::MemoryPressure;

use crate::error::Result;
use crate::lock::lock;
use crate::store::Store;
use clock::Clock;
use hostel_pool::PoolName;
use hostel_sandbox::{BackendName, Error as DomainError, ResourceLimits, SandboxId, TemplateId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Most pools of a node.
const MOST_POOLS: usize = 256;

/// The pools of the node. Clones share them.
#[derive(Clone)]
pub(crate) struct Pools(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    live: Mutex<BTreeMap<PoolName, Arc<LivePool>>>,
    /// Held by whoever makes, changes or deletes a pool.
    changing: tokio::sync::Mutex<()>,
    /// The right to replay demand, which takes a processor for seconds.
    plans: Arc<Semaphore>,
}

impl Pools {
    /// No pools; recovery fills them in.
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(Inner {
            store,
            clock: Clock::start(),
            live: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            plans: Arc::new(Semaphore::new(1)),
        }))
    }

    /// All, by name.
    pub(crate) fn all(&self) -> Vec<Arc<LivePool>> {
        lock(&self.0.live).values().cloned().collect()
    }

    /// The pool of that name.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn get(&self, name: &PoolName) -> Result<Arc<LivePool>> {
        let found = lock(&self.0.live).get(name).cloned();
        found.ok_or_else(|| DomainError::not_found("pool", name).into())
    }

    /// The limits of each warm sandbox of all pools.
    pub(crate) fn warm_limits(&self) -> Vec<ResourceLimits> {
        self.all().iter().flat_map(|pool| pool.warm_limits()).collect()
    }

    /// Has each pool look at the node: something changed there.
    pub(crate) fn wake(&self) {
        self.all().iter().for_each(|pool| pool.wake());
    }

    /// Whether a warm sandbox has this id.
    pub(crate) fn has_warm(&self, id: &SandboxId) -> bool {
        self.all().iter().any(|pool| pool.has(id))
    }

    /// Whether a pool makes its sandboxes from this template.
    pub(crate) fn uses_template(&self, backend: &BackendName, template: &TemplateId) -> bool {
        self.all().iter().any(|pool| {
            let spec = pool.spec();
            spec.backend == *backend && spec.template == *template
        })
    }
}
