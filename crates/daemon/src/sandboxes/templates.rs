//! Templates of the backends, remembered so that a creation need not ask for them.

use super::Sandboxes;
use crate::error::Result;
use crate::lock::lock;
use hostel_sandbox::template::Template;
use hostel_sandbox::{Backend, BackendName, Error as DomainError, TemplateId};
use std::sync::Arc;

impl Sandboxes {
    /// The template named, or the default where none is and there is one.
    ///
    /// # Errors
    /// `NotFound` for a template that was named.
    pub(super) async fn template_for(
        &self,
        backend: &Arc<dyn Backend>,
        named: Option<&TemplateId>,
    ) -> Result<Option<Arc<Template>>> {
        let id = match named {
            Some(id) => id.clone(),
            None => TemplateId::parse(backend.default_template())?,
        };
        let key = (backend.name(), id.clone());
        if let Some(known) = lock(&self.0.templates).get(&key).cloned() {
            return Ok(Some(known));
        }
        self.templates_of(backend).await?;
        let found = lock(&self.0.templates).get(&key).cloned();
        match (found, named) {
            (None, Some(id)) if self.is_being_imported(&backend.name(), id) => {
                let detail = format!("the files of {id} are being imported; try again");
                Err(DomainError::Unavailable { what: "template", detail }.into())
            }
            (None, Some(id)) => Err(DomainError::not_found("template", id).into()),
            (found, _) => Ok(found),
        }
    }

    /// A template by its name, of a backend by its name.
    ///
    /// # Errors
    /// `NotFound` for either.
    pub(crate) async fn template_named(
        &self,
        backend: &BackendName,
        id: &TemplateId,
    ) -> Result<Option<Arc<Template>>> {
        let named = self.0.backends.get(backend);
        let backend = named.ok_or_else(|| DomainError::not_found("backend", backend))?;
        self.template_for(&backend, Some(id)).await
    }

    /// The templates that a backend has now.
    pub(crate) async fn templates_of(&self, backend: &Arc<dyn Backend>) -> Result<Vec<Template>> {
        let name = backend.name();
        let templates = backend.templates().await?;
        let mut known = lock(&self.0.templates);
        known.retain(|(owner, _), _| *owner != name);
        let named = |template: &Template| ((name.clone(), template.id.clone()), Arc::new(template.clone()));
        known.extend(templates.iter().map(named));
        drop(known);
        Ok(templates)
    }

    /// The template of that name that a backend has now, if it has one.
    ///
    /// # Errors
    /// Where the backend cannot say.
    pub(crate) async fn template_in(
        &self,
        backend: &Arc<dyn Backend>,
        id: &TemplateId,
    ) -> Result<Option<Template>> {
        Ok(self.templates_of(backend).await?.into_iter().find(|template| template.id == *id))
    }

    /// The backends that have a template of that name. One that does not answer counts as having none, unless none
    /// has it.
    pub(crate) async fn backends_with(&self, id: &TemplateId) -> Result<Vec<(Arc<dyn Backend>, Template)>> {
        let (mut found, mut failed) = (Vec::new(), None);
        for backend in self.0.backends.all() {
            match self.template_in(backend, id).await {
                Ok(template) => found.extend(template.map(|template| (Arc::clone(backend), template))),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// Notes a template that was just made.
    pub(crate) fn template_made(&self, backend: BackendName, template: Template) {
        lock(&self.0.templates).insert((backend, template.id.clone()), Arc::new(template));
    }

    /// Forgets a template that was just removed.
    pub(crate) fn template_gone(&self, backend: &BackendName, id: &TemplateId) {
        lock(&self.0.templates).remove(&(backend.clone(), id.clone()));
    }

    /// How many sandboxes that are not ended were made from a template.
    pub(crate) fn sandboxes_of_template(&self, backend: &BackendName, id: &TemplateId) -> usize {
        self.all()
            .iter()
            .map(|entry| entry.record())
            .filter(|record| record.backend == *backend && record.spec.template.as_ref() == Some(id))
            .filter(|record| !record.state().is_final())
            .count()
    }
}
