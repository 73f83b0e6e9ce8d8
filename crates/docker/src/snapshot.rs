//! Snapshots and forks: of a container's root by the engine's commit, of a disk of ours by copying it while nothing
//! runs.

use crate::backend::Inner;
use crate::container::LABEL_INSTANCE;
use crate::create::Recipe;
use crate::disk::{self, SPILL};
use crate::engine::{QUESTION, TRANSFER, bounded};
use crate::environment::Environment;
use crate::image::Image;
use crate::seeds::{LABEL_SEEDS, SEEDS_INSIDE};
use crate::template::{self, LABEL_TEMPLATE};
use crate::tools::{self, Packer};
use bollard::models::ContainerConfig;
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, InspectContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
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
/// Tries to freeze a sandbox for a copy.
const FREEZES: u32 = 5;

/// Copies everything of one disk into another, empty one. Links are copied, never followed. Ends with the daemon, by way
/// of the guest's executable: else it would go on writing to a disk that the next daemon removes.
///
/// # Errors
/// `LimitReached` for a disk too small; `Internal`.
pub(crate) async fn copy_disk(guest: &Path, from: &Path, to: &Path) -> Result<()> {
    let mut copy = tools::command(&guest.display().to_string());
    copy.args(["tied", &std::process::id().to_string(), "cp"])
        .args(["--archive", "--one-file-system", "--reflink=auto", "--no-target-directory", "--"])
        .arg(from.join("."))
        .arg(to);
    tools::finish("cp", &mut copy, TRANSFER).await
}

impl Environment {
    /// Makes an image of the files as they are, with labels; a name where it is for others.
    async fn commit(&self, labels: HashMap<String, String>, name: Option<&str>) -> Result<String> {
        if !self.handle.disk.has_places() {
            let _frozen = Frozen::new(self);
            let still = self.hold_still().await?;
            let made = self.commit_root(labels, name).await;
            still.release().await;
            return made;
        }
        // The root never changed: the same image, with the disk's files kept apart in it.
        let helper = self.inner.make_helper(&self.handle.image).await?;
        self.commit_disk(&helper.container, labels, name).await
    }

