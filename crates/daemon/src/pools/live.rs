//! One pool in memory: what it shall be, what decides for it, and its warm sandboxes.

use super::Pools;
use super::clock::Clock;
use super::generation::Behind;
use crate::capacity::Room;
use crate::lock::lock;
use crate::record::{PoolRecord, WarmRecord};
use crate::store::{Store, StoredPool};
use bytes::Bytes;
use hostel_pool::{Counters, Pool, PoolName, PoolSpec, Pressure};
use hostel_sandbox::{ExecutionEnvironment, ResourceLimits, SandboxId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How often the history is written at most.
const WRITE_HISTORY: Duration = Duration::from_secs(60);

/// One pool.
pub(crate) struct LivePool {
    pub(super) name: PoolName,
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) state: Mutex<State>,
    /// Its counters when the daemon started. What a daemon that was killed had counted since it wrote them last is in
    /// none of them, so what is told of them to Prometheus begins at 0 with each daemon.
    pub(super) at_start: Counters,
    /// Something happened that the driver has to look at.
    pub(super) wake: Notify,
    /// Told after each change of what is warm or being made.
    pub(super) changed: watch::Sender<()>,
    /// Whether nothing of it is wanted any more, for those that make some of it.
    pub(super) draining: watch::Sender<bool>,
    /// Cancelled once it was deleted.
    pub(super) gone: CancellationToken,
    /// Whether what warm sandboxes are made from is being looked up.
    pub(super) renewing: AtomicBool,
    /// Whether its driver runs.
    pub(super) driven: AtomicBool,
    /// Claims under way. Refills begin behind them: on a small machine they would take the time that callers wait.
    pub(super) claims: AtomicUsize,
    /// The last of them is over.
    pub(super) through: Notify,
}

/// A claim under way, until its caller has the sandbox.
pub(super) struct Claiming(Arc<LivePool>);

impl Drop for Claiming {
    fn drop(&mut self) {
        if self.0.claims.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.through.notify_one();
        }
    }
}

pub(super) struct State {
    pub(super) record: PoolRecord,
    pub(super) brain: Pool,
    pub(super) warm: HashMap<SandboxId, Warm>,
    /// The node takes no new sandboxes: nothing is kept warm either.
    pub(super) node_draining: bool,
    pub(super) pressure: Pressure,
    pub(super) behind: Option<Behind>,
    /// When it was last seen to what warm sandboxes are made from. Nothing: that is to be done at once.
    pub(super) renewed: Option<Instant>,
    /// Its record changed since it was written.
    pub(super) unwritten: bool,
    /// The counters that were written last, and with the history when that was. Nothing: they were not.
    written: Option<Counters>,
    history_written: Option<(Counters, Instant)>,
}

/// A sandbox that waits.
pub(super) struct Warm {
    pub(super) record: WarmRecord,
    pub(super) environment: Arc<dyn ExecutionEnvironment>,
    pub(super) handle: Bytes,
    /// What it takes of the node.
    pub(super) room: Room,
    /// Whether a process was run in it by this daemon, the way that its owner's first will be.
    pub(super) rehearsed: bool,
    /// Whether it answered this daemon when it was made or taken back.
    pub(super) answered: bool,
}

impl LivePool {
    pub(super) fn new(
        pools: &Pools,
        record: PoolRecord,
        brain: Pool,
        warm: HashMap<SandboxId, Warm>,
    ) -> Arc<Self> {
        let draining = watch::Sender::new(brain.spec().draining);
        let at_start = brain.counters();
        Arc::new(Self {
            name: record.name.clone(),
            clock: pools.0.clock,
            store: pools.0.store.clone(),
            state: Mutex::new(State {
                record,
                brain,
                warm,
                node_draining: false,
                pressure: Pressure::None,
                behind: None,
                renewed: None,
                unwritten: false,
                written: Some(at_start),
                history_written: Some((at_start, Instant::now())),
            }),
            at_start,
            wake: Notify::new(),
            changed: watch::Sender::new(()),
            draining,
            gone: CancellationToken::new(),
            renewing: AtomicBool::new(false),
            driven: AtomicBool::new(false),
            claims: AtomicUsize::new(0),
            through: Notify::new(),
        })
    }

    pub(crate) fn name(&self) -> &PoolName {
        &self.name
    }

    pub(crate) fn spec(&self) -> PoolSpec {
        lock(&self.state).record.spec.clone()
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Begins a claim.
    pub(super) fn claiming(self: &Arc<Self>) -> Claiming {
        self.claims.fetch_add(1, Ordering::AcqRel);
        Claiming(Arc::clone(self))
    }

    pub(super) fn warm_limits(&self) -> Vec<ResourceLimits> {
        lock(&self.state).warm.values().map(|warm| warm.record.limits.clone()).collect()
    }

    pub(super) fn has(&self, id: &SandboxId) -> bool {
        lock(&self.state).warm.contains_key(id)
    }

    /// Tells the pool what happened, and the driver and whoever waits for it.
    pub(super) fn tell<T>(&self, what: impl FnOnce(&mut State, hostel_pool::Time) -> T) -> T {
        let answer = {
            let mut state = lock(&self.state);
            let answer = what(&mut state, self.clock.now());
            self.heed_draining(&state);
            answer
        };
        self.wake.notify_one();
        self.changed.send_replace(());
        answer
    }

    /// Tells those that make some of it whether it is wanted, where that changed.
    pub(super) fn heed_draining(&self, state: &State) {
        let draining = state.brain.spec().draining;
        self.draining.send_if_modified(|known| std::mem::replace(known, draining) != draining);
    }

    /// What the store keeps of it; nothing where that is what it has. The history, which is large, comes along now and
    /// then, and at the daemon's end.
    pub(super) fn to_write(&self, at_end: bool) -> Option<StoredPool> {
        let (stored, history) = {
            let mut state = lock(&self.state);
            let counters = state.brain.counters();
            // Whatever changes the history is counted too.
            let history_is_due = state.history_written.is_none_or(|(written, since)| {
                written != counters && (at_end || since.elapsed() >= WRITE_HISTORY)
            });
            if !state.unwritten && state.written == Some(counters) && !history_is_due {
                return None;
            }
            state.unwritten = false;
            state.written = Some(counters);
            let history = history_is_due.then(|| {
                state.history_written = Some((counters, Instant::now()));
                state.brain.history().clone()
            });
            (stored(&state), history)
        };
        // Claims do not wait for that.
        Some(StoredPool { history: history.map(|history| history.encode()), ..stored })
    }

    /// What was to be written was not.
    pub(super) fn not_written(&self, stored_history: bool) {
        let mut state = lock(&self.state);
        state.unwritten = true;
        if stored_history {
            state.history_written = None;
        }
    }
}

/// What the store keeps of a pool, the history not along.
pub(super) fn stored(state: &State) -> StoredPool {
    StoredPool { record: state.record.clone(), counters: state.brain.counters(), history: None }
}
