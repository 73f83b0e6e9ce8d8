//! What warm sandboxes are made from: when that changes, they are replaced.

use super::LivePool;
use super::driver::LOOK;
use crate::lock::lock;
use crate::record::PoolRecord;
use crate::sandboxes::Sandboxes;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{BackendName, TemplateId};
use sha2::{Digest as _, Sha256};
use std::time::{Instant, SystemTime};

/// What stood behind a template's name when the backend was asked last.
#[derive(Clone)]
pub(super) struct Behind {
    template: TemplateId,
    asked: Instant,
    /// Absent where the backend could not tell; empty where nothing there can change.
    version: Option<String>,
}

impl LivePool {
    /// Begins a new generation where the template, what stands behind its name, the limits or the pool's own process
    /// are others than the last time. A template that is not there, or of which that cannot be told now, changes
    /// nothing: what is warm was made from it, and refills will say so.
    pub(super) async fn renew(&self, sandboxes: &Sandboxes) {
        let (backend, template) = {
            let state = lock(&self.state);
            (state.record.spec.backend.clone(), state.record.spec.template.clone())
        };
        let Ok(Some(template)) = sandboxes.template_named(&backend, &template).await else { return };
        let Some(version) = self.version(sandboxes, &backend, &template.id).await else { return };
        let mut state = lock(&self.state);
        let made_from = fingerprint(&state.record, &template, &version);
        if state.record.made_from == made_from {
            return;
        }
        // Nothing was ever made of the first.
        if !state.record.made_from.is_empty() {
            state.record.generation += 1;
            tracing::info!(pool = %self.name, generation = state.record.generation, "the pool's template or limits changed: warm sandboxes are replaced");
        }
        state.record.made_from = made_from;
        state.unwritten = true;
        let (generation, now) = (state.record.generation, self.clock.now());
        state.brain.new_generation(generation, now);
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
