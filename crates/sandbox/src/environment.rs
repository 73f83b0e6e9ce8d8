//! The contract between the daemon and a backend.
//!
//! **Ordering**: calls on one sandbox may come from many tasks at once; each is atomic with respect to the
//! state it reports. **Cancellation**: dropping the future of a call leaves the sandbox usable; a creation
//! that is dropped leaves nothing behind. **Idempotency**: `destroy` of what is gone succeeds. **Failure**:
//! an error leaves things as they were unless its text says otherwise. Whoever implements this passes
//! `hostel-conformance`; what a backend cannot do it leaves out of [`Capabilities`] and answers with
//! [`crate::Error::CapabilityMissing`].

use crate::capability::{Capabilities, Weakness};
use crate::error::Result;
use crate::file::{ByteStream, Compression, FileEvent, FileInfo, WriteOptions};
use crate::id::{BackendName, ProcessId, SandboxId, TemplateId};
use crate::limits::ResourceLimits;
use crate::process::{AttachOptions, Attachment, ExitStatus, ProcessInfo, ProcessSpec, TerminalSize};
use crate::spec::SandboxSpec;
use crate::stats::SandboxStats;
use crate::template::Template;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long one step of a creation took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What it did: `storage`, `clone`, `guest`.
    pub name: &'static str,
    /// How long.
    pub duration: Duration,
}

/// A sandbox that was just made and is ready.
pub struct Created {
    /// The live sandbox.
    pub environment: Arc<dyn ExecutionEnvironment>,
    /// What the backend needs to find it again after a restart of the daemon; opaque to everyone else.
    pub handle: Bytes,
    /// The limits in force.
    pub limits: ResourceLimits,
    /// What is weaker here than the design wants.
    pub weaknesses: Vec<Weakness>,
    /// Where the time went, in order.
    pub stages: Vec<Stage>,
}

/// Something that happened to a sandbox by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendEvent {
    /// It is gone: its supervisor died, somebody removed the container, the remote service ended it.
    Died {
        /// Which.
        sandbox: SandboxId,
        /// Stable word for the transition's reason: `guest_died`, `out_of_memory`, `removed`.
        reason: String,
    },
}

/// Makes sandboxes of one kind on this host.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Its name in the API.
    fn name(&self) -> BackendName;

    /// What it can do here; fixed while the daemon runs.
    fn capabilities(&self) -> &Capabilities;

    /// The template of sandboxes whose creator names none.
    fn default_template(&self) -> &str {
        "host"
    }

    /// Why it cannot make sandboxes right now, where that will pass: an engine that is away, a service that does not
    /// answer. Sandboxes that are there may go on meanwhile.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Makes a sandbox and waits until commands can run in it. `spec` was validated and is resolved against
    /// the template. Limits that this host cannot hold are left out of [`Created::limits`] and told in
    /// [`Created::weaknesses`]; the caller has already refused where they were asked for.
    ///
    /// # Errors
    /// `NotFound` for a missing template, `CapabilityMissing`, `LimitReached`, `Unavailable`, `Internal`.
    async fn create(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created>;

    /// Takes back a sandbox from before a restart.
    ///
    /// # Errors
    /// `NotFound` where it is gone (what was left of it is removed).
    async fn adopt(&self, id: &SandboxId, handle: &Bytes) -> Result<Arc<dyn ExecutionEnvironment>>;

    /// Removes everything of ours on this host that belongs to no sandbox adopted or created by this process:
    /// half-made sandboxes, leftovers of killed daemons. Called once, after the adoptions.
    ///
    /// # Errors
    /// `Internal` where something could not be removed; it is tried again at the next start.
    async fn remove_orphans(&self) -> Result<usize>;

    /// What happens to sandboxes by themselves. Can be taken once.
    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>>;

    /// The templates it has.
    ///
    /// # Errors
    /// `Internal` where they cannot be read.
    async fn templates(&self) -> Result<Vec<Template>>;

    /// Imports a root file system from a tar archive.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidArgument` for an archive that is broken or hostile, `CapabilityMissing`.
    async fn import_template(
        &self,
        template: Template,
        archive: ByteStream,
        compression: Compression,
    ) -> Result<Template>;

    /// Imports a root file system from a directory of the host.
    ///
    /// # Errors
    /// As [`Self::import_template`].
    async fn import_template_directory(
        &self,
        template: Template,
        directory: &std::path::Path,
    ) -> Result<Template>;

    /// Makes a template of the configuration known until the daemon ends; declaring it again replaces it. It has
    /// no files of its own: its source says whose it has.
    ///
    /// # Errors
    /// `NotFound` for the template below; `AlreadyExists` where one of that name was made otherwise;
    /// `CapabilityMissing` where the backend has no such source.
    async fn declare_template(&self, template: Template) -> Result<Template> {
        let detail = format!("{} cannot make templates of this source", self.name());
        Err(crate::Error::missing(crate::Capability::TemplateImport, format!("{}: {detail}", template.id)))
    }

    /// Removes a template. Sandboxes made from it keep working.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` where another template or a sandbox stands on it and the backend cannot let go.
    async fn delete_template(&self, id: &TemplateId) -> Result<()>;

    /// Lets go of helpers and descriptors. Sandboxes keep running and can be adopted by the next daemon.
    async fn shutdown(&self);
}

/// One live sandbox.
#[async_trait]
pub trait ExecutionEnvironment: Send + Sync {
    /// Its id.
    fn id(&self) -> &SandboxId;

