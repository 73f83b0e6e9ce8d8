//! What warm sandboxes are made from: when that changes, they are replaced.

use super::LivePool;
use crate::lock::lock;
use crate::record::PoolRecord;
use crate::sandboxes::Sandboxes;
use hostel_sandbox::template::{Template, TemplateSource};
use sha2::{Digest as _, Sha256};
use std::time::SystemTime;

impl LivePool {
    /// Begins a new generation where the template, the limits or the pool's own process are others than the last
    /// time. A template that is not there changes nothing: what is warm was made from it, and refills will say so.
    pub(super) async fn renew(&self, sandboxes: &Sandboxes) {
        let (backend, template) = {
            let state = lock(&self.state);
            (state.record.spec.backend.clone(), state.record.spec.template.clone())
        };
        let Ok(Some(template)) = sandboxes.template_named(&backend, &template).await else { return };
        let mut state = lock(&self.state);
        let made_from = fingerprint(&state.record, &template);
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
}

fn fingerprint(record: &PoolRecord, template: &Template) -> String {
    let mut template = template.clone();
    // Sandboxes are the same whatever is known of its size; and what is built in is as old as the daemon, which is not
    // what its warm sandboxes outlive it for.
    template.size_bytes = None;
    if template.source == TemplateSource::Host {
        template.created = SystemTime::UNIX_EPOCH;
    }
    let parts =
        serde_json::to_vec(&(&template, &record.spec.limits, &record.warm_process)).unwrap_or_default();
    let hash = Sha256::digest(parts);
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
