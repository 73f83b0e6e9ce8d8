//! Templates.

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::Template;
use crate::page;
use crate::transfer::feed::{Feed, feed};
use bytes::Bytes;
use hostel_proto::v1;
use hostel_proto::v1::import_template_request::Frame;
use hostel_sandbox::file::Compression;
use hostel_sandbox::process::{OutputStream, ProcessSpec};
use hostel_sandbox::template::{Template as Wanted, TemplateSource};
use hostel_sandbox::{BackendName, TemplateId};
use std::time::Duration;
use tokio::io::AsyncRead;
use tonic::Streaming;

/// What an imported template shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportTemplate {
    /// Name, labels and defaults. With the source `Layer` the files go on top of its base.
    pub template: Wanted,
    /// How the archive is packed.
    pub compression: Compression,
    /// The backend to import it for; the first that can where absent.
    pub backend: Option<BackendName>,
    /// Whether it takes the place of the template of its name that the backend has, if it has one.
    pub replace: bool,
}

impl ImportTemplate {
    /// A whole root file system in a plain tar archive, with nothing else said.
    #[must_use]
    pub fn new(name: TemplateId) -> Self {
        let template = Wanted::new(name, TemplateSource::Imported);
        Self { template, compression: Compression::None, backend: None, replace: false }
    }
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildTemplate {
    /// Name, labels and defaults. The source `Built` names the base; with any other it is `host`.
    pub template: Wanted,
    /// What to run, one after the other.
    pub steps: Vec<ProcessSpec>,
    /// The backend to build it for; the first that can where absent.
    pub backend: Option<BackendName>,
    /// Makes the call repeatable: the same id again follows the same build.
    pub request_id: Option<String>,
}

/// Something that happened in a build.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    /// A step begins.
    StepStarted {
        /// Its place, from 0.
        index: u32,
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// A step wrote something.
    Output {
        /// Its place, from 0.
        index: u32,
        /// Which stream.
        stream: OutputStream,
        /// The bytes.
        data: Bytes,
    },
    /// A step exited with 0.
    StepFinished {
        /// Its place, from 0.
        index: u32,
        /// The program and its arguments.
        command: Vec<String>,
        /// How long it took.
        duration: Duration,
    },
    /// The template is there. Comes last and once.
    Done(Box<Template>),
}

/// A build that is followed. Dropping it leaves the build to itself.
#[derive(Debug)]
pub struct BuildWatch(Streaming<v1::BuildTemplateResponse>);

impl BuildWatch {
    /// What happens next. `None` after [`BuildEvent::Done`].
    ///
    /// # Errors
    /// The daemon's refusal, `BUILD_FAILED` when a step fails; a broken connection, after which the build goes on.
    pub async fn next(&mut self) -> Result<Option<BuildEvent>> {
        self.0.message().await.map_err(convert::error)?.map(convert::build_event).transpose()
    }
}

impl Client {
    /// Tells about a template.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn get_template(&self, name: &TemplateId) -> Result<Template> {
        self.get_template_of(name, None).await
    }

    /// Tells about the template of that name that one backend has; the first one's of all where none is named.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn get_template_of(
        &self,
        name: &TemplateId,
        backend: Option<&BackendName>,
    ) -> Result<Template> {
        let backend = backend.map(ToString::to_string).unwrap_or_default();
        let request = v1::GetTemplateRequest { name: name.to_string(), backend };
        let response = self.templates().get_template(request).await.map_err(convert::error)?;
        convert::template(convert::required(response.into_inner().template, "the template")?)
    }

    /// Lists templates by name, all pages.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn list_templates(&self, label_selector: &str) -> Result<Vec<Template>> {
        let mut templates = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListTemplatesRequest {
                page_size: 1000,
                page_token: page_token.clone(),
                label_selector: label_selector.to_owned(),
            };
            let response =
                self.templates().list_templates(request).await.map_err(convert::error)?.into_inner();
            for template in response.templates {
                templates.push(convert::template(template)?);
            }
            if !page::turn(&mut page_token, response.next_page_token)? {
                return Ok(templates);
            }
        }
    }

    /// Makes a template of the root file system in the tar archive that `archive` yields. Nothing is kept when it
    /// fails.
    ///
    /// # Errors
    /// [`crate::Error::Local`] when `archive` fails, else the daemon's refusal.
    pub async fn import_template(
        &self,
        import: ImportTemplate,
        archive: impl AsyncRead + Send + Unpin,
    ) -> Result<Template> {
        let wanted = import.template;
        let open = v1::ImportTemplateOpen {
            request_id: String::new(),
            name: wanted.id.to_string(),
            labels: wanted.labels.clone().into_iter().collect(),
            compression: convert::compression(import.compression),
            host_path: String::new(),
            defaults: Some(convert::template_defaults(&wanted)),
            base_template: wanted.source.base().map(ToString::to_string).unwrap_or_default(),
            backend: import.backend.map(String::from).unwrap_or_default(),
            replace: import.replace,
        };
        let frames = Feed {
            open: v1::ImportTemplateRequest { frame: Some(Frame::Open(open)) },
            data: |bytes| v1::ImportTemplateRequest { frame: Some(Frame::Data(bytes)) },
        };
        let mut templates = self.templates();
        let response =
            feed(archive, frames, |stream| async move { templates.import_template(stream).await }).await?;
        convert::template(convert::required(response.template, "the template")?)
    }

    /// Makes a template by running commands on top of another one. The build goes on when nobody follows it.
    ///
    /// # Errors
    /// The daemon's refusal, as far as it comes at once; the rest comes from [`BuildWatch::next`].
    pub async fn build_template(&self, build: BuildTemplate) -> Result<BuildWatch> {
        let wanted = build.template;
        let request = v1::BuildTemplateRequest {
            request_id: build.request_id.unwrap_or_default(),
            name: wanted.id.to_string(),
            labels: wanted.labels.clone().into_iter().collect(),
            base_template: wanted.source.base().map(ToString::to_string).unwrap_or_default(),
            steps: build.steps.iter().map(convert::process_spec).collect(),
            defaults: Some(convert::template_defaults(&wanted)),
            backend: build.backend.map(String::from).unwrap_or_default(),
        };
        let response = self.templates().build_template(request).await.map_err(convert::error)?;
        Ok(BuildWatch(response.into_inner()))
    }

    /// Removes a template from all backends that have it. Sandboxes made from it go on.
    ///
    /// # Errors
    /// The daemon's refusal, `TEMPLATE_IN_USE` when something needs it.
    pub async fn delete_template(&self, name: &TemplateId) -> Result<()> {
        self.delete_template_of(name, None).await
    }

    /// Removes a template from one backend.
    ///
    /// # Errors
    /// As for [`Self::delete_template`].
    pub async fn delete_template_of(&self, name: &TemplateId, backend: Option<&BackendName>) -> Result<()> {
        let request = v1::DeleteTemplateRequest {
            name: name.to_string(),
            allow_missing: false,
            backend: backend.map(ToString::to_string).unwrap_or_default(),
        };
        self.templates().delete_template(request).await.map_err(convert::error)?;
        Ok(())
    }
}
