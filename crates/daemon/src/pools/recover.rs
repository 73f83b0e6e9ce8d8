//! The start: pools and what is warm in them are taken back rather than made again.

use super::clock::time;
use super::live::Warm;
use super::{LivePool, Pools};
use crate::error::Result;
use crate::lock::lock;
use crate::sandboxes::Sandboxes;
use crate::store::{Change, StoredPool, StoredWarm};
use futures::StreamExt as _;
use hostel_pool::{History, Needs, Pool, PoolName};
use hostel_sandbox::{ExecutionEnvironment, SandboxId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Warm sandboxes that are taken back at a time.
const AT_ONCE: usize = 32;
/// How long one of them may take to answer before it is given to nobody until it was checked.
const ANSWER: Duration = Duration::from_secs(1);

impl Pools {
    /// Takes back what the last daemon left. What could not be, the backends remove with their other leftovers.
    ///
    /// # Errors
    /// Where the records cannot be read or written.
    pub(crate) async fn recover(&self, sandboxes: &Sandboxes) -> Result<()> {
        let (pools, warm) = self.0.store.pools().await?;
        let known: HashSet<&PoolName> = pools.iter().map(|pool| &pool.record.name).collect();
        let (kept, orphans): (Vec<_>, Vec<_>) =
            warm.into_iter().partition(|warm| known.contains(&warm.record.pool));
        let mut lost: Vec<SandboxId> = orphans.into_iter().map(|warm| warm.record.id).collect();
        let total = kept.len();
        let adopted: Vec<Result<Warm, SandboxId>> = futures::stream::iter(kept)
            .map(|warm| adopt(sandboxes, warm))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut members: HashMap<PoolName, HashMap<SandboxId, Warm>> = HashMap::new();
        for outcome in adopted {
            match outcome {
                Ok(warm) => {
                    let of_pool = members.entry(warm.record.pool.clone()).or_default();
                    of_pool.insert(warm.record.id.clone(), warm);
                }
                Err(id) => lost.push(id),
            }
        }
        if total + lost.len() > 0 {
            tracing::info!(warm = total, lost = lost.len(), "warm sandboxes recovered");
        }
        if !lost.is_empty() {
            let change = Change { remove_warm: lost, ..Change::default() };
            self.0.store.commit_then(change, || ()).await?;
        }
        for pool in pools {
            let warm = members.remove(&pool.record.name).unwrap_or_default();
            let name = pool.record.name.clone();
            lock(&self.0.live).insert(name, self.restore(pool, warm));
        }
        Ok(())
    }

    fn restore(&self, pool: StoredPool, warm: HashMap<SandboxId, Warm>) -> Arc<LivePool> {
        let StoredPool { record, counters, history } = pool;
        // Without it the pool learns its demand anew.
        let history = History::decode(&history.unwrap_or_default()).unwrap_or_else(|error| {
            tracing::warn!(pool = %record.name, %error, "the demand that the pool had met cannot be read and is forgotten");
            History::new()
        });
        let members = warm.values().map(|warm| {
            let record = &warm.record;
            (record.id.clone(), record.generation, time(record.made))
        });
        let (spec, members) = (record.spec.clone(), members.collect());
        let now = self.0.clock.now();
        let mut brain = Pool::restore(spec, record.generation, counters, &history, members, now);
        // The pool was given another template, and the last daemon died before these were gone.
        let template = Some(&record.spec.template);
        let others = warm.values().filter(|warm| warm.record.spec.template.as_ref() != template);
        if let Some(newest) = others.map(|warm| warm.record.generation).max() {
            brain.discard_before(newest.saturating_add(1), now);
        }
        let silent = warm.iter().filter(|(_, warm)| !warm.answered);
        silent.for_each(|(id, _)| brain.doubt(id, now));
        LivePool::new(self, record, brain, warm)
    }

    /// Hears that a backend lost a warm sandbox; false where it is none.
    pub(crate) fn died(&self, id: &SandboxId) -> bool {
        self.all().iter().any(|pool| pool.died(id))
    }
}

async fn adopt(sandboxes: &Sandboxes, stored: StoredWarm) -> Result<Warm, SandboxId> {
    let StoredWarm { record, handle } = stored;
    match sandboxes.adopt(&record.backend, &record.id, &handle).await {
        Ok(environment) => {
            let room = sandboxes.capacity().adopt(Needs::of(&record.limits));
            let answered = answers(&environment).await;
            if !answered {
                tracing::warn!(sandbox = %record.id, pool = %record.pool, "a warm sandbox does not answer yet and is given to nobody before it does");
            }
            // The way to its guest is new: its first check goes it.
            Ok(Warm { record, environment, handle, room, rehearsed: false, answered })
        }
        Err(error) => {
            tracing::warn!(sandbox = %record.id, pool = %record.pool, %error, "a warm sandbox did not outlive the last daemon");
            Err(record.id)
        }
    }
}

/// Whether its guest is there. A backend takes back what is alive, also where that did not answer, is frozen, or its
/// engine is away.
async fn answers(environment: &Arc<dyn ExecutionEnvironment>) -> bool {
    let asked = async { environment.inside()?.processes().await };
    matches!(tokio::time::timeout(ANSWER, asked).await, Ok(Ok(_)))
}
