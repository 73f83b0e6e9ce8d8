//! Templates: images of the repository `hostel` with their record in a label, images that the configuration names,
//! and `default`.

use crate::backend::Inner;
use crate::digits;
use crate::engine::{QUESTION, TRANSFER, WORK, bounded};
use crate::image::Image;
use crate::parents::Parents;
use crate::tools::Packer;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use hostel_sandbox::file::{ByteStream, Compression};
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Error, Result, TemplateId};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// The template that needs no import.
pub(crate) const DEFAULT: &str = "default";
/// On templates: the record, JSON in hexadecimal, which no rule of quoting can spoil.
pub(crate) const LABEL_TEMPLATE: &str = "hostel.template";
/// Where deleted templates wait for the last sandbox that stands on them.
const DELETED: &str = "hostel-deleted";

/// What is known of templates without asking the engine.
#[derive(Default)]
pub(crate) struct Templates {
    declared: Mutex<HashMap<TemplateId, Template>>,
    /// What the engine said last, for when it is away.
    seen: Mutex<Vec<Template>>,
    /// Being made; names are taken before there is an image.
    reserved: Arc<Mutex<HashSet<TemplateId>>>,
}

/// A name that is taken until this is dropped.
pub(crate) struct Reserved(Arc<Mutex<HashSet<TemplateId>>>, TemplateId);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.1);
    }
}

/// The image of a template of ours.
pub(crate) fn image_of(id: &TemplateId) -> String {
    format!("hostel/{id}:latest")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A template's record as a label's value.
///
/// # Errors
/// `Internal`.
pub(crate) fn record(template: &Template) -> Result<String> {
    let json = serde_json::to_vec(template)
        .map_err(|error| Error::internal(format!("record the template {}", template.id), error))?;
    Ok(digits::hex(&json))
}

fn from_record(text: &str) -> Option<Template> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()).collect();
    serde_json::from_slice(&bytes?).ok()
}

impl Inner {
    fn default_template(&self) -> Result<Template> {
        let mut template = Template::new(
            TemplateId::parse(DEFAULT)?,
            TemplateSource::Image { reference: self.default_image.clone() },
        );
        template.created = std::time::SystemTime::UNIX_EPOCH;
        Ok(template)
    }

