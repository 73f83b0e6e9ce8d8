//! Sandboxes that end by themselves.

use super::Sandboxes;
use crate::record::{Event, EventKind};
use hostel_sandbox::{BackendEvent, SandboxId, SandboxState};

impl Sandboxes {
    /// Hears what the backends tell, until they end or the daemon stops.
    pub(crate) fn listen_to_backends(&self) {
        for backend in self.0.backends.all() {
            let Some(mut events) = backend.take_events() else { continue };
            let this = self.clone();
            self.0.tasks.spawn(async move {
                loop {
                    let event = tokio::select! {
                        event = events.recv() => event,
                        () = this.0.stop.cancelled() => None,
                    };
                    let Some(BackendEvent::Died { sandbox, reason }) = event else { return };
                    let handler = this.clone();
                    this.0.tasks.spawn(async move { handler.died(&sandbox, &reason).await });
                }
            });
        }
    }

    async fn died(&self, id: &SandboxId, reason: &str) {
        if self.0.pools.died(id) {
            return;
        }
        let Some(entry) = self.of_backend_id(id) else { return };
        entry.close();
        let _operation = entry.operate().await;
        let mut record = (*entry.record()).clone();
        let old = record.state();
        // Somebody ended it on purpose meanwhile.
        if self.still_there(&entry).is_err() || old.is_final() || old == SandboxState::Stopping {
            return;
        }
        tracing::warn!(sandbox = %id, reason, "a sandbox died");
        if let Some(environment) = entry.environment()
            && let Err(error) = environment.destroy().await
        {
            tracing::warn!(sandbox = %id, %error, "what a dead sandbox left could not be removed; the next start does it");
        }
        self.0.reach.disconnect(entry.id()).await;
        record.enter(SandboxState::Failed, reason, "backend", String::new());
        let event = Event::of(EventKind::StateChanged, Some(old), &record);
        if let Err(error) = self.commit(&entry, record, event, None).await {
            tracing::error!(sandbox = %id, %error, "the death of a sandbox could not be recorded");
        }
    }
}
