//! Pools are made, changed, drained and deleted.

use super::live::stored;
use super::{LivePool, MOST_POOLS, Pools};
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::record::PoolRecord;
use crate::sandboxes::{Repeat, Sandboxes};
use hostel_pool::{Counters, Health, History, Pool, PoolName, Status};
use hostel_sandbox::Error as DomainError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

/// A pool as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PoolView {
    pub(crate) record: PoolRecord,
    pub(crate) status: Status,
    pub(crate) counters: Counters,
    /// What of `counters` came since the daemon started.
    pub(crate) since_start: Counters,
}

/// A change of what a pool shall be.
pub(crate) type PoolUpdate = Box<dyn FnOnce(&mut PoolRecord) -> Result<()> + Send>;

impl Pools {
    /// Makes a pool, which fills behind.
    ///
    /// # Errors
    /// `InvalidArgument`; `AlreadyExists`; `NotFound` for backend or template; `CapabilityMissing`; `LimitReached`;
    /// `RequestIdReused`.
    pub(crate) async fn create(
        &self,
        sandboxes: &Sandboxes,
        record: PoolRecord,
        repeat: Option<Repeat>,
    ) -> Result<PoolView> {
        let _turn = self.0.changing.lock().await;
        let mut fulfilled = repeat.as_ref().map(|repeat| repeat.fulfilled(record.name.to_string()));
        if let Some(repeat) = &repeat
            && let Some(earlier) = self.0.store.request(&repeat.key).await?
        {
            repeat.check(&earlier.body)?;
            if let Ok(pool) = self.get(&record.name) {
                return Ok(pool.view());
            }
            // The pool that it made is gone; that it was asked is kept already.
            fulfilled = None;
        }
        let name = record.name.clone();
        if self.get(&name).is_ok() {
            return Err(DomainError::AlreadyExists { kind: "pool", id: name.to_string() }.into());
        }
        if self.all().len() >= MOST_POOLS {
            let detail = format!("this node has at most {MOST_POOLS}: delete some");
            return Err(DomainError::LimitReached { what: "pools", detail }.into());
        }
        check(sandboxes, &record).await?;
        let brain = Pool::new(record.spec.clone(), record.generation, self.0.clock.now());
        let pool = LivePool::new(self, record, brain, HashMap::new());
        let mut kept = stored(&lock(&pool.state));
        kept.history = Some(History::new().encode());
        self.0.store.keep_pools(vec![kept], fulfilled).await?;
        lock(&self.0.live).insert(name.clone(), Arc::clone(&pool));
        pool.start(sandboxes);
        tracing::info!(pool = %name, op = "create", "pool made");
        Ok(pool.view())
    }

    /// Changes a pool while it works.
    ///
    /// # Errors
    /// `NotFound`; those of [`Self::create`].
    pub(crate) async fn update(
        &self,
        sandboxes: &Sandboxes,
        name: &PoolName,
        update: PoolUpdate,
    ) -> Result<PoolView> {
        let _turn = self.0.changing.lock().await;
        let pool = self.get(name)?;
        let mut new = stored(&lock(&pool.state));
        let before = new.record.clone();
        update(&mut new.record)?;
        let remade = makes_others(&before, &new.record);
        let renamed = before.spec.template != new.record.spec.template;
        if remade {
            // What is warm is of the generation before from this moment on, here and after a restart alike. What the
            // new one is made from, the driver finds out.
            new.record.generation += 1;
            new.record.made_from.clear();
        }
        if new.record.spec.backend != before.spec.backend {
            return Err(DomainError::invalid("spec.backend", "cannot be changed: make another pool").into());
        }
        // A pool whose template is gone can still be made smaller, or drained.
        if new.record.spec.template == before.spec.template && new.record.spec.limits == before.spec.limits {
            new.record.spec.validate()?;
        } else {
            check(sandboxes, &new.record).await?;
        }
        new.record.updated = SystemTime::now();
        let (record, written) = (new.record.clone(), new.record.generation);
        self.0.store.keep_pools(vec![new], None).await?;
        let told = pool.tell(|state, now| {
            // What it is made from is the driver's to say, also meanwhile.
            let made_from = if remade { String::new() } else { std::mem::take(&mut state.record.made_from) };
            let generation = state.record.generation + u64::from(remade);
            state.record = PoolRecord { generation, made_from, ..record };
            state.renewed = None;
            state.brain.update(state.wanted(), now);
            state.brain.new_generation(generation, now);
            if renamed {
                // Nobody who asks for the new template is served by one of the old.
                state.brain.discard_before(generation, now);
            }
            (generation != written).then(|| stored(state))
        });
        // The driver had begun another generation meanwhile: what was kept must not call the one before the newest.
        if let Some(newer) = told {
            self.0.store.keep_pools(vec![newer], None).await?;
        }
        tracing::info!(pool = %name, op = "update", "pool changed");
        Ok(pool.view())
    }

