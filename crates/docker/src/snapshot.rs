//! Snapshots and forks: of a container's root by the engine's commit, of a disk of ours by copying it while nothing
//! runs.

use crate::backend::Inner;
use crate::container::LABEL_INSTANCE;
use crate::create::Recipe;
use crate::disk::SPILL;
use crate::engine::{QUESTION, TRANSFER, bounded};
use crate::environment::Environment;
use crate::image::Image;
use crate::seeds::{LABEL_SEEDS, SEEDS_INSIDE};
use crate::template::{self, LABEL_TEMPLATE};
use crate::tools::{self, Packer};
use bollard::models::ContainerConfig;
use bollard::query_parameters::{CommitContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use bytes::Bytes;
use futures::stream;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Capability, Created, Error, Result, SandboxId, SandboxSpec};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::MutexGuard;

/// On images that were made for one fork: whose. Empty on others, so that none has it from the one it was made of.
pub(crate) const LABEL_FORK: &str = "hostel.fork";

/// Copies everything of one disk into another, empty one. Links are copied, never followed.
///
/// # Errors
/// `LimitReached` for a disk too small; `Internal`.
pub(crate) async fn copy_disk(from: &Path, to: &Path) -> Result<()> {
    let source = format!("{}/.", from.display());
    let target = to.display().to_string();
    let options = ["--archive", "--one-file-system", "--reflink=auto", "--no-target-directory", "--"];
    tools::run("cp", options.into_iter().chain([source.as_str(), target.as_str()]), TRANSFER).await
}

impl Environment {
    /// Makes an image of the files as they are, with labels; a name where it is for others.
    async fn commit(&self, labels: HashMap<String, String>, name: Option<&str>) -> Result<String> {
        if !self.handle.disk.has_places() {
            let _turn = self.pausing.lock().await;
            let _frozen = Frozen::new(self);
            let pause = !self.is_paused();
            return self.inner.commit_container(&self.handle.container, labels, name, pause).await;
        }
        // The root never changed: the same image, with the disk's files kept apart in it.
        let helper = self.inner.make_helper(&self.handle.image).await?;
        self.commit_disk(&helper.container, labels, name).await
    }

    async fn commit_disk(
        &self,
        helper: &str,
        mut labels: HashMap<String, String>,
        name: Option<&str>,
    ) -> Result<String> {
        let disk = self.inner.ground.mount_point(&self.id);
        // Every snapshot has a directory of its own: what an earlier one had must not come back.
        let below = format!("{SEEDS_INSIDE}/{}", uuid::Uuid::new_v4().simple());
        let still = self.hold_still().await?;
        let sent = self.inner.upload_directory(helper, &disk, below.trim_start_matches('/')).await;
        still.release().await;
        sent?;
        labels.insert(LABEL_SEEDS.to_owned(), below);
        self.inner.commit_container(helper, labels, name, false).await
    }

    /// A template of its files.
    pub(crate) async fn take_snapshot(&self, mut template: Template) -> Result<Template> {
        self.inner.capabilities().require(Capability::Snapshot)?;
        let _reserved = self.inner.reserve_template(&template.id).await?;
        template.source = TemplateSource::Snapshot {
            base: self.handle.template.clone(),
            sandbox: Some(self.handle.sandbox.clone()),
        };
        let defaults = self.defaults();
        template.user = template.user.or(Some(defaults.user));
        template.workdir = template.workdir.or(Some(defaults.workdir));
        let labels = HashMap::from([(LABEL_TEMPLATE.to_owned(), template::record(&template)?)]);
        self.commit(labels, Some(template.id.as_str())).await?;
        Ok(template)
    }

