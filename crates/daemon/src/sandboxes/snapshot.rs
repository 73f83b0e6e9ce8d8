//! Snapshots of files into templates.

use super::{Repeat, Sandboxes};
use crate::error::{Error, Result};
use crate::record::{Event, EventKind, SandboxRecord};
use hostel_sandbox::label::{self, Labels};
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Error as DomainError, SandboxId, TemplateId};
use std::sync::Arc;
use std::time::Instant;

impl Sandboxes {
    /// Makes a template of a sandbox's files. With `repeat`, the same request again returns the same template.
    ///
    /// # Errors
    /// `NotFound`, `WrongState`, `AlreadyExists`, `CapabilityMissing`.
    pub(crate) async fn snapshot(
        &self,
        id: SandboxId,
        name: Option<TemplateId>,
        labels: Labels,
        actor: String,
        repeat: Option<Repeat>,
    ) -> Result<Template> {
        label::validate(&labels)?;
        let this = self.clone();
        let Some(repeat) = repeat else {
            let name = name.unwrap_or_else(TemplateId::generate);
            return self.to_the_end(async move { this.snapshot_now(&id, name, labels, &actor).await }).await;
        };
        let asked = repeat.clone();
        let work = async move {
            let name = name.unwrap_or_else(TemplateId::generate);
            let claim = asked.fulfilled(name.to_string()).1;
            let earlier = this.0.store.claim_request(&asked.key, claim).await?;
            let Some(earlier) = earlier else {
                let made = this.snapshot_now(&id, name, labels, &actor).await;
                if made.is_err() {
                    this.0.store.release_request(&asked.key).await?;
                }
                return made;
            };
            asked.check(&earlier.body)?;
            let name = TemplateId::parse(earlier.outcome)?;
            match this.snapshot_named(&id, &name).await? {
                Some(template) => Ok(template),
                // The daemon died between the promise and the deed.
                None => this.snapshot_now(&id, name, labels, &actor).await,
            }
        };
        self.0.snapshots.once(&self.0.tasks, &repeat, work).await
    }

    async fn snapshot_named(&self, id: &SandboxId, name: &TemplateId) -> Result<Option<Template>> {
        let backend = match self.get(id) {
            Ok(entry) => self.0.backends.get(&entry.record().backend),
            Err(_) => self.0.backends.default(),
        };
        let Some(backend) = backend else { return Ok(None) };
        match self.template_for(&backend, Some(name)).await {
            Ok(found) => Ok(found.as_deref().cloned()),
            Err(Error::Domain(DomainError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The template that a sandbox was made from, where it is still there.
    pub(super) async fn template_of(&self, record: &SandboxRecord) -> Result<Option<Arc<Template>>> {
        match self.0.backends.get(&record.backend) {
            Some(backend) => self.template_for(&backend, record.spec.template.as_ref()).await,
            None => Ok(None),
        }
    }

    async fn snapshot_now(
        &self,
        id: &SandboxId,
        name: TemplateId,
        labels: Labels,
        actor: &str,
    ) -> Result<Template> {
        let begin = Instant::now();
        let entry = self.get(id)?;
        let _operation = entry.operate().await;
        self.still_there(&entry)?;
        let environment = entry.live()?;
        let mut record = (*entry.record()).clone();
        let base = match &record.spec.template {
            Some(base) => base.clone(),
            None => {
                let backend = self.0.backends.get(&record.backend);
                TemplateId::parse(backend.as_ref().map_or("host", |backend| backend.default_template()))?
            }
        };
        let mut template = Template::new(name, TemplateSource::Snapshot { base, sandbox: Some(id.clone()) });
        template.labels = labels;
        template.env.clone_from(&record.spec.env);
        template.user.clone_from(&record.spec.user);
        template.workdir.clone_from(&record.spec.workdir);
        template.limits.clone_from(&record.requested_limits);
        if let Ok(Some(base)) = self.template_of(&record).await {
            template.max_limits.clone_from(&base.max_limits);
            template.network.clone_from(&base.network);
            template.start_commands.clone_from(&base.start_commands);
            template.probe.clone_from(&base.probe);
        }
        let template = environment.snapshot(template).await?;
        self.template_made(record.backend.clone(), template.clone());
        record.snapshot = Some(template.id.clone());
        record.updated = std::time::SystemTime::now();
        let event = Event::other(EventKind::Updated, &record, "snapshot", actor);
        self.commit(&entry, record, event, None).await?;
        entry.touch();
        tracing::info!(sandbox = %id, op = "snapshot", template = %template.id, duration = ?begin.elapsed(), "template made");
        Ok(template)
    }
}
