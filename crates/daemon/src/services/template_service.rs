//! `TemplateService`.

use super::upload::{self, Upload};
use super::{Answer, Frames, peer};
use crate::convert::file::compression;
use crate::convert::template::{api_template, imported};
use crate::error::{Error, Result};
use crate::listen::Peer;
use crate::page;
use crate::request_id::repeat;
use crate::sandboxes::Sandboxes;
use hostel_proto::v1;
use hostel_proto::v1::template_service_server::TemplateService;
use hostel_sandbox::file::{ByteStream, Compression};
use hostel_sandbox::label::Selector;
use hostel_sandbox::template::Template;
use hostel_sandbox::{Backend, BackendName, Capability, Error as DomainError, TemplateId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Streaming};

/// Bytes read at a time from an archive on the node.
const CHUNK: usize = 256 << 10;

/// The service over the templates of all backends.
pub(crate) struct Templates(pub Sandboxes);

#[tonic::async_trait]
impl TemplateService for Templates {
    async fn get_template(
        &self,
        request: Request<v1::GetTemplateRequest>,
    ) -> Answer<v1::GetTemplateResponse> {
        let id = TemplateId::parse(request.into_inner().name).map_err(Error::from)?;
        let (backend, template) = self.find(&id).await?;
        Ok(Response::new(v1::GetTemplateResponse { template: Some(self.shown(&backend.name(), &template)) }))
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
        templates.retain(|(_, template)| selector.matches(&template.labels));
        templates.retain(|(_, template)| after.as_ref().is_none_or(|after| template.id > *after));
        templates.sort_by(|(_, left), (_, right)| left.id.cmp(&right.id));
        let more = templates.len() > size;
        templates.truncate(size);
        let next = templates.last().filter(|_| more).map(|(_, last)| page::token(&last.id, &filter));
        Ok(Response::new(v1::ListTemplatesResponse {
            templates: templates.iter().map(|(backend, template)| self.shown(backend, template)).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    type BuildTemplateStream = Frames<v1::BuildTemplateResponse>;

    async fn build_template(
        &self,
        _: Request<v1::BuildTemplateRequest>,
    ) -> Answer<Self::BuildTemplateStream> {
        Err(Error::NotYet { what: "template_build" }.into())
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
        let template = imported(&open)?;
        let backend = self.importer()?;
        let earlier = match &repeat {
            Some(repeat) => {
                let (key, claim) = repeat.fulfilled(template.id.to_string());
                self.0.store().claim_request(&key, claim).await?
            }
            None => None,
        };
        if let (Some(repeat), Some(earlier)) = (&repeat, &earlier) {
            repeat.check(&earlier.body)?;
            if let Ok((backend, template)) = self.find(&template.id).await {
                let template = Some(self.shown(&backend.name(), &template));
                return Ok(Response::new(v1::ImportTemplateResponse { template }));
            }
        }
        let made = self.import(&backend, &peer, &open, template, stream).await;
        if let (Err(_), Some(repeat)) = (&made, &repeat) {
            self.0.store().release_request(&repeat.key).await?;
        }
        let template = made?;
        self.0.template_made(backend.name(), template.clone());
        tracing::info!(template = %template.id, op = "import", actor = %peer.actor, "template made");
        let template = Some(self.shown(&backend.name(), &template));
        Ok(Response::new(v1::ImportTemplateResponse { template }))
    }

    async fn delete_template(
        &self,
        request: Request<v1::DeleteTemplateRequest>,
    ) -> Answer<v1::DeleteTemplateResponse> {
        let peer = peer(&request)?;
        let request = request.into_inner();
        let id = TemplateId::parse(request.name).map_err(Error::from)?;
        match self.find(&id).await {
            Err(Error::Domain(DomainError::NotFound { .. })) if request.allow_missing => {}
            Err(error) => return Err(error.into()),
            Ok((backend, _)) => {
                backend.delete_template(&id).await.map_err(Error::from)?;
                self.0.template_gone(&backend.name(), &id);
                tracing::info!(template = %id, op = "delete", actor = %peer.actor, "template removed");
            }
        }
        Ok(Response::new(v1::DeleteTemplateResponse {}))
    }
}

impl Templates {
    async fn all(&self) -> Result<Vec<(BackendName, Template)>> {
        let mut all = Vec::new();
        for backend in self.0.backends().all() {
            let templates = self.0.templates_of(backend).await?;
            all.extend(templates.into_iter().map(|template| (backend.name(), template)));
        }
        Ok(all)
    }

    async fn find(&self, id: &TemplateId) -> Result<(Arc<dyn Backend>, Template)> {
        for backend in self.0.backends().all() {
            let templates = self.0.templates_of(backend).await?;
            if let Some(template) = templates.into_iter().find(|template| template.id == *id) {
                return Ok((Arc::clone(backend), template));
            }
        }
        Err(DomainError::not_found("template", id).into())
    }

    /// The backend that takes imports: the first that can.
    fn importer(&self) -> Result<Arc<dyn Backend>> {
        let can = |backend: &&Arc<dyn Backend>| backend.capabilities().has(Capability::TemplateImport);
        let missing =
            || DomainError::missing(Capability::TemplateImport, "no backend of this node takes imports");
        Ok(self.0.backends().all().find(can).cloned().ok_or_else(missing)?)
    }

    async fn import(
        &self,
        backend: &Arc<dyn Backend>,
        peer: &Peer,
        open: &v1::ImportTemplateOpen,
        template: Template,
        stream: Streaming<v1::ImportTemplateRequest>,
    ) -> Result<Template> {
        let compression = compression(open.compression)?;
        if open.host_path.is_empty() {
            let upload = upload::bytes(stream, self.0.tasks(), self.0.stopping().clone());
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
        self.import_path(backend, template, compression, Path::new(&open.host_path)).await
    }

    async fn import_path(
        &self,
        backend: &Arc<dyn Backend>,
        template: Template,
        compression: Compression,
        path: &Path,
    ) -> Result<Template> {
        if !path.is_absolute() {
            return Err(DomainError::invalid("host_path", "must be an absolute path").into());
        }
        let metadata = tokio::fs::metadata(path)
            .await
            .map_err(|error| DomainError::invalid("host_path", format!("{}: {error}", path.display())))?;
        if metadata.is_dir() {
            return Ok(backend.import_template_directory(template, path).await?);
        }
        let (bytes, reader) = self.file(path.to_owned());
        let imported = backend.import_template(template, bytes, compression).await;
        drop(reader);
        Ok(imported?)
    }

    /// The bytes of a file on the node.
    fn file(&self, path: PathBuf) -> (ByteStream, AbortOnDropHandle<()>) {
        let (sender, bytes) = tokio::sync::mpsc::channel(4);
        let reader = self.0.tasks().spawn(async move {
            let failed = |error| DomainError::internal(format!("read {}", path.display()), error);
            let mut file = match tokio::fs::File::open(&path).await {
                Ok(file) => file,
                Err(error) => return drop(sender.send(Err(failed(error))).await),
            };
            loop {
                let mut buffer = bytes::BytesMut::with_capacity(CHUNK);
                let item = match file.read_buf(&mut buffer).await {
                    Ok(0) => return,
                    Ok(_) => Ok(buffer.freeze()),
                    Err(error) => Err(failed(error)),
                };
                let last = item.is_err();
                if sender.send(item).await.is_err() || last {
                    return;
                }
            }
        });
        (bytes, AbortOnDropHandle::new(reader))
    }

    fn shown(&self, backend: &BackendName, template: &Template) -> v1::Template {
        api_template(template, backend, self.0.sandboxes_of_template(backend, &template.id))
    }
}
