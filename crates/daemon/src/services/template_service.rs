//! `TemplateService`.

use super::upload::{self, Upload};
use super::{Answer, Frames, peer};
use crate::convert::attachment::api_stream;
use crate::convert::file::compression;
use crate::convert::template::{api_template, build, imported};
use crate::convert::{api_duration, optional_id};
use crate::error::{Error, Result};
use crate::listen::Peer;
use crate::page;
use crate::request_id::repeat;
use crate::sandboxes::{BuildEvent, Repeat, Sandboxes};
use hostel_proto::v1;
use hostel_proto::v1::template_service_server::TemplateService;
use hostel_sandbox::label::Selector;
use hostel_sandbox::template::Template;
use hostel_sandbox::{Backend, BackendName, Capability, Error as DomainError, TemplateId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// How long a client may send nothing of an archive: it has one of the few turns.
const SILENCE: Duration = Duration::from_secs(60);

/// The service over the templates of all backends.
pub(crate) struct Templates(pub Sandboxes);

#[tonic::async_trait]
impl TemplateService for Templates {
    async fn get_template(
        &self,
        request: Request<v1::GetTemplateRequest>,
    ) -> Answer<v1::GetTemplateResponse> {
        let request = request.into_inner();
        let id = TemplateId::parse(request.name).map_err(Error::from)?;
        let found = self.having(&id, request.backend).await?;
        let found: Vec<_> = found.into_iter().map(|(backend, template)| (backend.name(), template)).collect();
        let template = self.shown(&found).ok_or_else(|| not_found(&id))?;
        Ok(Response::new(v1::GetTemplateResponse { template: Some(template) }))
    }

    async fn list_templates(
        &self,
        request: Request<v1::ListTemplatesRequest>,
    ) -> Answer<v1::ListTemplatesResponse> {
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let selector = Selector::parse(&request.label_selector).map_err(Error::from)?;
        let filter = ["templates", request.label_selector.as_str()];
        let after: Option<TemplateId> = page::position(&request.page_token, &filter)?;
        let mut templates = self.all().await?;
        templates.retain(|_, found| found.iter().any(|(_, template)| selector.matches(&template.labels)));
        templates.retain(|id, _| after.as_ref().is_none_or(|after| id > after));
        let more = templates.len() > size;
        let page: Vec<_> = templates.iter().take(size).collect();
        let next = page.last().filter(|_| more).map(|(last, _)| page::token(last, &filter));
        Ok(Response::new(v1::ListTemplatesResponse {
            templates: page.iter().filter_map(|(_, found)| self.shown(found)).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    type BuildTemplateStream = Frames<v1::BuildTemplateResponse>;

    async fn build_template(
        &self,
        request: Request<v1::BuildTemplateRequest>,
    ) -> Answer<Self::BuildTemplateStream> {
        let peer = peer(&request)?;
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let repeat = repeat(&peer, "BuildTemplate", request_id, &request)?;
        let followed = self.0.build(build(request)?, peer.actor.to_string(), repeat)?;
        let this = Self(self.0.clone());
        // Ends after an error, as a call does.
        let frames = futures::stream::unfold((Some(followed), this), |(followed, this)| async move {
            let mut followed = followed?;
            let stop = this.0.stopping().clone();
            let item = tokio::select! {
                biased;
                item = followed.next() => item?,
                () = stop.cancelled() => Err(Error::Draining),
            };
            let goes_on = item.is_ok().then_some(followed);
            let frame = item.map(|event| this.frame(event)).map_err(Status::from);
            Some((frame, (goes_on, this)))
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn import_template(
        &self,
        request: Request<Streaming<v1::ImportTemplateRequest>>,
    ) -> Answer<v1::ImportTemplateResponse> {
        let peer = peer(&request)?;
        let mut stream = request.into_inner();
        let mut open = upload::open(&mut stream).await?;
        let request_id = std::mem::take(&mut open.request_id);
        let repeat = repeat(&peer, "ImportTemplate", request_id, &open)?;
        let (this, asked) = (Self(self.0.clone()), repeat.clone());
        // Half an import would keep its name, its files and its request id: it goes on when the caller goes away, and
        // an upload without its caller ends as one that was broken off.
        let work = Box::pin(async move { this.import_once(&peer, &open, asked.as_ref(), stream).await });
        let made = self.0.import(repeat.as_ref(), work).await?;
        Ok(Response::new(v1::ImportTemplateResponse { template: self.shown(&[made]) }))
    }

    async fn delete_template(
        &self,
        request: Request<v1::DeleteTemplateRequest>,
    ) -> Answer<v1::DeleteTemplateResponse> {
        let peer = peer(&request)?;
        let request = request.into_inner();
        let id = TemplateId::parse(request.name).map_err(Error::from)?;
        let found = self.having(&id, request.backend).await?;
        if found.is_empty() && !request.allow_missing {
            return Err(not_found(&id).into());
        }
        for (backend, _) in &found {
            self.must_not_be_declared(&backend.name(), &id)?;
            if self.0.pools().uses_template(&backend.name(), &id) {
                let message =
                    format!("a pool holds sandboxes of the template {id}: give it another or delete it");
                return Err(Error::from(DomainError::wrong_state("TEMPLATE_IN_USE", message)).into());
            }
        }
        for (backend, _) in found {
            backend.delete_template(&id).await.map_err(Error::from)?;
            self.0.template_gone(&backend.name(), &id);
            tracing::info!(template = %id, op = "delete", actor = %peer.actor, "template removed");
        }
        Ok(Response::new(v1::DeleteTemplateResponse {}))
    }
}

fn not_found(id: &TemplateId) -> Error {
    DomainError::not_found("template", id).into()
}

/// Where files of a template come from, and who takes them.
struct Import<'a> {
    backend: &'a Arc<dyn Backend>,
    peer: &'a Peer,
    open: &'a v1::ImportTemplateOpen,
    stream: Streaming<v1::ImportTemplateRequest>,
}

/// The templates of one name, with the backends that have them.
type Found = Vec<(BackendName, Template)>;

impl Templates {
    /// The backends that have a template. Only the one of this name is asked, where it is not empty.
    async fn having(&self, id: &TemplateId, named: String) -> Result<Vec<(Arc<dyn Backend>, Template)>> {
        let Some(name) = optional_id(named, BackendName::parse)? else {
            return self.0.backends_with(id).await;
        };
        let Some(backend) = self.0.backends().get(&name) else { return Ok(Vec::new()) };
        let found = self.0.template_in(&backend, id).await?;
        Ok(found.map(|template| (backend, template)).into_iter().collect())
    }

    /// All templates by name. A backend that does not answer is left out: the others' are told all the same.
    async fn all(&self) -> Result<BTreeMap<TemplateId, Found>> {
        let (mut all, mut failed) = (BTreeMap::<_, Found>::new(), None);
        for backend in self.0.backends().all() {
            match self.0.templates_of(backend).await {
                Ok(templates) => {
                    for template in templates {
                        all.entry(template.id.clone()).or_default().push((backend.name(), template));
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok(all),
        }
    }

    /// The backend that takes an import: the one named, or the first that can.
    fn importer(&self, named: Option<&BackendName>) -> Result<Arc<dyn Backend>> {
        if let Some(name) = named {
            let backend = self.0.backends().get(name);
            let backend = backend.ok_or_else(|| DomainError::not_found("backend", name))?;
            backend.capabilities().require(Capability::TemplateImport)?;
            return Ok(backend);
        }
        let can = |backend: &&Arc<dyn Backend>| backend.capabilities().has(Capability::TemplateImport);
        let missing =
            || DomainError::missing(Capability::TemplateImport, "no backend of this node takes imports");
        Ok(self.0.backends().all().find(can).cloned().ok_or_else(missing)?)
    }

    /// Refuses a template that a file of the node declares.
    fn must_not_be_declared(&self, backend: &BackendName, id: &TemplateId) -> Result<()> {
        let Some(file) = self.0.declared_in(backend, id) else { return Ok(()) };
        let file = file.display();
        let message =
            format!("the template {id} is declared in {file}: remove that file and restart the daemon");
        Err(DomainError::wrong_state("TEMPLATE_DECLARED", message).into())
    }

    /// Imports, or finds what an earlier request made.
    async fn import_once(
        &self,
        peer: &Peer,
        open: &v1::ImportTemplateOpen,
        repeat: Option<&Repeat>,
        stream: Streaming<v1::ImportTemplateRequest>,
    ) -> Result<(BackendName, Template)> {
        let (mut template, backend) = imported(open)?;
        let backend = self.importer(backend.as_ref())?;
        if open.replace {
            self.must_not_be_declared(&backend.name(), &template.id)?;
            if template.source.base() == Some(&template.id) {
                let problem = "a template cannot stand on the one whose place it takes";
                return Err(DomainError::invalid("base_template", problem).into());
            }
        }
        if let Some(base) = template.source.base().cloned() {
            let found = self.0.template_in(&backend, &base).await?;
            template.inherit(&found.ok_or_else(|| not_found(&base))?);
        }
        if let Some(repeat) = repeat {
            let (key, claim) = repeat.fulfilled(template.id.to_string());
            // One of that name says nothing of whether it was replaced: that is noted when it was.
            let earlier = if open.replace {
                self.0.store().request(&key).await?
            } else {
                self.0.store().claim_request(&key, claim).await?
            };
            if let Some(earlier) = earlier {
                repeat.check(&earlier.body)?;
                if let Some(found) = self.0.template_in(&backend, &template.id).await? {
                    return Ok((backend.name(), found));
                }
            }
        }
        let import = Import { backend: &backend, peer, open, stream };
        let made = if open.replace {
            self.import_instead(import, template).await
        } else {
            self.import_whole(import, template).await
        };
        if let (Err(_), Some(repeat)) = (&made, repeat) {
            self.0.store().release_request(&repeat.key).await?;
        }
        let template = made?;
        self.0.template_made(backend.name(), template.clone());
        if let (true, Some(repeat)) = (open.replace, repeat) {
            let (key, claim) = repeat.fulfilled(template.id.to_string());
            self.0.store().claim_request(&key, claim).await?;
        }
        tracing::info!(template = %template.id, op = "import", actor = %peer.actor, "template made");
        Ok((backend.name(), template))
    }

    /// Imports in place of the template of that name, where the backend has one: under another name first, so that the
    /// old one is given up only for one that is whole.
    async fn import_instead(&self, import: Import<'_>, template: Template) -> Result<Template> {
        let (backend, name) = (import.backend, template.id.clone());
        if self.0.template_in(backend, &name).await?.is_none() {
            return self.import_whole(import, template).await;
        }
        let template = Template { id: TemplateId::generate(), ..template };
        let made = self.import_whole(import, template).await?;
        let replaced = backend.replace_template(&made.id, &name).await;
        if replaced.is_err()
            && let Err(error) = backend.delete_template(&made.id).await
        {
            tracing::warn!(template = %made.id, %error, "a template that came to nothing could not be removed");
        }
        self.0.template_gone(&backend.name(), &made.id);
        Ok(replaced?)
    }

    /// Imports, and takes it back where the backend left out what it was to go on top of.
    async fn import_whole(&self, import: Import<'_>, template: Template) -> Result<Template> {
        let (backend, layered) = (import.backend, template.source.base().is_some());
        let made = self.import(import, template).await?;
        if layered && made.source.base().is_none() {
            backend.delete_template(&made.id).await?;
            let detail = format!("{} cannot put files on top of a template", backend.name());
            return Err(DomainError::missing(Capability::TemplateImport, detail).into());
        }
        Ok(made)
    }

    async fn import(&self, import: Import<'_>, template: Template) -> Result<Template> {
        let Import { backend, peer, open, stream } = import;
        let compression = compression(open.compression)?;
        if open.host_path.is_empty() {
            // Before anything more is read: those that wait hold no more than their first messages.
            let _turn = self.0.import_turn().await?;
            let upload = upload::bytes(stream, Some(SILENCE), self.0.tasks(), self.0.stopping().clone());
            let Upload { bytes, reader, .. } = upload;
            let imported = backend.import_template(template, bytes, compression).await;
            drop(reader);
            return Ok(imported?);
        }
        if !peer.is_operator() {
            let why =
                "only root or the daemon's own user, on the unix socket, may import from a path of the node";
            return Err(DomainError::PermissionDenied(why.to_owned()).into());
        }
        let path = Path::new(&open.host_path);
        if !path.is_absolute() {
            return Err(DomainError::invalid("host_path", "must be an absolute path").into());
        }
        self.0.import_path(backend, template, Some(compression), path).await
    }

    /// One template as clients see it, of all the backends that have it: the first one's words hold.
    fn shown(&self, found: &[(BackendName, Template)]) -> Option<v1::Template> {
        let (_, template) = found.first()?;
        let backends: Vec<_> = found.iter().map(|(backend, _)| backend.clone()).collect();
        let count = backends.iter().map(|backend| self.0.sandboxes_of_template(backend, &template.id)).sum();
        let file = backends.iter().find_map(|backend| self.0.declared_in(backend, &template.id));
        Some(api_template(template, &backends, file.as_deref(), count))
    }

    fn frame(&self, event: BuildEvent) -> v1::BuildTemplateResponse {
        use v1::build_template_response::Event;
        let event = match event {
            BuildEvent::StepStarted { index, command } => {
                Event::StepStarted(v1::BuildStep { index, command, duration: None })
            }
            BuildEvent::Output { index, stream, data } => {
                Event::Output(v1::BuildOutput { step_index: index, stream: api_stream(stream), data })
            }
            BuildEvent::StepFinished { index, command, duration } => {
                Event::StepFinished(v1::BuildStep { index, command, duration: Some(api_duration(duration)) })
            }
            BuildEvent::Done { backend, template } => {
                let shown = self.shown(&[(backend, *template)]);
                return v1::BuildTemplateResponse { event: shown.map(Event::Template) };
            }
        };
        v1::BuildTemplateResponse { event: Some(event) }
    }
}
