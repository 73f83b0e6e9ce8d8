//! Pausing and resuming.

use super::Sandboxes;
use crate::error::Result;
use crate::record::{Event, EventKind, SandboxRecord};
use hostel_sandbox::{SandboxId, SandboxState};
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

    /// Lets a paused sandbox go on. Does nothing where it is ready.
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
                return Ok(entry.record());
            }
            old.check(target)?;
            let environment = entry.live()?;
            if target == SandboxState::Paused {
                environment.pause().await?;
            } else {
                environment.resume().await?;
                // A daemon that started while it was paused could not get in.
                this.lay_lines(&entry, &environment).await;
            }
            record.enter(target, "requested", &actor, String::new());
            let event = Event::of(EventKind::StateChanged, Some(old), &record);
            let record = this.commit(&entry, record, event, None).await?;
            entry.touch();
            tracing::info!(sandbox = %entry.id(), op = %target, duration = ?begin.elapsed(), actor, "state changed");
            Ok(record)
        })
        .await
    }
}