    // ── life ────────────────────────────────────────────────────────────────────────────────────────────

    /// Ends every process and removes everything. Succeeds where it is gone already.
    ///
    /// # Errors
    /// `Internal` where something could not be removed; calling again continues.
    async fn destroy(&self) -> Result<()>;

    /// Freezes every process. # Errors: `CapabilityMissing`, `Internal`.
    async fn pause(&self) -> Result<()>;

    /// Thaws. # Errors: `CapabilityMissing`, `Internal`.
    async fn resume(&self) -> Result<()>;

    /// Changes limits while it runs; what is `None` stays.
    ///
    /// # Errors
    /// `CapabilityMissing` for a limit that cannot be held or not be changed live.
    async fn update_limits(&self, limits: &ResourceLimits) -> Result<ResourceLimits>;

    /// Makes a template from its files as they are now.
    ///
    /// # Errors
    /// `AlreadyExists`, `CapabilityMissing`.
    async fn snapshot(&self, template: Template) -> Result<Template>;

    /// Makes a new sandbox whose files are a copy-on-write copy of this one's. Processes are not copied.
    ///
    /// # Errors
    /// As [`Backend::create`].
    async fn fork(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created>;

    /// Reads usage. # Errors: `CapabilityMissing`, `Internal`.
    async fn stats(&self) -> Result<SandboxStats>;

    // ── processes ───────────────────────────────────────────────────────────────────────────────────────

    /// Starts a process.
    ///
    /// # Errors
    /// `NotFound` (`program`) for a program that is not there; `InvalidArgument` for a user, a directory or a
    /// program that cannot be run; `AlreadyExists` for its id;
    /// `WrongState` while paused; `LimitReached`.
    async fn start(&self, spec: ProcessSpec) -> Result<ProcessInfo>;

    /// Attaches to a process, running or ended. # Errors: `NotFound`; `WrongState` (`STDIN_HELD`).
    async fn attach(&self, process: &ProcessId, options: AttachOptions) -> Result<Attachment>;

    /// Starts and attaches in one step, so that nothing is missed and a round trip is saved.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Self::attach`].
    async fn exec(&self, spec: ProcessSpec, options: AttachOptions) -> Result<Attachment> {
        let process = self.start(spec).await?;
        self.attach(&process.id, options).await
    }

    /// The processes, running and lately ended, oldest first. # Errors: `Unavailable`.
    async fn processes(&self) -> Result<Vec<ProcessInfo>>;

    /// One process. # Errors: `NotFound`.
    async fn process(&self, process: &ProcessId) -> Result<ProcessInfo>;

    /// Sends a signal, 1 to 64, to the process group. # Errors: `NotFound`; `WrongState` once it ended.
    async fn signal(&self, process: &ProcessId, signal: i32) -> Result<()>;

    /// Gives the terminal a new size. # Errors: `NotFound`; `WrongState` without a terminal.
    async fn resize(&self, process: &ProcessId, size: TerminalSize) -> Result<()>;

    /// Waits for the end. # Errors: `NotFound`.
    async fn wait(&self, process: &ProcessId) -> Result<ExitStatus>;

    // ── files ───────────────────────────────────────────────────────────────────────────────────────────

    /// Metadata. With `follow` of what a link points at. # Errors: `NotFound`.
    async fn stat(&self, path: &str, follow: bool) -> Result<FileInfo>;

    /// Entries of a directory, sorted by name, after `after` and at most `limit`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where it is no directory.
    async fn list(&self, path: &str, after: Option<&str>, limit: usize) -> Result<Vec<FileInfo>>;

    /// Bytes of a regular file from `offset`, at most `length`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where it is not a regular file.
    async fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<(FileInfo, ByteStream)>;

    /// Writes a regular file. An `Err` in the stream gives up and leaves the old content.
    ///
    /// # Errors
    /// `NotFound` for a missing parent; `AlreadyExists`; `LimitReached` (`disk`).
    async fn write(&self, path: &str, options: WriteOptions, content: ByteStream) -> Result<FileInfo>;

    /// Makes a directory. # Errors: `AlreadyExists` (not with `parents`); `NotFound` for a missing parent.
    async fn make_directory(&self, path: &str, parents: bool, mode: Option<u32>) -> Result<FileInfo>;

    /// Moves within the sandbox (rename(2)). # Errors: `NotFound`; `AlreadyExists` unless `overwrite`.
    async fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<FileInfo>;

    /// Removes. # Errors: `NotFound`; `WrongState` (`DIRECTORY_NOT_EMPTY`) unless `recursive`.
    async fn remove(&self, path: &str, recursive: bool) -> Result<()>;

    /// Changes below a path from now on. Ends when the receiver is dropped. # Errors: `NotFound`.
    async fn watch(&self, path: &str, recursive: bool) -> Result<mpsc::Receiver<Result<FileEvent>>>;

    /// Unpacks a tar archive into a directory, which is made if absent. Unpacking happens inside the sandbox.
    ///
    /// # Errors
    /// `InvalidArgument` for a broken archive; `LimitReached` (`disk`). What was unpacked stays.
    async fn import(&self, path: &str, compression: Compression, archive: ByteStream) -> Result<u64>;

    /// Packs a file or directory as tar, names relative to its parent. # Errors: `NotFound`.
    async fn export(&self, path: &str, compression: Compression) -> Result<ByteStream>;
}