    /// Removes what is warm, makes no more, and returns when nothing is left, or when somebody takes the pool up again.
    ///
    /// # Errors
    /// `NotFound`; `Draining` when the daemon stops before that: the next one goes on.
    pub(crate) async fn drain(&self, sandboxes: &Sandboxes, name: &PoolName) -> Result<PoolView> {
        self.update(sandboxes, name, draining()).await?;
        let pool = self.get(name)?;
        tokio::select! {
            () = pool.drained() => Ok(pool.view()),
            () = sandboxes.stopping().cancelled() => Err(Error::Draining),
        }
    }

    /// Drains a pool and forgets it.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub(crate) async fn delete(&self, sandboxes: &Sandboxes, name: &PoolName) -> Result<()> {
        let (_turn, pool) = loop {
            self.drain(sandboxes, name).await?;
            let turn = self.0.changing.lock().await;
            let pool = self.get(name)?;
            // Somebody may have taken it up again meanwhile; what it made since is not to be left behind.
            if pool.draining() == (true, true) {
                break (turn, pool);
            }
        };
        lock(&self.0.live).remove(name);
        pool.gone.cancel();
        sandboxes.metrics().forget_pool(name.as_str());
        self.0.store.forget_pool(name.clone()).await?;
        pool.changed.send_replace(());
        tracing::info!(pool = %name, op = "delete", "pool gone");
        Ok(())
    }
}

impl LivePool {
    /// It as it is now.
    pub(crate) fn view(&self) -> PoolView {
        let state = lock(&self.state);
        let counters = state.brain.counters();
        PoolView {
            record: state.record.clone(),
            status: state.brain.status(self.clock.now()),
            counters,
            since_start: counters.since(&self.at_start),
        }
    }

    /// Whether it is to be drained, and whether nothing is left of it.
    fn draining(&self) -> (bool, bool) {
        let state = lock(&self.state);
        let drained = state.brain.status(self.clock.now()).health == Health::Drained;
        (state.record.spec.draining, drained)
    }

    /// Resolves when nothing is left of it, or it is not to be drained any more.
    async fn drained(&self) {
        let mut changed = self.changed.subscribe();
        while self.draining() == (true, false) {
            // The sender is ours.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whether what is made from now on is something else than what is warm.
fn makes_others(before: &PoolRecord, after: &PoolRecord) -> bool {
    before.spec.template != after.spec.template
        || before.spec.limits != after.spec.limits
        || before.warm_process != after.warm_process
}

fn draining() -> PoolUpdate {
    Box::new(|record| {
        record.spec.draining = true;
        Ok(())
    })
}

/// Whether sandboxes can be made of it.
async fn check(sandboxes: &Sandboxes, record: &PoolRecord) -> Result<()> {
    record.spec.validate()?;
    let backend = sandboxes.backends().get(&record.spec.backend);
    let backend = backend.ok_or_else(|| DomainError::not_found("backend", &record.spec.backend))?;
    backend.reach().await;
    record.spec.limits.needs().try_for_each(|capability| backend.capabilities().require(capability))?;
    let template = sandboxes.template_named(&record.spec.backend, &record.spec.template).await?;
    let allowed = template.map_or(Ok(()), |template| template.allows(&record.spec.limits));
    Ok(allowed.map_err(|error| match error {
        DomainError::InvalidArgument { field, problem } => {
            DomainError::InvalidArgument { field: format!("spec.{field}"), problem }
        }
        other => other,
    })?)
}
