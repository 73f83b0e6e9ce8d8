//! A warm sandbox is made, looked at, and removed.

use super::LivePool;
use super::live::{State, Warm};
use crate::error::{Error as DaemonError, Result};
use crate::lock::lock;
use crate::record::{PoolRecord, WarmRecord};
use crate::sandboxes::{MadeWarm, Sandboxes};
use crate::store::{Change, StoredWarm};
use hostel_sandbox::{Created, Error, ExecutionEnvironment, ProcessId, SandboxId, SandboxSpec};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// How long a warm sandbox may take to answer a check.
const CHECK: Duration = Duration::from_secs(5);
/// The id of a pool's own process in each of its sandboxes.
const WARM_PROCESS: &str = "warm";
/// The shortest and the longest time until a removal that failed is tried again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// How long one waits for room on the node before that is told as a failure. Then it waits again.
const ROOM: Duration = Duration::from_secs(30);

/// What the pool is told in any case of work that it waits for. Dropped before that, it tells that the work failed: it
/// panicked.
struct Told<F: FnOnce(&mut State, hostel_pool::Time)> {
    pool: Arc<LivePool>,
    failed: Option<F>,
}

impl<F: FnOnce(&mut State, hostel_pool::Time)> Told<F> {
    fn new(pool: &Arc<LivePool>, failed: F) -> Self {
        Self { pool: Arc::clone(pool), failed: Some(failed) }
    }

    /// It is told by other means, or nobody needs to be.
    fn done(mut self) {
        self.failed = None;
    }
}

impl<F: FnOnce(&mut State, hostel_pool::Time)> Drop for Told<F> {
    fn drop(&mut self) {
        if let Some(failed) = self.failed.take() {
            self.pool.tell(failed);
        }
    }
}

/// A refill that succeeded.
struct Made {
    warm: Warm,
    /// How long it took, without the wait for room.
    took: Duration,
}

impl LivePool {
    /// Makes one. Nothing is left of it where that fails, the pool begins to drain, or the daemon stops.
    pub(super) async fn make(self: Arc<Self>, sandboxes: Sandboxes, attempt: u64) {
        let failed = "making it panicked, see the daemon's log".to_owned();
        let told = Told::new(&self, move |state, now| state.brain.make_failed(attempt, failed, now));
        let until = Instant::now() + ROOM;
        let record = lock(&self.state).record.clone();
        let unwanted = CancellationToken::new();
        let give_up = async {
            // The sender is ours.
            let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
            unwanted.cancel();
            std::future::pending::<()>().await;
        };
        let made = tokio::select! {
            made = self.make_one(&sandboxes, &record, until, &unwanted) => made,
            () = sandboxes.stopping().cancelled() => return told.done(),
            () = give_up => return told.done(),
        };
        told.done();
        match made {
            Ok(Made { warm, took }) => {
                let (id, generation) = (warm.record.id.clone(), warm.record.generation);
                sandboxes.metrics().refilled(self.name.as_str(), took);
                tracing::debug!(pool = %self.name, sandbox = %id, duration = ?took, "warm sandbox ready");
                self.tell(|state, now| {
                    state.warm.insert(id.clone(), warm);
                    state.brain.made(attempt, id.clone(), generation, took, now);
                    // Its end may have been told before it was here to be found.
                    if sandboxes.has_died(&id) {
                        state.brain.died(&id, now);
                    }
                });
            }
            Err(_) if unwanted.is_cancelled() => {
                self.tell(|state, now| state.brain.make_given_up(attempt, now));
            }
            Err(error @ DaemonError::NoRoom { .. }) if Instant::now() >= until => {
                tracing::warn!(pool = %self.name, %error, "a warm sandbox still waits for room on the node");
                self.tell(|state, now| state.brain.make_starved(attempt, &error.to_string(), now));
            }
            Err(error) => {
                tracing::warn!(pool = %self.name, %error, "a warm sandbox could not be made");
                self.tell(|state, now| state.brain.make_failed(attempt, error.to_string(), now));
            }
        }
    }

    async fn make_one(
        &self,
        sandboxes: &Sandboxes,
        record: &PoolRecord,
        until: Instant,
        unwanted: &CancellationToken,
    ) -> Result<Made> {
        let spec = SandboxSpec {
            backend: Some(record.spec.backend.clone()),
            template: Some(record.spec.template.clone()),
            limits: record.spec.limits.clone(),
            ..SandboxSpec::default()
        };
        let MadeWarm { spec: resolved, created, room, begin } =
            sandboxes.make_warm(spec, until, unwanted).await?;
        let id = created.environment.id().clone();
        if let Err(error) = warm_up(sandboxes, record, &created).await {
            sandboxes.undo(&id, &created).await;
            return Err(error);
        }
        let warm = WarmRecord {
            id,
            pool: self.name.clone(),
            backend: record.spec.backend.clone(),
            generation: record.generation,
            spec: resolved,
            limits: created.limits.clone(),
            weaknesses: created.weaknesses.clone(),
            made: SystemTime::now(),
        };
        let stored = StoredWarm { record: warm.clone(), handle: created.handle.clone() };
        let change = Change { put_warm: vec![stored], ..Change::default() };
        if let Err(error) = sandboxes.store().commit_then(change, || ()).await {
            sandboxes.undo(created.environment.id(), &created).await;
            return Err(error);
        }
        let (environment, handle) = (created.environment, created.handle);
        let warm = Warm { record: warm, environment, handle, room, rehearsed: true, answered: true };
        Ok(Made { warm, took: begin.elapsed() })
    }

