//! Templates.

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::Template;
use crate::transfer::feed::{Feed, feed};
use hostel_proto::v1;
use hostel_proto::v1::import_template_request::Frame;
use hostel_sandbox::TemplateId;
use hostel_sandbox::file::Compression;
use hostel_sandbox::label::Labels;
use tokio::io::AsyncRead;

/// What an imported template shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportTemplate {
    /// Its name.
    pub name: TemplateId,
    /// Labels.
    pub labels: Labels,
    /// How the archive is packed.
    pub compression: Compression,
}

impl Client {
    /// Tells about a template.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn get_template(&self, name: &TemplateId) -> Result<Template> {
        let request = v1::GetTemplateRequest { name: name.to_string() };
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
                page_token,
                label_selector: label_selector.to_owned(),
            };
            let response =
                self.templates().list_templates(request).await.map_err(convert::error)?.into_inner();
            for template in response.templates {
                templates.push(convert::template(template)?);
            }
            page_token = response.next_page_token;
            if page_token.is_empty() {
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
        let open = v1::ImportTemplateOpen {
            request_id: String::new(),
            name: import.name.to_string(),
            labels: import.labels.into_iter().collect(),
            compression: convert::compression(import.compression),
            host_path: String::new(),
            defaults: None,
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

    /// Removes a template. Sandboxes made from it go on.
    ///
    /// # Errors
    /// The daemon's refusal, `TEMPLATE_IN_USE` when something needs it.
    pub async fn delete_template(&self, name: &TemplateId) -> Result<()> {
        let request = v1::DeleteTemplateRequest { name: name.to_string(), allow_missing: false };
        self.templates().delete_template(request).await.map_err(convert::error)?;
        Ok(())
    }
}
