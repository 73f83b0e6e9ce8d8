//! What warm sandboxes are made from: when that changes, they are replaced.

use super::LivePool;
use super::driver::LOOK;
use crate::lock::lock;
use crate::record::PoolRecord;
use crate::sandboxes::Sandboxes;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{BackendName, TemplateId};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// What stood behind a template's name when the backend was asked last.
#[derive(Clone)]
pub(super) struct Behind {
    template: TemplateId,
    asked: Instant,
    /// Absent where the backend could not tell; empty where nothing there can change.
    version: Option<String>,
}

/// The shortest time between two looks, however often the pool is woken.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// A look under way.
struct Renewing(Arc<LivePool>);

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.renewing.store(false, Ordering::Release);
    }
}

impl LivePool {
    /// Looks what warm sandboxes are made from, where that was not done just now. Beside the driver: a backend that is
    /// slow to say keeps nothing of the pool waiting.
    pub(super) fn renew_beside(self: &Arc<Self>, sandboxes: &Sandboxes) {
        {
            let mut state = lock(&self.state);
            if state.renewed.is_some_and(|last| last.elapsed() < BETWEEN_LOOKS)
                || self.renewing.swap(true, Ordering::AcqRel)
            {
                return;
            }
            state.renewed = Some(Instant::now());
        }
        let (renewing, sandboxes) = (Renewing(Arc::clone(self)), sandboxes.clone());
        sandboxes.clone().tasks().spawn(async move {
            let this = &renewing.0;
            tokio::select! {
                () = this.renew(&sandboxes) => {}
                () = this.gone.cancelled() => {}
                () = sandboxes.stopping().cancelled() => {}
            }
        });
    }

    /// Begins a new generation where the template, what stands behind its name, the limits or the pool's own process
    /// are others than the last time. A template that is not there, or of which that cannot be told now, changes
    /// nothing: what is warm was made from it, and refills will say so.
    async fn renew(&self, sandboxes: &Sandboxes) {
        let (backend, named) = {
            let state = lock(&self.state);
            (state.record.spec.backend.clone(), state.record.spec.template.clone())
        };
        let Ok(Some(template)) = sandboxes.template_named(&backend, &named).await else { return };
        let Some(version) = self.version(sandboxes, &backend, &template.id).await else { return };
        let mut state = lock(&self.state);
        // It was given another template meanwhile, which is looked at next.
        if state.record.spec.template != named {
            return;
        }
        let made_from = fingerprint(&state.record, &template, &version);
        if state.record.made_from == made_from {
            return;
        }
        // Nothing was ever made of the first, or what changed it has begun the generation.
        if !state.record.made_from.is_empty() {
            state.record.generation += 1;
            tracing::info!(pool = %self.name, generation = state.record.generation, "the pool's template changed: warm sandboxes are replaced");
        }
        state.record.made_from = made_from;
        state.unwritten = true;
        let (generation, now) = (state.record.generation, self.clock.now());
        state.brain.new_generation(generation, now);
        drop(state);
        self.wake();
    }

    /// What stands behind the template's name, asked of the backend no more often than pools look.
    async fn version(
        &self,
        sandboxes: &Sandboxes,
        backend: &BackendName,
        template: &TemplateId,
    ) -> Option<String> {
        let known = lock(&self.state).behind.clone().filter(|behind| behind.template == *template);
        if let Some(behind) = &known
            && behind.asked.elapsed() < LOOK
        {
            return behind.version.clone();
        }
        let version = match sandboxes.backends().get(backend)?.template_version(template).await {
            Ok(version) => Some(version.unwrap_or_default()),
            Err(error) => {
                tracing::debug!(pool = %self.name, %template, %error, "what stands behind a template cannot be told");
                known.and_then(|behind| behind.version)
            }
        };
        let behind = Behind { template: template.clone(), asked: Instant::now(), version: version.clone() };
        lock(&self.state).behind = Some(behind);
        version
    }
}

fn fingerprint(record: &PoolRecord, template: &Template, version: &str) -> String {
    let mut template = template.clone();
    // Sandboxes are the same whatever is known of its size; and what is built in is as old as the daemon, which is not
    // what its warm sandboxes outlive it for.
    template.size_bytes = None;
    if template.source == TemplateSource::Host {
        template.created = SystemTime::UNIX_EPOCH;
    }
    let parts =
        serde_json::to_vec(&(&template, &record.spec.limits, &record.warm_process)).unwrap_or_default();
    let hash = Sha256::new().chain_update(parts).chain_update(version).finalize();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
