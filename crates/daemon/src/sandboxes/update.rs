//! Changing a live sandbox: labels, times, limits, what it may reach.

use super::{Entry, Sandboxes};
use crate::error::{Error, Result};
use crate::record::{Event, EventKind, SandboxRecord};
use hostel_pool::Needs;
use hostel_sandbox::label::Labels;
use hostel_sandbox::{
    Error as DomainError, ExecutionEnvironment, ModelAccess, NetworkPolicy, ResourceLimits, SandboxId,
    SandboxSpec, SandboxState, SecretRef,
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
            let (before, handle) = (entry.record(), entry.handle());
            let mut record = (*before).clone();
            apply(&mut record, &update)?;
            this.0.reach.check_change(&entry.record().spec, &record.spec)?;
            environment_can(&this, &record)?;
            if let Some(limits) = &update.limits {
                this.template_allows(&record, limits).await?;
            }
            let changed = async {
                this.change(&entry, &environment, &before, &mut record, update.limits.as_ref()).await?;
                record.updated = SystemTime::now();
                let event = Event::other(EventKind::Updated, &record, "requested", &actor);
                this.commit(&entry, record.clone(), event, None).await
            };
            let changed = match changed.await {
                Ok(changed) => changed,
                Err(error) => {
                    this.put_back(&entry, &environment, &before, &record).await;
                    // It says how it was, and so it is again.
                    entry.attach(environment, handle);
                    return Err(error);
                }
            };
            entry.touch();
            tracing::info!(sandbox = %entry.id(), op = "update", actor, "sandbox updated");
            Ok(changed)
        })
        .await
    }
}

impl Sandboxes {
    /// Refuses limits that are more than the sandbox's template allows. One that is gone allows everything.
    async fn template_allows(&self, record: &SandboxRecord, limits: &ResourceLimits) -> Result<()> {
        match self.template_of(record).await {
            Ok(Some(template)) => Ok(template.allows(limits)?),
            Ok(None) | Err(Error::Domain(DomainError::NotFound { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a live sandbox be as the new record says. Where that fails, some of it may have been done.
    async fn change(
        &self,
        entry: &Arc<Entry>,
        environment: &Arc<dyn ExecutionEnvironment>,
        before: &SandboxRecord,
        record: &mut SandboxRecord,
        limits: Option<&ResourceLimits>,
    ) -> Result<()> {
        if let Some(limits) = limits {
            entry.resize(Needs::of(&limits.or(&before.limits)))?;
            record.limits = environment.update_limits(limits).await?;
        }
        self.reconnect(entry, environment, &before.spec, &record.spec).await?;
        if limits.is_some() {
            rebind(entry, environment, &SandboxSpec::default()).await?;
        }
        Ok(())
    }

    /// Makes a live sandbox be as it was before a change that failed, as far as that can be done.
    async fn put_back(
        &self,
        entry: &Arc<Entry>,
        environment: &Arc<dyn ExecutionEnvironment>,
        before: &SandboxRecord,
        record: &SandboxRecord,
    ) {
        if let Err(error) = self.reconnect(entry, environment, &record.spec, &before.spec).await {
            tracing::error!(sandbox = %entry.id(), %error, "a sandbox's network could not be put back; it reaches nothing");
        }
        let limits = before.limits.changes_to(&record.limits);
        if limits != ResourceLimits::default()
            && let Err(error) = environment.update_limits(&limits).await
        {
            tracing::error!(sandbox = %entry.id(), %error, "a sandbox's limits could not be put back; update them again");
        }
        // Only less than it has, or what it had: there is room.
        if let Err(error) = entry.resize(Needs::of(&before.limits)) {
            tracing::error!(sandbox = %entry.id(), %error, "what a sandbox takes of the node is counted wrongly");
        }
    }

    /// Makes a live sandbox reach what the new specification says, and gives processes that start from now on the
    /// environment for it.
    async fn reconnect(
        &self,
        entry: &Arc<Entry>,
        environment: &Arc<dyn ExecutionEnvironment>,
        before: &SandboxSpec,
        after: &SandboxSpec,
    ) -> Result<()> {
        let reach = &self.0.reach;
        reach.change(entry.id(), environment, before, after).await?;
        let equipped = reach.equip(entry.id(), after);
        if equipped.env != reach.equip(entry.id(), before).env {
            // Limits are changed elsewhere.
            let spec = SandboxSpec { limits: ResourceLimits::default(), ..equipped.into_owned() };
            rebind(entry, environment, &spec).await?;
        }
        Ok(())
    }
}

/// Binds a live sandbox to a specification; the next daemon learns from the new handle what is held now.
async fn rebind(
    entry: &Entry,
    environment: &Arc<dyn ExecutionEnvironment>,
    spec: &SandboxSpec,
) -> Result<()> {
    let bound = environment.bind(spec).await?;
    entry.attach(Arc::clone(environment), bound.handle);
    Ok(())
}

/// Refuses a network policy that the sandbox's backend cannot hold.
fn environment_can(sandboxes: &Sandboxes, record: &SandboxRecord) -> Result<()> {
    let backend = sandboxes.0.backends.get(&record.backend);
    backend.map_or(Ok(()), |backend| Ok(backend.capabilities().require(record.spec.network.needs())?))
}

fn apply(record: &mut SandboxRecord, update: &Update) -> Result<()> {
    debug_assert!(matches!(record.state(), SandboxState::Ready | SandboxState::Paused));
    if let Some(labels) = &update.labels {
        record.spec.labels.clone_from(labels);
    }
    if let Some(idle_timeout) = update.idle_timeout {
        record.spec.idle_timeout = idle_timeout;
    }
    if let Some(network) = &update.network {
        record.spec.network = network.clone();
    }
    if let Some(secrets) = &update.secrets {
        record.spec.secrets.clone_from(secrets);
    }
    if let Some(model) = &update.model {
        record.spec.model.clone_from(model);
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
