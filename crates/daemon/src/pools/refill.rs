//! A warm sandbox is made, looked at, and removed.

use super::LivePool;
use super::live::Warm;
use crate::error::Result;
use crate::lock::lock;
use crate::record::{PoolRecord, WarmRecord};
use crate::sandboxes::Sandboxes;
use crate::store::{Change, StoredWarm};
use hostel_sandbox::{Created, Error, ProcessId, SandboxId, SandboxSpec};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long a warm sandbox may take to answer a check.
const CHECK: Duration = Duration::from_secs(5);
/// The id of a pool's own process in each of its sandboxes.
const WARM_PROCESS: &str = "warm";
/// How often a removal is tried before it is left to the next start.
const REMOVALS: u32 = 5;

impl LivePool {
    /// Makes one. Nothing is left of it where that fails or the daemon stops.
    pub(super) async fn make(self: Arc<Self>, sandboxes: Sandboxes, attempt: u64) {
        let begin = Instant::now();
        let record = lock(&self.state).record.clone();
        let made = tokio::select! {
            made = self.make_one(&sandboxes, &record) => made,
            () = sandboxes.stopping().cancelled() => return,
        };
        match made {
            Ok(warm) => {
                let (id, generation) = (warm.record.id.clone(), warm.record.generation);
                sandboxes.metrics().refilled(self.name.as_str(), begin.elapsed());
                tracing::debug!(pool = %self.name, sandbox = %id, duration = ?begin.elapsed(), "warm sandbox ready");
                self.tell(|state, now| {
                    state.warm.insert(id.clone(), warm);
                    state.brain.made(attempt, id, generation, begin.elapsed(), now);
                });
            }
            Err(error) => {
                tracing::warn!(pool = %self.name, %error, "a warm sandbox could not be made");
                self.tell(|state, now| state.brain.make_failed(attempt, error.to_string(), now));
            }
        }
    }

    async fn make_one(&self, sandboxes: &Sandboxes, record: &PoolRecord) -> Result<Warm> {
        let spec = SandboxSpec {
            backend: Some(record.spec.backend.clone()),
            template: Some(record.spec.template.clone()),
            limits: record.spec.limits.clone(),
            ..SandboxSpec::default()
        };
        let (resolved, created, room) = sandboxes.make_warm(spec).await?;
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
        Ok(Warm { record: warm, environment, handle, room, rehearsed: true })
    }

    /// Asks one whether it is well.
    pub(super) async fn check(self: Arc<Self>, id: SandboxId) {
        let found =
            lock(&self.state).warm.get(&id).map(|warm| (Arc::clone(&warm.environment), warm.rehearsed));
        // Claimed meanwhile: it is nobody's business here any more.
        let Some((environment, rehearsed)) = found else { return };
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
        self.tell(|state, now| {
            if let Some(warm) = state.warm.get_mut(&id) {
                warm.rehearsed |= well;
            }
            state.brain.checked(&id, well, now);
        });
    }

    /// Removes a member for good.
    pub(super) async fn remove(self: Arc<Self>, id: SandboxId) {
        let warm = lock(&self.state).warm.remove(&id);
        if let Some(warm) = warm {
            Arc::clone(&self).dispose(warm).await;
        }
        self.tell(|state, now| state.brain.removed(&id, now));
    }

    /// Destroys one that is in the pool no longer, and forgets it.
    pub(super) async fn dispose(self: Arc<Self>, warm: Warm) {
        let id = &warm.record.id;
        let mut attempt = 1;
        while let Err(error) = warm.environment.destroy().await {
            if attempt == REMOVALS {
                tracing::warn!(pool = %self.name, sandbox = %id, %error, "a warm sandbox could not be removed; the next start does it");
                break;
            }
            tokio::time::sleep(Duration::from_millis(200) * attempt).await;
            attempt += 1;
        }
        let change = Change { remove_warm: vec![id.clone()], ..Change::default() };
        if let Err(error) = self.store.commit_then(change, || ()).await {
            tracing::warn!(pool = %self.name, sandbox = %id, %error, "a removed warm sandbox is still in the records; the next start forgets it");
        }
    }

    /// Hears that a backend lost one; false where it is none of this pool's.
    pub(super) fn died(&self, id: &SandboxId) -> bool {
        let mine = self.has(id);
        if mine {
            self.tell(|state, now| state.brain.died(id, now));
        }
        mine
    }
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
        inside.start(process).await?;
    }
    Ok(())
}
