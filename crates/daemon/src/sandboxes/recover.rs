//! The start: every sandbox that the last daemon left is taken back, or its end is recorded.

use super::{Entry, Sandboxes};
use crate::error::Result;
use crate::lock::lock;
use crate::record::{Event, EventKind};
use crate::store::{Change, StoredSandbox};
use bytes::Bytes;
use futures::StreamExt as _;
use hostel_pool::Needs;
use hostel_sandbox::{BackendName, Error as DomainError, ExecutionEnvironment, SandboxId, SandboxState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Sandboxes that are taken back at a time.
const AT_ONCE: usize = 32;
/// How often a sandbox is tried that neither answers nor is gone.
const ATTEMPTS: u32 = 3;
/// How often a line is tried to be laid again, and how long is waited in between at most: some eight minutes in all.
const LAYINGS: u32 = 12;
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Sandboxes {
    /// Takes back what the last daemon left. Serving begins after it.
    ///
    /// # Errors
    /// Where the records cannot be read or written.
    pub(crate) async fn recover(&self) -> Result<()> {
        let begin = Instant::now();
        let draining = self.0.store.setting("draining").await?;
        self.0.draining.store(draining.as_deref() == Some("true"), Ordering::Release);
        let stored = self.0.store.sandboxes().await?;
        let total = stored.len();
        let recovered: Vec<Arc<Entry>> = futures::stream::iter(stored)
            .map(|one| self.recover_one(one))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        lock(&self.0.entries).extend(recovered.iter().map(|entry| (entry.id().clone(), Arc::clone(entry))));
        self.0.pools.recover(self).await?;
        let lost = self.record_losses(&recovered).await?;
        tracing::info!(total, lost, duration = ?begin.elapsed(), "sandboxes recovered");
        self.remove_orphans().await;
        self.0.reach.forget_all_but(recovered.iter().map(|entry| entry.id().clone()).collect()).await;
        for entry in &recovered {
            self.schedule(entry);
            if entry.record().state() == SandboxState::Stopping {
                let (this, entry) = (self.clone(), Arc::clone(entry));
                self.0.tasks.spawn(async move { this.finish_stopping(&entry).await });
            }
        }
        Ok(())
    }

    async fn recover_one(&self, stored: StoredSandbox) -> Arc<Entry> {
        let StoredSandbox { record, handle } = stored;
        if record.state().is_final() {
            return Arc::new(Entry::new(record, handle, None));
        }
        // Those that are there may be more than the node has now; they stay.
        let room = self.0.capacity.adopt(Needs::of(&record.limits));
        let adopted = self.adopt(&record.backend, record.backend_id(), &handle).await;
        let entry = Arc::new(Entry::new(record, handle.clone(), Some(room)));
        match adopted {
            Ok(environment) => {
                self.settle(&entry, &environment).await;
                self.lay_lines(&entry, &environment).await;
                entry.attach(environment, handle);
            }
            Err(error) => {
                tracing::warn!(sandbox = %entry.id(), %error, "a sandbox did not outlive the last daemon");
            }
        }
        entry
    }

    /// Lays the lines that a living sandbox should have and has not. One that is paused gets them when it goes on.
    /// What cannot be laid now is tried again for some minutes.
    pub(super) async fn lay_lines(&self, entry: &Arc<Entry>, environment: &Arc<dyn ExecutionEnvironment>) {
        let laid = self.0.reach.restore(entry.id(), environment, &entry.record().spec).await;
        if !laid && self.0.reach.begin_again(entry.id()) {
            let (this, entry) = (self.clone(), Arc::clone(entry));
            self.0.tasks.spawn(async move {
                this.keep_laying(&entry).await;
                this.0.reach.end_again(entry.id());
            });
        }
    }

    async fn keep_laying(&self, entry: &Arc<Entry>) {
        let mut wait = Duration::from_secs(1);
        for _ in 0..LAYINGS {
            wait = (wait * 2).min(LONGEST_WAIT);
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                () = entry.ended() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let _operation = entry.operate().await;
            let Ok(environment) = entry.live() else { continue };
            if self.0.reach.restore(entry.id(), &environment, &entry.record().spec).await {
                tracing::info!(sandbox = %entry.id(), "a sandbox reaches again what it may");
                return;
            }
        }
        tracing::error!(sandbox = %entry.id(), "a sandbox does not reach what it may; update it to try again");
    }

    /// Has a backend take back a sandbox from before a restart.
    ///
    /// # Errors
    /// `NotFound` where it is gone; what the backend says after some tries.
    pub(crate) async fn adopt(
        &self,
        backend: &BackendName,
        id: &SandboxId,
        handle: &Bytes,
    ) -> Result<Arc<dyn ExecutionEnvironment>> {
        let named = self.0.backends.get(backend);
        let backend = named.ok_or_else(|| DomainError::not_found("backend", backend))?;
        let mut attempt = 1;
        loop {
            match backend.adopt(id, handle).await {
                Ok(environment) => return Ok(environment),
                Err(error @ DomainError::NotFound { .. }) => return Err(error.into()),
                Err(error) if attempt == ATTEMPTS => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100) * attempt).await,
            }
            attempt += 1;
        }
    }

    /// Records, in one transaction, those that are gone.
    async fn record_losses(&self, recovered: &[Arc<Entry>]) -> Result<usize> {
        let mut change = Change::default();
        let mut shown = Vec::new();
        for entry in recovered {
            let mut record = (*entry.record()).clone();
            let old = record.state();
            if old.is_final() || old == SandboxState::Stopping || entry.environment().is_some() {
                continue;
            }
            record.enter(SandboxState::Failed, "lost_on_restart", "daemon", String::new());
            change.events.push(Event::of(EventKind::StateChanged, Some(old), &record));
            let record = Arc::new(record);
            change.put.push(StoredSandbox { record: Arc::clone(&record), handle: Bytes::new() });
            shown.push((Arc::clone(entry), record));
        }
        let lost = shown.len();
        if lost > 0 {
            let show = move || shown.into_iter().for_each(|(entry, record)| entry.show(record));
            self.0.store.commit_then(change, show).await?;
        }
        Ok(lost)
    }

    async fn remove_orphans(&self) {
        for backend in self.0.backends.all() {
            let begin = Instant::now();
            match backend.remove_orphans().await {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(backend = %backend.name(), count, duration = ?begin.elapsed(), "leftovers removed");
                }
                Err(error) => {
                    tracing::warn!(backend = %backend.name(), %error, "leftovers could not be removed; the next start tries again");
                }
            }
        }
    }

    /// Goes on where the last daemon died while it ended a sandbox.
    async fn finish_stopping(&self, entry: &Arc<Entry>) {
        let transition = entry.record().transition.clone();
        let _operation = entry.operate().await;
        let ended = self.end(entry, &transition.reason, &transition.actor, Duration::ZERO).await;
        if let Err(error) = ended {
            tracing::warn!(sandbox = %entry.id(), %error, "a sandbox could not be ended and is tried again");
        }
    }
}
