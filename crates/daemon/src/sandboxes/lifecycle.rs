//! Pausing and resuming.

use super::{Entry, Sandboxes};
use crate::error::Result;
use crate::record::{Event, EventKind, SandboxRecord};
use hostel_sandbox::{Capability, ExecutionEnvironment, SandboxId, SandboxState};
use std::sync::Arc;
use std::time::Instant;

impl Sandboxes {
    /// Freezes a sandbox. Does nothing where it is paused.
    ///
    /// # Errors
    /// `NotFound`, `WrongState`, `CapabilityMissing`.
    pub(crate) async fn pause(&self, id: &SandboxId, actor: String) -> Result<Arc<SandboxRecord>> {
        self.freeze(id, SandboxState::Paused, actor).await
    }

    /// Lets a paused sandbox go on. One whose record says that it is ready goes on too, should its processes be frozen
    /// all the same.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub(crate) async fn resume(&self, id: &SandboxId, actor: String) -> Result<Arc<SandboxRecord>> {
        self.freeze(id, SandboxState::Ready, actor).await
    }

    async fn freeze(
        &self,
        id: &SandboxId,
        target: SandboxState,
        actor: String,
    ) -> Result<Arc<SandboxRecord>> {
        let (this, entry) = (self.clone(), self.get(id)?);
        self.to_the_end(async move {
            let begin = Instant::now();
            let _operation = entry.operate().await;
            this.still_there(&entry)?;
            let mut record = (*entry.record()).clone();
            let old = record.state();
            if old == target {
                if old == SandboxState::Ready && this.can_pause(&record) {
                    this.set_frozen(&entry, &entry.live()?, false).await?;
                }
                return Ok(entry.record());
            }
            old.check(target)?;
            let environment = entry.live()?;
            let frozen = target == SandboxState::Paused;
            this.set_frozen(&entry, &environment, frozen).await?;
            record.enter(target, "requested", &actor, String::new());
            let event = Event::of(EventKind::StateChanged, Some(old), &record);
            let record = match this.commit(&entry, record, event, None).await {
                Ok(record) => record,
                Err(error) => {
                    // What nobody will hear of has not happened.
                    if let Err(error) = this.set_frozen(&entry, &environment, !frozen).await {
                        tracing::error!(sandbox = %entry.id(), %error, "a sandbox is not in the state that its record says; resume it");
                    }
                    return Err(error);
                }
            };
            entry.touch();
            tracing::info!(sandbox = %entry.id(), op = %target, duration = ?begin.elapsed(), actor, "state changed");
            Ok(record)
        })
        .await
    }

    fn can_pause(&self, record: &SandboxRecord) -> bool {
        let backend = self.0.backends.get(&record.backend);
        backend.is_some_and(|backend| backend.capabilities().has(Capability::Pause))
    }

    async fn set_frozen(
        &self,
        entry: &Arc<Entry>,
        environment: &Arc<dyn ExecutionEnvironment>,
        frozen: bool,
    ) -> Result<()> {
        if frozen {
            return Ok(environment.pause().await?);
        }
        environment.resume().await?;
        // A daemon that started while it was paused could not get in.
        self.lay_lines(entry, environment).await;
        Ok(())
    }

    /// Makes a sandbox from before a restart be frozen or not, as its record says: the last daemon may have died
    /// between the deed and the word.
    pub(super) async fn settle(&self, entry: &Entry, environment: &Arc<dyn ExecutionEnvironment>) {
        let record = entry.record();
        let frozen = environment.inside().is_err();
        let wanted = match record.state() {
            SandboxState::Ready => false,
            SandboxState::Paused => true,
            _ => return,
        };
        if frozen == wanted || !self.can_pause(&record) {
            return;
        }
        let done = if wanted { environment.pause().await } else { environment.resume().await };
        match done {
            Ok(()) => {
                tracing::info!(sandbox = %entry.id(), state = %record.state(), "a sandbox is as its record says again");
            }
            Err(error) => {
                tracing::error!(sandbox = %entry.id(), %error, "a sandbox is not in the state that its record says; resume it");
            }
        }
    }
}