    /// Asks one whether it is well.
    pub(super) async fn check(self: Arc<Self>, id: SandboxId) {
        let found = {
            let state = lock(&self.state);
            let bounded = state.record.spec.max_idle_memory_bytes.is_some();
            state.warm.get(&id).map(|warm| (Arc::clone(&warm.environment), warm.rehearsed, bounded))
        };
        // Claimed meanwhile: it is nobody's business here any more.
        let Some((environment, rehearsed, bounded)) = found else { return };
        let member = id.clone();
        let told = Told::new(&self, move |state, now| state.brain.checked(&member, false, now));
        let asked = async {
            let inside = environment.inside()?;
            if !rehearsed {
                inside.rehearse().await?;
            }
            inside.processes().await
        };
        let well = match tokio::time::timeout(CHECK, asked).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(pool = %self.name, sandbox = %id, %error, "a warm sandbox is not well and is removed");
                false
            }
            Err(_) => {
                tracing::warn!(pool = %self.name, sandbox = %id, limit = ?CHECK, "a warm sandbox does not answer and is removed");
                false
            }
        };
        let memory = if bounded && well { memory_of(&environment).await } else { None };
        told.done();
        self.tell(|state, now| {
            if let Some(warm) = state.warm.get_mut(&id) {
                warm.rehearsed |= well;
            }
            if let Some(memory) = memory {
                state.brain.measured(&id, memory, now);
            }
            state.brain.checked(&id, well, now);
        });
    }

    /// Removes a member for good.
    pub(super) async fn remove(self: Arc<Self>, id: SandboxId, sandboxes: Sandboxes) {
        let warm = lock(&self.state).warm.remove(&id);
        match warm {
            Some(warm) => self.dispose(warm, sandboxes).await,
            None => self.tell(|state, now| state.brain.removed(&id, now)),
        }
    }

    /// Destroys one that is in the pool no longer, forgets it, and says so. Until that worked its room is taken, and the
    /// pool has it among those that are being removed. Where the daemon stops before, the next start removes it with
    /// other leftovers.
    pub(super) async fn dispose(self: Arc<Self>, warm: Warm, sandboxes: Sandboxes) {
        let id = &warm.record.id;
        let (mut wait, mut forgotten) = (FIRST_RETRY, false);
        while let Err(error) = warm.environment.destroy().await {
            tracing::warn!(pool = %self.name, sandbox = %id, %error, retry_in = ?wait, "a warm sandbox could not be removed yet");
            // A daemon that starts over it must not take it for one that is well.
            forgotten = forgotten || self.forget(id).await.is_ok();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = sandboxes.stopping().cancelled() => return,
            }
            wait = (wait * 2).min(LAST_RETRY);
        }
        if !forgotten && let Err(error) = self.forget(id).await {
            tracing::warn!(pool = %self.name, sandbox = %id, %error, "a removed warm sandbox is still in the records; the next start forgets it");
        }
        let id = id.clone();
        // Its room is free before anybody hears that it is gone.
        drop(warm);
        self.tell(|state, now| state.brain.removed(&id, now));
    }

    /// Takes one out of the records of what is warm. Unless it is recorded as something else, the next start removes
    /// it with other leftovers.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub(crate) async fn forget(&self, id: &SandboxId) -> Result<()> {
        let change = Change { remove_warm: vec![id.clone()], ..Change::default() };
        self.store.commit_then(change, || ()).await
    }

    /// Hears that a backend lost one; false where it is none of this pool's.
    pub(super) fn died(&self, id: &SandboxId) -> bool {
        // Looked for and told in one step: a claim in between would take a dead one along.
        self.has(id)
            && self.tell(|state, now| {
                let mine = state.warm.contains_key(id);
                if mine {
                    state.brain.died(id, now);
                }
                mine
            })
    }
}

/// What one uses of memory, where the backend can tell in time.
async fn memory_of(environment: &Arc<dyn ExecutionEnvironment>) -> Option<u64> {
    let stats = tokio::time::timeout(CHECK, environment.stats()).await.ok()?;
    stats.ok()?.memory_bytes
}

/// Does in a new sandbox what its owner would wait for: the first process costs most, and another one may be there
/// already.
async fn warm_up(sandboxes: &Sandboxes, record: &PoolRecord, created: &Created) -> Result<()> {
    let inside = created.environment.inside()?;
    let rehearsed = tokio::time::timeout(CHECK, inside.rehearse()).await;
    rehearsed.map_err(|_| Error::DeadlineExceeded { what: "the first process in it".to_owned() })??;
    if let Some(process) = &record.warm_process {
        let mut process = process.clone();
        process.id = Some(ProcessId::parse(WARM_PROCESS)?);
        for (name, value) in sandboxes.prepare_process(created.environment.id()) {
            process.env.entry(name).or_insert(value);
        }
        // It starts beside those that were claimed, which have somebody who waits for them.
        created.environment.stand_back(true).await?;
        inside.start(process).await?;
    }
    Ok(())
}
