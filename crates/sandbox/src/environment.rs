//! The contract between the daemon and a backend.
//!
//! **Ordering**: calls on one sandbox may come from many tasks at once; each is atomic with respect to the
//! state it reports. **Cancellation**: dropping the future of a call leaves the sandbox usable; a creation
//! that is dropped leaves nothing behind once [`Backend::settle`] returns. **Idempotency**: `destroy` of
//! what is gone succeeds. **Failure**: an error leaves things as they were unless its text says otherwise.
//! Whoever implements this passes `hostel-conformance`; what a backend cannot do it leaves out of
//! [`Capabilities`] and answers with [`crate::Error::CapabilityMissing`].

use crate::capability::{Capabilities, Weakness};
use crate::error::Result;
use crate::file::{ByteStream, Compression};
use crate::id::{BackendName, SandboxId, TemplateId};
use crate::inside::Inside;
use crate::limits::ResourceLimits;
use crate::spec::SandboxSpec;
use crate::stats::SandboxStats;
use crate::template::Template;
use async_trait::async_trait;
use bytes::Bytes;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long one step of a creation took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What it did: `cell`, `clone`, `guest`.
    pub name: &'static str,
    /// How long.
    pub duration: Duration,
}

/// Times the steps of a creation, one after another.
#[derive(Debug)]
pub struct Stopwatch {
    last: Instant,
    stages: Vec<Stage>,
}

impl Stopwatch {
    /// Starts the first step.
    #[must_use]
    pub fn start() -> Self {
        Self { last: Instant::now(), stages: Vec::with_capacity(4) }
    }

    /// Ends a step; the next one starts.
    pub fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.stages.push(Stage { name, duration: now - self.last });
        self.last = now;
    }

    /// The steps that have ended.
    #[must_use]
    pub fn stages(self) -> Vec<Stage> {
        self.stages
    }
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

/// A sandbox that was made ahead of time and has become somebody's.
pub struct Bound {
    /// What the backend needs to find it again from now on.
    pub handle: Bytes,
    /// The limits in force.
    pub limits: ResourceLimits,
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

    /// What it can do here. It changes only with what the backend stands on: once that is known (see [`Self::reach`]),
    /// and where a service comes back with other settings.
    fn capabilities(&self) -> Arc<Capabilities>;

    /// Finds out what [`Self::capabilities`] only guesses before it: where that depends on a service which was away
    /// when the daemon started. Nothing where it is known, or cannot be found out now.
    async fn reach(&self) {}

    /// The template of sandboxes whose creator names none.
    fn default_template(&self) -> &str {
        "host"
    }

    /// Why it cannot make sandboxes right now, where that will pass: an engine that is away, a service that does not
    /// answer. Sandboxes that are there may go on meanwhile.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// What is to be known about it although it can be used: what its place costs.
    fn remark(&self) -> Option<String> {
        None
    }

    /// Makes a sandbox and waits until commands can run in it. `spec` was validated and is resolved against
    /// the template. Limits that this host cannot hold are left out of [`Created::limits`] and told in
    /// [`Created::weaknesses`]; the caller has already refused where they were asked for.
    ///
    /// # Errors
    /// `NotFound` for a missing template, `CapabilityMissing`, `LimitReached`, `Unavailable`, `Internal`.
    async fn create(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created>;

    /// Waits, not for ever, until nothing is left of a creation that was dropped, and its id is free. Nothing where
    /// dropping it undoes it at once.
    async fn settle(&self, id: &SandboxId) {
        let _ = id;
    }

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

    /// What stands behind a template's name now, where that can become another without the template being made anew:
    /// the id of the image behind a tag. `None` where it cannot.
    ///
    /// # Errors
    /// `NotFound` where nothing stands behind it; `Unavailable` where that cannot be told now.
    async fn template_version(&self, id: &TemplateId) -> Result<Option<String>> {
        let _ = id;
        Ok(None)
    }

    /// Gives the template `made` another name, in place of the template that has it, if one has: in one step, so that
    /// there is always one of that name. Sandboxes, and templates that stand on the one before, keep their files.
    ///
    /// # Errors
    /// `NotFound` for `made`; `WrongState` where the other is built in or declared; `AlreadyExists` where something else
    /// has the name; `CapabilityMissing`.
    async fn replace_template(&self, made: &TemplateId, name: &TemplateId) -> Result<Template> {
        let detail = format!("{} cannot replace the template {name} by {made}", self.name());
        Err(crate::Error::missing(crate::Capability::TemplateImport, detail))
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

    /// Whether its processes stand back while those of other sandboxes want the processors, as those that are started
    /// ahead of time should. Nothing comes of it where a backend has no means for it.
    ///
    /// # Errors
    /// `Internal`.
    async fn stand_back(&self, _stands_back: bool) -> Result<()> {
        Ok(())
    }

    /// Whether these limits, which are others than it has, can be changed while it runs, as far as that is known without
    /// trying. Asked before [`Self::bind`], which is not undone where it fails.
    fn can_become(&self, changes: &ResourceLimits) -> bool {
        let _ = changes;
        true
    }

    /// Gives a sandbox that was made ahead of time, and in which nothing ran for anybody yet, what `spec` says of
    /// environment, user, directory and limits, over what it was made with. Limits that are absent stay. The rest of
    /// `spec` is what it was made with already. Not undone where it fails: the sandbox is then for nobody.
    ///
    /// # Errors
    /// `CapabilityMissing` for a limit that cannot be changed live; `Unavailable` where it does not answer.
    async fn bind(&self, spec: &SandboxSpec) -> Result<Bound>;

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

    /// A descriptor of its network namespace, in which there is nothing but loopback whatever the policy: what may be
    /// reached, the daemon decides with sockets of its own in there.
    ///
    /// # Errors
    /// `CapabilityMissing` where nothing but the policy `none` can be had; `Unavailable` where it is just ending.
    async fn network_namespace(&self) -> Result<OwnedFd> {
        let detail = "the network namespace of such a sandbox cannot be entered";
        Err(crate::Error::missing(crate::Capability::NetworkAllowlist, detail))
    }

    /// What can be done inside it.
    ///
    /// # Errors
    /// `WrongState` while it is paused.
    fn inside(&self) -> Result<&dyn Inside>;
}
