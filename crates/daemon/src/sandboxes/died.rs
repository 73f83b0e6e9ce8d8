//! Sandboxes that end by themselves.

use super::Sandboxes;
use crate::lock::lock;
use crate::record::{Event, EventKind};
use hostel_sandbox::{BackendEvent, SandboxId, SandboxState};
use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

/// Deaths that are remembered. Only those matter that come while a sandbox is on its way from one holder to the next.
const REMEMBERED: usize = 1024;

/// Who died lately.
#[derive(Default)]
pub(super) struct Deaths(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    ids: HashSet<SandboxId>,
    /// The same in the order of their coming.
    order: VecDeque<SandboxId>,
}

impl Deaths {
    fn note(&self, id: &SandboxId) {
        let mut deaths = lock(&self.0);
        if !deaths.ids.insert(id.clone()) {
            return;
        }
        deaths.order.push_back(id.clone());
        if deaths.order.len() > REMEMBERED
            && let Some(oldest) = deaths.order.pop_front()
        {
            deaths.ids.remove(&oldest);
        }
    }

    fn has(&self, id: &SandboxId) -> bool {
        lock(&self.0).ids.contains(id)
    }
}

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

    /// Whether a backend told of the end of a sandbox, by the backend's id. For those that take one over, to ask once
    /// it can be found with them: before that nobody else would have heard of it.
    pub(crate) fn has_died(&self, id: &SandboxId) -> bool {
        self.0.deaths.has(id)
    }

    async fn died(&self, id: &SandboxId, reason: &str) {
        // Noted before anybody is looked for, so that whoever is not found yet finds this.
        self.0.deaths.note(id);
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