    /// A sandbox with a copy of its files.
    pub(crate) async fn make_fork(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created> {
        self.inner.capabilities().require(Capability::Fork)?;
        let mut template = Template::new(self.handle.template.clone(), TemplateSource::Imported);
        let defaults = self.defaults();
        template.env = defaults.env;
        template.user = Some(defaults.user);
        template.workdir = Some(defaults.workdir);
        let inner = &self.inner;
        if self.handle.disk.is_ours() {
            let image = Image::look_up(&inner.engine, &self.handle.image).await?;
            let recipe = Recipe { template, image, own_image: false, copy_of: Some(self.id.clone()) };
            let still = self.hold_still().await?;
            let made = inner.create(id, spec, recipe).await;
            still.release().await;
            return made;
        }
        let _unused = inner.imaging.read().await;
        let image = self.commit(HashMap::new(), None).await?;
        let image = Image::look_up(&inner.engine, &image).await?;
        inner.create(id, spec, Recipe { template, image, own_image: true, copy_of: None }).await
    }
}

impl Inner {
    async fn commit_container(
        &self,
        container: &str,
        mut labels: HashMap<String, String>,
        name: Option<&str>,
        pause: bool,
    ) -> Result<String> {
        let client = self.engine.client().await?;
        labels.insert(LABEL_INSTANCE.to_owned(), self.ground.instance.clone());
        let fork_of = if name.is_none() { self.ground.instance.clone() } else { String::new() };
        labels.insert(LABEL_FORK.to_owned(), fork_of);
        let repository = name.map(|name| format!("hostel/{name}"));
        let mut options = CommitContainerOptionsBuilder::default().container(container).pause(pause);
        if let Some(repository) = &repository {
            options = options.repo(repository).tag("latest");
        }
        // What the container was told to be is not what the image shall say: no entrypoint, no user.
        let config = ContainerConfig {
            labels: Some(labels),
            entrypoint: Some(Vec::new()),
            cmd: Some(Vec::new()),
            ..ContainerConfig::default()
        };
        let made = bounded(TRANSFER, client.commit_container(options.build(), config))
            .await
            .map_err(|fault| fault.during("make an image of a sandbox"))?;
        Ok(made.id)
    }

    /// Packs a directory of the host into a container that does not run, below a path of its root.
    async fn upload_directory(&self, container: &str, directory: &Path, below: &str) -> Result<()> {
        let (exclude, transform) = (format!("--exclude=./{SPILL}"), format!("--transform=s,^\\.,{below},S"));
        let options = ["--sparse", "--one-file-system", "--format=pax", &exclude, &transform, "--directory"];
        let arguments = options.into_iter().map(OsStr::new).chain([directory.as_os_str(), OsStr::new(".")]);
        let packer = Packer::start(arguments)?;
        let client = self.engine.client().await?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        // The engine does not tell why a source broke.
        let failed = Arc::new(Mutex::new(None));
        let body = bollard::body_try_stream(stream::unfold(Some((packer, Arc::clone(&failed))), next_piece));
        let sent = bounded(TRANSFER, client.upload_to_container(container, Some(options), body)).await;
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        sent.map_err(|fault| fault.during("put a disk's files into an image"))
    }
}

/// A packer, and where its failure is left.
type Packing = (Packer, Arc<Mutex<Option<Error>>>);

/// The next bytes of a packer; its failure is the stream's.
async fn next_piece(state: Option<Packing>) -> Option<(io::Result<Bytes>, Option<Packing>)> {
    let (mut packer, failed) = state?;
    match packer.next().await {
        Ok(piece) => piece.map(|piece| (Ok(piece), Some((packer, failed)))),
        Err(error) => {
            let text = io::Error::other(error.to_string());
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            Some((Err(text), None))
        }
    }
}

/// A guest whose silence is no sign of its end, for as long as the engine may freeze it.
struct Frozen<'a>(&'a Environment);

impl<'a> Frozen<'a> {
    fn new(environment: &'a Environment) -> Self {
        environment.set_frozen(true);
        Self(environment)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.set_frozen(false);
    }
}

/// A sandbox that is paused for a moment; whoever else wants to pause or resume it waits.
pub(crate) struct Still<'a> {
    environment: &'a Environment,
    /// Whether it is ours to resume.
    ours: bool,
    _turn: MutexGuard<'a, ()>,
}

impl Still<'_> {
    pub(crate) async fn release(mut self) {
        if std::mem::take(&mut self.ours)
            && let Err(error) = self.environment.set_engine_pause(false).await
        {
            tracing::error!(sandbox = %self.environment.id, %error, "a sandbox could not be resumed after a copy");
        }
    }
}

impl Drop for Still<'_> {
    /// Where whoever copied was dropped in the midst.
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let (inner, container) =
            (Arc::clone(&self.environment.inner), self.environment.handle.container.clone());
        let tasks = inner.tasks.clone();
        tasks.spawn(async move {
            if let Ok(client) = inner.engine.client().await {
                let _ = bounded(QUESTION, client.unpause_container(&container)).await;
            }
        });
    }
}

impl Environment {
    /// Freezes the sandbox for a copy, unless it is paused already.
    async fn hold_still(&self) -> Result<Still<'_>> {
        let turn = self.pausing.lock().await;
        let ours = !self.is_paused();
        let mut still = Still { environment: self, ours, _turn: turn };
        if ours {
            // One that was paused while the engine was away, or by others, stays so.
            still.ours = self.set_engine_pause(true).await?;
        }
        Ok(still)
    }
}