    /// A template and the image it names.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub(crate) async fn recipe(&self, id: Option<&TemplateId>) -> Result<(Template, Image)> {
        let missing = |id: &TemplateId| Error::not_found("template", id);
        let declared = match id {
            None => Some(self.default_template()?),
            Some(id) if id.as_str() == DEFAULT => Some(self.default_template()?),
            Some(id) => lock(&self.templates.declared).get(id).cloned(),
        };
        if let Some(template) = declared {
            let TemplateSource::Image { reference } = &template.source else {
                return Err(missing(&template.id));
            };
            let image = Image::look_up(&self.engine, reference).await?;
            return Ok((template, image));
        }
        let Some(id) = id else { return Err(Error::not_found("template", DEFAULT)) };
        let image = match Image::look_up(&self.engine, &image_of(id)).await {
            Err(Error::NotFound { .. }) => return Err(missing(id)),
            found => found?,
        };
        let known = image.labels.get(LABEL_TEMPLATE).and_then(|text| from_record(text));
        let mut template = known.ok_or_else(|| missing(id))?;
        template.id = id.clone();
        Ok((template, image))
    }

    /// All templates, by name. Those of an engine that is away are as they were seen last.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) async fn list_templates(&self) -> Result<Vec<Template>> {
        match self.engine_templates().await {
            Ok(found) => *lock(&self.templates.seen) = found,
            Err(error @ Error::Unavailable { .. }) => tracing::debug!(%error, "templates as last seen"),
            Err(error) => return Err(error),
        }
        let mut all = lock(&self.templates.seen).clone();
        all.extend(lock(&self.templates.declared).values().cloned());
        all.push(self.default_template()?);
        all.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(all)
    }

    async fn engine_templates(&self) -> Result<Vec<Template>> {
        let client = self.engine.client().await?;
        let filters = HashMap::from([("label", vec![LABEL_TEMPLATE])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = bounded(QUESTION, client.list_images(Some(options)))
            .await
            .map_err(|fault| fault.during("list images"))?;
        let mut found = Vec::new();
        for image in images {
            let Some(template) = image.labels.get(LABEL_TEMPLATE).and_then(|text| from_record(text)) else {
                continue;
            };
            for tag in &image.repo_tags {
                let name = tag.strip_prefix("hostel/").and_then(|rest| rest.strip_suffix(":latest"));
                if let Some(id) = name.and_then(|name| TemplateId::parse(name).ok()) {
                    let size_bytes = u64::try_from(image.size).ok();
                    found.push(Template { id, size_bytes, ..template.clone() });
                }
            }
        }
        Ok(found)
    }

    /// Takes a name for a new template.
    ///
    /// # Errors
    /// `AlreadyExists`, also for an image of somebody else's; `Unavailable`.
    pub(crate) async fn reserve_template(&self, id: &TemplateId) -> Result<Reserved> {
        let taken = || Error::AlreadyExists { kind: "template", id: id.to_string() };
        if !lock(&self.templates.reserved).insert(id.clone()) {
            return Err(taken());
        }
        let reserved = Reserved(Arc::clone(&self.templates.reserved), id.clone());
        if id.as_str() == DEFAULT || lock(&self.templates.declared).contains_key(id) {
            return Err(taken());
        }
        let client = self.engine.client().await?;
        match bounded(QUESTION, client.inspect_image(&image_of(id))).await {
            Err(fault) if fault.is_missing() => Ok(reserved),
            Err(fault) => Err(fault.during(format!("look whether there is an image of {id}"))),
            Ok(found) => {
                let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
                if labels.contains_key(LABEL_TEMPLATE) {
                    return Err(taken());
                }
                // Ours would take its name away.
                let id = format!("{}, which is no template", image_of(id));
                Err(Error::AlreadyExists { kind: "image", id })
            }
        }
    }

    /// Notes a template of the configuration.
    ///
    /// # Errors
    /// `CapabilityMissing` for a source that is no image; `AlreadyExists`.
    pub(crate) fn declare(&self, template: Template) -> Result<Template> {
        if !matches!(template.source, TemplateSource::Image { .. }) {
            let detail = "only templates that name an image can be declared for containers";
            return Err(Error::missing(hostel_sandbox::Capability::TemplateImport, detail));
        }
        let seen = lock(&self.templates.seen).iter().any(|known| known.id == template.id);
        if template.id.as_str() == DEFAULT || seen {
            return Err(Error::AlreadyExists { kind: "template", id: template.id.to_string() });
        }
        lock(&self.templates.declared).insert(template.id.clone(), template.clone());
        Ok(template)
    }

    /// Makes a template of an archive.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for an archive that the engine does not take; `LimitReached`.
    pub(crate) async fn import_archive(
        &self,
        mut template: Template,
        archive: ByteStream,
        compression: Compression,
    ) -> Result<Template> {
        let _reserved = self.reserve_template(&template.id).await?;
        template.source = TemplateSource::Imported;
        let client = self.engine.client().await?;
        let repository = format!("hostel/{}", template.id);
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(&repository)
            .tag("latest")
            .changes(vec![format!("LABEL {LABEL_TEMPLATE}={}", record(&template)?)])
            .build();
        // The engine cannot be told of a source that broke: what it makes of such a one is taken away again.
        let failed = Arc::new(Mutex::new(None));
        let plain = plain(archive, compression, Arc::clone(&failed))?;
        let mut answers =
            std::pin::pin!(client.create_image(Some(options), Some(bollard::body_try_stream(plain)), None));
        let told = tokio::time::timeout(TRANSFER, async {
            while let Some(answer) = answers.next().await {
                answer?;
            }
            Ok::<(), bollard::errors::Error>(())
        });
        let told =
            told.await.map_err(|_| Error::DeadlineExceeded { what: "importing an image".to_owned() })?;
        let source_failed = lock(&failed).take();
        if let Some(error) = source_failed {
            if told.is_ok() {
                self.remove_image(&image_of(&template.id)).await;
            }
            return Err(error);
        }
        match told.map_err(crate::engine::Fault::from) {
            Ok(()) => Ok(template),
            Err(crate::engine::Fault::Answer { message, .. }) if !message.contains("no space left") => {
                Err(Error::invalid("archive", message))
            }
            Err(fault) => Err(fault.during("import an image")),
        }
    }

    /// Makes a template of a directory of the host.
    ///
    /// # Errors
    /// As [`Self::import_archive`].
    pub(crate) async fn import_directory(&self, template: Template, directory: &Path) -> Result<Template> {
        let mut packer = Packer::start([OsStr::new("--directory"), directory.as_os_str(), OsStr::new(".")])?;
        let (sender, archive) = mpsc::channel(4);
        let pack = async move {
            while let Some(piece) = packer.next().await.transpose() {
                let is_last = piece.is_err();
                if sender.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        };
        let import = self.import_archive(template, archive, Compression::None);
        futures::future::join(pack, import).await.1
    }

    /// Deletes a template; sandboxes made from it keep their files.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` for `default`.
    pub(crate) async fn delete(&self, id: &TemplateId) -> Result<()> {
        self.must_be_changeable(id)?;
        let (_, image) = self.recipe(Some(id)).await?;
        let _set_aside = self.imaging.read().await;
        let aside = self.set_aside(&image, id).await?;
        let client = self.engine.client().await?;
        let options = RemoveImageOptionsBuilder::default().noprune(true).build();
        bounded(WORK, client.remove_image(&image_of(id), Some(options), None))
            .await
            .map_err(|fault| fault.during(format!("delete the image of {id}")))?;
        lock(&self.templates.seen).retain(|known| known.id != *id);
        self.remove_image(&aside).await;
        Ok(())
    }

    /// Gives the template `made` another name, in place of the template that has it, if one has. Sandboxes made from
    /// that one keep its image.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` for `default` and what is declared; `AlreadyExists` for an image of somebody else's.
    pub(crate) async fn replace(&self, made: &TemplateId, name: &TemplateId) -> Result<Template> {
        self.must_be_changeable(name)?;
        let (mut template, image) = self.recipe(Some(made)).await?;
        let (_reserved, old) = match self.reserve_template(name).await {
            Ok(reserved) => (Some(reserved), None),
            Err(Error::AlreadyExists { kind: "template", .. }) => {
                (None, Some(self.recipe(Some(name)).await?.1))
            }
            Err(error) => return Err(error),
        };
        let _set_aside = self.imaging.read().await;
        let aside = match &old {
            Some(old) => Some(self.set_aside(old, name).await?),
            None => None,
        };
        self.tag(&image, &format!("hostel/{name}"), "latest", name).await?;
        template.id = name.clone();
        {
            let mut seen = lock(&self.templates.seen);
            seen.retain(|known| known.id != *made && known.id != *name);
            seen.push(template.clone());
        }
        self.remove_image(&image_of(made)).await;
        if let Some(aside) = aside {
            self.remove_image(&aside).await;
        }
        Ok(template)
    }

    /// Refuses a template that is there whatever anybody asks.
    fn must_be_changeable(&self, id: &TemplateId) -> Result<()> {
        if id.as_str() == DEFAULT {
            return Err(Error::wrong_state(
                "TEMPLATE_BUILT_IN",
                "the template default is part of the backend",
            ));
        }
        if lock(&self.templates.declared).contains_key(id) {
            let text = format!("the template {id} is declared in a file; change or remove it there");
            return Err(Error::wrong_state("TEMPLATE_DECLARED", text));
        }
        Ok(())
    }

    /// Gives the image of a template that goes another name: the last one of an image that is used cannot be taken
    /// from it.
    async fn set_aside(&self, image: &Image, id: &TemplateId) -> Result<String> {
        let tag = uuid::Uuid::new_v4().simple().to_string();
        self.tag(image, DELETED, &tag, id).await?;
        Ok(format!("{DELETED}:{tag}"))
    }

    async fn tag(&self, image: &Image, repository: &str, tag: &str, id: &TemplateId) -> Result<()> {
        let client = self.engine.client().await?;
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        bounded(QUESTION, client.tag_image(&image.id, Some(options)))
            .await
            .map_err(|fault| fault.during(format!("name the image of {id} {repository}:{tag}")))
    }

    /// Removes an image unless something stands on it; then it goes later.
    pub(crate) async fn remove_image(&self, reference: &str) {
        let Ok(client) = self.engine.client().await else { return };
        let removed = bounded(
            WORK,
            client.remove_image(reference, None::<bollard::query_parameters::RemoveImageOptions>, None),
        )
        .await;
        if let Err(fault) = removed
            && !fault.is_missing()
            && !fault.is_conflict()
        {
            tracing::warn!(image = reference, ?fault, "an image could not be removed");
        }
    }

    /// Removes deleted templates that nothing stands on any more.
    pub(crate) async fn remove_deleted_images(&self) {
        let Ok(client) = self.engine.client().await else { return };
        let filters = HashMap::from([("reference", vec![DELETED])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let Ok(images) = bounded(QUESTION, client.list_images(Some(options))).await else { return };
        let ours = format!("{DELETED}:");
        for tag in images.iter().flat_map(|image| &image.repo_tags).filter(|tag| tag.starts_with(&ours)) {
            self.remove_image(tag).await;
        }
    }
}

/// An archive on its way to the engine.
struct Feed {
    archive: ByteStream,
    decoder: Option<zstd::stream::write::Decoder<'static, Vec<u8>>>,
    /// Compressed, not yet decoded.
    rest: Bytes,
    parents: Parents,
    /// What went wrong, for whoever waits for the engine.
    failed: Arc<Mutex<Option<Error>>>,
}

/// Compressed bytes that are decoded at once: a bomb is never held in memory as a whole.
const BITE: usize = 4096;

impl Feed {
    /// The next bytes for the engine; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(plain) = self.decoded().await? {
            let complete = self.parents.pass(&plain)?;
            if !complete.is_empty() {
                return Ok(Some(complete.into()));
            }
        }
        let rest = self.parents.rest();
        Ok((!rest.is_empty()).then(|| rest.into()))
    }

    /// The next plain bytes; `None` at the end.
    async fn decoded(&mut self) -> Result<Option<Bytes>> {
        loop {
            let broken = |error: io::Error| Error::invalid("archive", format!("not zstd: {error}"));
            if self.rest.is_empty() {
                match self.archive.recv().await {
                    Some(piece) => self.rest = piece?,
                    None => {
                        let Some(mut decoder) = self.decoder.take() else { return Ok(None) };
                        decoder.flush().map_err(broken)?;
                        return Ok(Some(std::mem::take(decoder.get_mut()).into()));
                    }
                }
            }
            let Some(decoder) = &mut self.decoder else { return Ok(Some(std::mem::take(&mut self.rest))) };
            let bite = self.rest.split_to(self.rest.len().min(BITE));
            decoder.write_all(&bite).map_err(broken)?;
            let plain = std::mem::take(decoder.get_mut());
            if !plain.is_empty() {
                return Ok(Some(plain.into()));
            }
        }
    }
}

/// The archive without its compression and with every directory, as the engine wants it. What goes wrong is left in `failed`.
fn plain(
    archive: ByteStream,
    compression: Compression,
    failed: Arc<Mutex<Option<Error>>>,
) -> Result<impl futures::Stream<Item = io::Result<Bytes>> + Send> {
    let decoder = match compression {
        Compression::None => None,
        Compression::Zstd => Some(
            zstd::stream::write::Decoder::new(Vec::new())
                .map_err(|error| Error::internal("make a decoder", error))?,
        ),
    };
    let feed = Feed { archive, decoder, rest: Bytes::new(), parents: Parents::default(), failed };
    Ok(stream::unfold(Some(feed), |feed| async move {
        let mut feed = feed?;
        match feed.next().await {
            Ok(piece) => piece.map(|piece| (Ok(piece), Some(feed))),
            Err(error) => {
                let text = io::Error::other(error.to_string());
                *lock(&feed.failed) = Some(error);
                Some((Err(text), None))
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_label() {
        let mut template = Template::new(TemplateId::generate(), TemplateSource::Imported);
        template.env = [("A".to_owned(), "\"$B\" \n\\ '".to_owned())].into();
        assert_eq!(from_record(&record(&template).unwrap()).unwrap(), template);
        for broken in ["", "zz", "7b", "é"] {
            assert!(from_record(broken).is_none(), "{broken}");
        }
    }
}
