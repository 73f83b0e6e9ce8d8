//! Ending a sandbox: because somebody deletes it, or because its time is up.

use super::{Entry, Sandboxes};
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::record::{Event, EventKind};
use crate::store::Change;
use hostel_sandbox::{ExecutionEnvironment, SandboxId, SandboxState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a sandbox is stopped whose record goes away with it.
pub(super) const REQUESTED: &str = "requested";
/// SIGTERM of Linux.
const SIGTERM: i32 = 15;
/// How often a stopping sandbox is asked whether its processes have ended.
const GRACE_STEP: Duration = Duration::from_millis(20);

impl Sandboxes {
    /// Ends a sandbox and forgets it, or its making. Returns when none of its processes runs; goes on when the caller
    /// goes away.
    ///
    /// # Errors
    /// `NotFound`; `Internal` where something could not be removed, then it stays `stopping` and is tried again.
    pub(crate) async fn delete(&self, id: &SandboxId, grace: Duration, actor: String) -> Result<()> {
        let (this, entry) = (self.clone(), self.get(id)?);
        self.to_the_end(async move {
            let begin = Instant::now();
            entry.give_up();
            let _operation = entry.operate().await;
            match this.still_there(&entry) {
                // Nothing was left of it.
                Err(_) if entry.is_given_up() => return Ok(()),
                there => there?,
            }
            entry.close();
            this.end(&entry, REQUESTED, &actor, grace).await?;
            tracing::info!(sandbox = %entry.id(), op = "delete", duration = ?begin.elapsed(), actor, "sandbox gone");
            Ok(())
        })
        .await
    }

    /// Ends a sandbox whose time is up; its record stays for a while. `quiet_since`: only if nobody called since.
    pub(super) async fn expire(
        &self,
        entry: &Arc<Entry>,
        reason: &str,
        quiet_since: Option<std::time::SystemTime>,
    ) -> Result<()> {
        let begin = Instant::now();
        let _operation = entry.operate().await;
        self.still_there(entry)?;
        match quiet_since {
            Some(since) if !entry.close_if_quiet(since) => return Ok(()),
            _ => entry.close(),
        }
        self.end(entry, reason, "daemon", Duration::ZERO).await?;
        tracing::info!(sandbox = %entry.id(), op = "expire", reason, duration = ?begin.elapsed(), "sandbox stopped");
        Ok(())
    }

    /// From any state to the end. The caller holds the operation lock.
    pub(super) async fn end(
        &self,
        entry: &Arc<Entry>,
        reason: &str,
        actor: &str,
        grace: Duration,
    ) -> Result<()> {
        let mut record = (*entry.record()).clone();
        let forget = reason == REQUESTED;
        let old = record.state();
        if !old.is_final() {
            if old != SandboxState::Stopping {
                record.enter(SandboxState::Stopping, reason, actor, String::new());
                let event = Event::of(EventKind::StateChanged, Some(old), &record);
                self.commit(entry, record.clone(), event, None).await?;
            }
            if let Some(environment) = entry.environment() {
                // What is frozen cannot end by itself.
                if !grace.is_zero() && old != SandboxState::Paused {
                    terminate(&*environment, grace).await;
                }
                environment.destroy().await.inspect_err(|_| self.schedule(entry))?;
            }
            self.0.reach.disconnect(entry.id()).await;
            if !forget {
                record.enter(SandboxState::Stopped, reason, actor, String::new());
                let event = Event::of(EventKind::StateChanged, Some(SandboxState::Stopping), &record);
                self.commit(entry, record, event, None).await?;
            }
        }
        if forget { self.forget(entry, reason, actor).await } else { Ok(()) }
    }

    /// Removes the record of a sandbox that has ended. The caller holds the operation lock.
    pub(super) async fn forget(&self, entry: &Arc<Entry>, reason: &str, actor: &str) -> Result<()> {
        // While nobody else can have its id.
        self.0.reach.forget(entry.id()).await;
        let event = Event::other(EventKind::Deleted, &entry.record(), reason, actor);
        let (this, gone) = (self.clone(), Arc::clone(entry));
        let on_commit = move || {
            this.remove_entry(&gone);
            gone.retire();
        };
        self.0.store.commit_then(Change::removal(event), on_commit).await
    }

    /// Refuses a sandbox that went away while somebody waited for it.
    pub(super) fn still_there(&self, entry: &Arc<Entry>) -> Result<()> {
        match lock(&self.0.entries).get(entry.id()) {
            Some(current) if Arc::ptr_eq(current, entry) => Ok(()),
            _ => Err(Error::no_sandbox(entry.id())),
        }
    }
}

/// Asks every process to end and waits until all have, or `grace` has passed.
async fn terminate(environment: &dyn ExecutionEnvironment, grace: Duration) {
    let Ok(inside) = environment.inside() else { return };
    let end = tokio::time::Instant::now() + grace;
    let mut asked = false;
    let wait = async {
        loop {
            let Ok(processes) = inside.processes().await else { return };
            let running: Vec<_> = processes.iter().filter(|process| process.exit.is_none()).collect();
            if running.is_empty() {
                return;
            }
            if !asked {
                for process in &running {
                    // One that ended meanwhile is what we want.
                    let _ = inside.signal(&process.id, SIGTERM).await;
                }
                asked = true;
            }
            tokio::time::sleep(GRACE_STEP).await;
        }
    };
    let _ = tokio::time::timeout_at(end, wait).await;
}
