//! Changing a live sandbox: labels, times, limits.

use super::Sandboxes;
use crate::error::Result;
use crate::record::{Event, EventKind, SandboxRecord};
use hostel_pool::Needs;
use hostel_sandbox::label::Labels;
use hostel_sandbox::{
    Error as DomainError, ModelAccess, NetworkPolicy, ResourceLimits, SandboxId, SandboxState, SecretRef,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What to change; `None` stays, `Some(None)` is taken away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Update {
    pub labels: Option<Labels>,
    pub expires: Option<Option<SystemTime>>,
    pub idle_timeout: Option<Option<Duration>>,
    pub limits: Option<ResourceLimits>,
    pub network: Option<NetworkPolicy>,
    pub secrets: Option<Vec<SecretRef>>,
    pub model: Option<Option<ModelAccess>>,
}

impl Sandboxes {
    /// Changes a sandbox that is ready or paused: all of it, or nothing.
    ///
    /// # Errors
    /// `NotFound`, `WrongState`, `InvalidArgument`, `CapabilityMissing`.
    pub(crate) async fn update(
        &self,
        id: &SandboxId,
        update: Update,
        actor: String,
    ) -> Result<Arc<SandboxRecord>> {
        let (this, entry) = (self.clone(), self.get(id)?);
        self.to_the_end(async move {
            let _operation = entry.operate().await;
            this.still_there(&entry)?;
            let environment = entry.live()?;
            let mut record = (*entry.record()).clone();
            apply(&mut record, &update)?;
            if let Some(network) =
                update.network.as_ref().filter(|network| **network != entry.record().spec.network)
            {
                // No backend changes the policy of a running sandbox yet.
                let detail = "the network policy of a running sandbox cannot be changed";
                return Err(DomainError::missing(network.needs(), detail).into());
            }
            if let Some(limits) = &update.limits {
                let before = Needs::of(&record.limits);
                entry.resize(Needs::of(&limits.or(&record.limits)))?;
                match environment.update_limits(limits).await {
                    Ok(changed) => record.limits = changed,
                    Err(error) => {
                        // Only less than it has, or what it had: there is room.
                        entry.resize(before)?;
                        return Err(error.into());
                    }
                }
            }
            record.updated = SystemTime::now();
            let event = Event::other(EventKind::Updated, &record, "requested", &actor);
            let record = this.commit(&entry, record, event, None).await?;
            entry.touch();
            tracing::info!(sandbox = %entry.id(), op = "update", actor, "sandbox updated");
            Ok(record)
        })
        .await
    }
}

fn apply(record: &mut SandboxRecord, update: &Update) -> Result<()> {
    debug_assert!(matches!(record.state(), SandboxState::Ready | SandboxState::Paused));
    if let Some(labels) = &update.labels {
        record.spec.labels.clone_from(labels);
    }
    if let Some(idle_timeout) = update.idle_timeout {
        record.spec.idle_timeout = idle_timeout;
    }
    if let Some(limits) = &update.limits {
        record.requested_limits = limits.or(&record.requested_limits);
        record.spec.limits = limits.or(&record.spec.limits);
    }
    if let Some(expires) = update.expires {
        record.expires = expires;
        record.spec.lifetime = match expires {
            Some(expires) if expires <= SystemTime::now() => {
                return Err(DomainError::invalid("expire_time", "must be to come").into());
            }
            Some(expires) => expires.duration_since(record.created).ok(),
            None => None,
        };
    }
    // A lifetime since creation may be longer than a fresh sandbox could ask for.
    let mut spec = record.spec.clone();
    spec.lifetime = None;
    Ok(spec.validate()?)
}