    /// Of a container that does nothing meanwhile.
    async fn commit_root(&self, labels: HashMap<String, String>, name: Option<&str>) -> Result<String> {
        if let Some(bytes) = self.handle.limits.disk_bytes {
            let image = Image::look_up(&self.inner.engine, &self.handle.image).await?;
            // A file of the image that was changed in part counts as a whole.
            let most = bytes.saturating_mul(2).saturating_add(image.bytes);
            self.inner.must_fit(&self.handle.container, most).await?;
        }
        self.inner.commit_container(&self.handle.container, labels, name).await
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
        let most = disk::archive_bytes(&self.handle.limits);
        let sent = self.inner.upload_directory(helper, &disk, below.trim_start_matches('/'), most).await;
        still.release().await;
        sent?;
        labels.insert(LABEL_SEEDS.to_owned(), below);
        self.inner.commit_container(helper, labels, name).await
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
    /// Fails where a container's own files are longer than `most` bytes: the engine writes them to its disk with every
    /// hole that they have.
    async fn must_fit(&self, container: &str, most: u64) -> Result<()> {
        let client = self.engine.client().await?;
        let options = InspectContainerOptionsBuilder::default().size(true).build();
        let found = bounded(TRANSFER, client.inspect_container(container, Some(options)))
            .await
            .map_err(|fault| fault.during("look how large a sandbox is"))?;
        let bytes = found.size_rw.and_then(|bytes| u64::try_from(bytes).ok());
        if bytes.is_some_and(|bytes| bytes > most) { Err(too_long()) } else { Ok(()) }
    }

    /// Makes an image of a container that nothing changes meanwhile.
    async fn commit_container(
        &self,
        container: &str,
        mut labels: HashMap<String, String>,
        name: Option<&str>,
    ) -> Result<String> {
        let client = self.engine.client().await?;
        labels.insert(LABEL_INSTANCE.to_owned(), self.ground.instance.clone());
        let fork_of = if name.is_none() { self.ground.instance.clone() } else { String::new() };
        labels.insert(LABEL_FORK.to_owned(), fork_of);
        let repository = name.map(|name| format!("hostel/{name}"));
        let mut options = CommitContainerOptionsBuilder::default().container(container).pause(false);
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

    /// Packs a directory of the host into a container that does not run, below a path of its root: no more than `most`
    /// bytes, for the engine writes every hole of a sparse file to its disk.
    async fn upload_directory(
        &self,
        container: &str,
        directory: &Path,
        below: &str,
        most: u64,
    ) -> Result<()> {
        let (exclude, transform) = (format!("--exclude=./{SPILL}"), format!("--transform=s,^\\.,{below},S"));
        let options = ["--one-file-system", "--format=pax", &exclude, &transform, "--directory"];
        let arguments = options.into_iter().map(OsStr::new).chain([directory.as_os_str(), OsStr::new(".")]);
        let packer = Packer::start(arguments)?;
        let client = self.engine.client().await?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        // The engine does not tell why a source broke.
        let failed = Arc::new(Mutex::new(None));
        let packing = Packing { packer, left: most, failed: Arc::clone(&failed) };
        let body = bollard::body_try_stream(stream::unfold(Some(packing), next_piece));
        let sent = bounded(TRANSFER, client.upload_to_container(container, Some(options), body)).await;
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        sent.map_err(|fault| fault.during("put a disk's files into an image"))
    }
}

fn too_long() -> Error {
    let detail = "its files are longer than its disk is large; sparse ones cannot be snapshotted";
    Error::LimitReached { what: "disk", detail: detail.to_owned() }
}

/// An archive on its way to the engine.
struct Packing {
    packer: Packer,
    /// Bytes that may still come.
    left: u64,
    /// Where its failure is left.
    failed: Arc<Mutex<Option<Error>>>,
}

impl Packing {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(piece) = self.packer.next().await? else { return Ok(None) };
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(length).ok_or_else(too_long)?;
        Ok(Some(piece))
    }
}

/// The next bytes of a packer; its failure is the stream's.
async fn next_piece(state: Option<Packing>) -> Option<(io::Result<Bytes>, Option<Packing>)> {
    let mut packing = state?;
    match packing.next().await {
        Ok(piece) => piece.map(|piece| (Ok(piece), Some(packing))),
        Err(error) => {
            let text = io::Error::other(error.to_string());
            *packing.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
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
            still.ours = self.freeze().await?;
        }
        Ok(still)
    }

    /// Processes that wait for a busy disk may not be frozen in one try (control groups of version 1). → whether that
    /// changed anything.
    async fn freeze(&self) -> Result<bool> {
        for _ in 1..FREEZES {
            match self.set_engine_pause(true).await {
                Err(Error::Internal { .. }) => {}
                done => return done,
            }
        }
        self.set_engine_pause(true).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    async fn pack(directory: &Path, most: u64) -> (usize, Option<Error>) {
        let packer =
            Packer::start([OsStr::new("--directory"), directory.as_os_str(), OsStr::new(".")]).unwrap();
        let failed = Arc::new(Mutex::new(None));
        let packing = Packing { packer, left: most, failed: Arc::clone(&failed) };
        let pieces = stream::unfold(Some(packing), next_piece);
        let sent = pieces.map(|piece| piece.map_or(0, |piece| piece.len()));
        let sent = sent.fold(0, |sum, length| std::future::ready(sum + length)).await;
        (sent, failed.lock().unwrap().take())
    }

    #[tokio::test]
    async fn a_sparse_file_does_not_become_more_than_a_disk_holds() {
        let home = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(home.path().join("file")).unwrap();
        file.set_len(1 << 20).unwrap();
        let (sent, failed) = pack(home.path(), 2 << 20).await;
        assert!(sent > 1 << 20 && failed.is_none(), "{failed:?}");
        file.set_len(1 << 34).unwrap();
        let (sent, failed) = pack(home.path(), 2 << 20).await;
        assert!(sent <= 2 << 20, "{sent}");
        assert!(matches!(failed, Some(Error::LimitReached { what: "disk", .. })), "{failed:?}");
    }
}
