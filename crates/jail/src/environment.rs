//! One jail, live. Processes and files go to its guest; the rest is done from outside.

use crate::backend::Inner;
use crate::cell::Cell;
use crate::handle::Handle;
use crate::reaper;
use crate::shortage::{LOOK, Shortage};
use crate::template::Recipe;
use async_trait::async_trait;
use hostel_guest_client::{Guest, ProcessDefaults};
use hostel_guest_protocol::GuestConfig;
use hostel_sandbox::stats::SandboxStats;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{
    BackendEvent, Bound, Capability, Created, Error, ExecutionEnvironment, Inside, ResourceLimits, Result,
    SandboxId, SandboxSpec,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// How long to wait before a guest that did not answer is asked again.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);

/// A live jail.
pub(crate) struct Environment {
    id: SandboxId,
    inner: Arc<Inner>,
    guest: Guest,
    /// Its first process.
    first: Arc<AsyncFd<OwnedFd>>,
    cell: Cell,
    handle: Handle,
    limits: Mutex<ResourceLimits>,
    defaults: Mutex<ProcessDefaults>,
    frozen: Arc<AtomicBool>,
    /// Its processes have less than their share of the processors.
    stands_back: AtomicBool,
    /// Set once it is being taken down, so that its death is no news.
    ending: CancellationToken,
    buried: AtomicBool,
}

impl Environment {
    /// Takes a jail whose guest is there, and watches over its first process. So many of its processes the kernel had
    /// ended for memory until then.
    pub(crate) fn new(
        id: SandboxId,
        inner: Arc<Inner>,
        guest: Guest,
        first: OwnedFd,
        handle: Handle,
        oom_kills: u64,
    ) -> Result<Arc<Self>> {
        let cell = handle.cell();
        let frozen = inner.ground.cgroups.as_ref().is_some_and(|cgroups| cgroups.is_frozen(&cell.name));
        let environment = Arc::new(Self {
            id,
            guest,
            first: Arc::new(reaper::watched(first)?),
            limits: Mutex::new(handle.limits.clone()),
            defaults: Mutex::new(handle.defaults.clone()),
            frozen: Arc::new(AtomicBool::new(frozen)),
            stands_back: AtomicBool::new(false),
            ending: CancellationToken::new(),
            buried: AtomicBool::new(false),
            inner,
            cell,
            handle,
        });
        environment.watch_over(Shortage::since(oom_kills));
        Ok(environment)
    }

    /// Looks whether it was told to stand back before this daemon was.
    pub(crate) fn recall_share(&self) {
        let light =
            self.inner.ground.cgroups.as_ref().is_some_and(|cgroups| cgroups.is_light(&self.cell.name));
        self.stands_back.store(light, Ordering::Release);
    }

    /// Whether it is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    fn watch_over(&self, mut shortage: Shortage) {
        let first = self.first.clone();
        let (ending, stop) = (self.ending.clone(), self.inner.stop.clone());
        let (deaths, sandbox) = (self.inner.deaths.clone(), self.id.clone());
        let (inner, cell) = (self.inner.clone(), self.cell.name.clone());
        self.inner.tasks.spawn(async move {
            let oom_kills = || inner.ground.oom_kills(&cell);
            loop {
                tokio::select! {
                    biased;
                    () = ending.cancelled() => return,
                    () = stop.cancelled() => return,
                    _ = first.readable() => break,
                    () = tokio::time::sleep(LOOK) => shortage.look(oom_kills()),
                }
            }
            // The guest is the last that the kernel ends where memory is short; nobody else could say why.
            let short = shortage.is_new(oom_kills());
            let reason = if short { "out_of_memory" } else { "guest_died" }.to_owned();
            let _ = deaths.send(BackendEvent::Died { sandbox, reason }).await;
        });
    }

    /// Asks the guest again, each time for so long, until it answers or ends, and says so.
    pub(crate) fn ask_until_it_answers(&self, patience: Duration) {
        let (first, guest, sandbox) = (self.first.clone(), self.guest.clone(), self.id.clone());
        let (ending, stop) = (self.ending.clone(), self.inner.stop.clone());
        let begin = Instant::now();
        let asked = async move {
            while guest.ping(patience).await.is_err() {
                tokio::time::sleep(BETWEEN_QUESTIONS).await;
            }
            tracing::info!(%sandbox, silence = ?begin.elapsed(), "a guest that was silent answers again");
        };
        self.inner.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = ending.cancelled() => {}
                () = stop.cancelled() => {}
                _ = first.readable() => {}
                () = asked => {}
            }
        });
    }

    /// Whether its first process, and all of it with that, has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let mut ended = [PollFd::new(&*self.first, PollFlags::IN)];
        rustix::event::poll(&mut ended, Some(&Timespec::default())) != Ok(0)
    }

    fn guest(&self) -> Result<&Guest> {
        if self.is_frozen() {
            return Err(Error::wrong_state("SANDBOX_STATE", "the sandbox is paused; resume it first"));
        }
        Ok(&self.guest)
    }

    async fn set_frozen(&self, frozen: bool) -> Result<()> {
        self.inner.capabilities.require(Capability::Pause)?;
        let (inner, cell, flag) = (self.inner.clone(), self.cell.clone(), self.frozen.clone());
        // The kernel says when it is so only to those who ask again, for seconds where a process does not stop.
        blocking("freeze", move || {
            let Some(cgroups) = &inner.ground.cgroups else { return Ok(()) };
            cgroups.freeze(&cell.name, frozen)?;
            flag.store(frozen, Ordering::Release);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl ExecutionEnvironment for Environment {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    async fn destroy(&self) -> Result<()> {
        self.ending.cancel();
        if self.buried.load(Ordering::Acquire) {
            return Ok(());
        }
        let dead = self.inner.reaper.kill(&self.cell, &self.first).await;
        self.guest.close().await;
        if !dead {
            return Err(Error::DeadlineExceeded { what: format!("killing the processes of {}", self.id) });
        }
        // Not before: whoever was dropped while it waited buried nothing.
        if !self.buried.swap(true, Ordering::AcqRel) {
            self.inner.bury(self.cell.clone());
            // While jails of the last daemon are being taken back it is not known what they stand on.
            if self.inner.has_adopted.load(Ordering::Acquire) && self.inner.templates.has_replaced() {
                self.inner.tasks.spawn(self.inner.clone().remove_replaced());
            }
        }
        Ok(())
    }

    async fn pause(&self) -> Result<()> {
        self.set_frozen(true).await
    }

    async fn resume(&self) -> Result<()> {
        self.set_frozen(false).await
    }

    async fn update_limits(&self, limits: &ResourceLimits) -> Result<ResourceLimits> {
        let current = self.limits.lock().map(|limits| limits.clone()).unwrap_or_default();
        if limits.disk_inodes.is_some() && limits.disk_inodes != current.disk_inodes {
            return Err(Error::missing(
                Capability::InodeLimit,
                "a limit on inodes cannot change while the sandbox runs",
            ));
        }
        if limits.pids.is_some() && limits.pids != current.pids && self.inner.ground.cgroups.is_none() {
            return Err(Error::missing(
                Capability::PidsLimit,
                "the limit on processes cannot change while the sandbox runs: there are no control groups",
            ));
        }
        let changed = limits.or(&current);
        let tells = limits.open_files.is_some() || limits.output_bytes_per_second.is_some();
        // Before anything is changed: it refuses while it is frozen.
        let guest = if tells { Some(self.guest()?) } else { None };
        let done = async {
            self.hold(limits, &current).await?;
            match guest {
                Some(guest) => guest.configure(self.guest_config(&self.defaults(), &changed)).await,
                None => Ok(()),
            }
        };
        if let Err(error) = done.await {
            // All of it, or nothing.
            if let Err(error) = self.hold(&current.changes_to(&changed), &changed).await {
                tracing::warn!(sandbox = %self.id, %error, "limits that were changed in part could not be put back");
            }
            return Err(error);
        }
        if let Ok(mut kept) = self.limits.lock() {
            kept.clone_from(&changed);
        }
        Ok(changed)
    }

    async fn stand_back(&self, stands_back: bool) -> Result<()> {
        let Some(cgroups) = &self.inner.ground.cgroups else { return Ok(()) };
        if self.stands_back.swap(stands_back, Ordering::AcqRel) != stands_back {
            cgroups.weigh(&self.cell.name, !stands_back)?;
        }
        Ok(())
    }

    fn can_become(&self, changes: &ResourceLimits) -> bool {
        let current = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        // With less memory it may be refused for what is in use; and what is shared or a file in memory keeps the
        // bounds that it was born with, which were made for more: whoever fills it loses the guest.
        let shrinks = changes.take_memory_from(&current);
        // The others are refused by [`Self::update_limits`].
        !shrinks
            && changes.disk_inodes.is_none()
            && (changes.pids.is_none() || self.inner.ground.cgroups.is_some())
    }

    async fn bind(&self, spec: &SandboxSpec) -> Result<Bound> {
        let limits = self.update_limits(&spec.limits).await?;
        let defaults = self.defaults();
        let bound = defaults.with(spec);
        if bound != defaults {
            self.guest()?.configure(self.guest_config(&bound, &limits)).await?;
            self.defaults.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&bound);
        }
        let handle = Handle { limits: limits.clone(), defaults: bound, ..self.handle.clone() };
        Ok(Bound { handle: handle.encode()?, limits })
    }

    async fn snapshot(&self, mut template: Template) -> Result<Template> {
        pool(&self.inner, &self.cell, Capability::Snapshot)?;
        self.inner.templates.reserve(&template.id)?;
        let (base, sandbox) = (self.handle.template.clone(), Some(self.handle.sandbox.clone()));
        template.source = match template.source {
            TemplateSource::Built { .. } => TemplateSource::Built { base },
            _ => TemplateSource::Snapshot { base, sandbox },
        };
        let defaults = self.defaults();
        template.user = template.user.or_else(|| Some(defaults.user).filter(|user| !user.is_empty()));
        template.workdir = template.workdir.or(Some(defaults.workdir));
        let recipe = Recipe { template, layers: self.handle.layers.clone(), host_usr: self.handle.host_usr };
        let (inner, cell) = (self.inner.clone(), self.cell.clone());
        // What is still in memory, of all cells, is written first.
        blocking("snapshot", move || take_layer(&inner, &cell, recipe)).await
    }

    async fn fork(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created> {
        pool(&self.inner, &self.cell, Capability::Fork)?;
        let mut template = Template::new(self.handle.template.clone(), TemplateSource::Imported);
        let defaults = self.defaults();
        template.env = defaults.env;
        template.user = Some(defaults.user);
        template.workdir = Some(defaults.workdir);
        let recipe = Recipe { template, layers: self.handle.layers.clone(), host_usr: self.handle.host_usr };
        self.inner.create(id, spec, recipe, Some(self.cell.name.clone())).await
    }

    async fn stats(&self) -> Result<SandboxStats> {
        let (inner, cell, pid) = (self.inner.clone(), self.cell.clone(), self.handle.pid);
        blocking("read usage", move || Ok(read_stats(&inner, &cell, pid))).await
    }

    async fn network_namespace(&self) -> Result<OwnedFd> {
        self.inner.capabilities.require(Capability::NetworkAllowlist)?;
        let path = format!("/proc/{}/ns/net", self.handle.pid);
        let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        // Its first process still lives, so that the number was its own when it was looked at.
        let lives = !self.has_ended();
        match opened {
            Ok(namespace) if lives => Ok(namespace),
            Err(errno) if lives => Err(Error::internal("open a network namespace", errno)),
            _ => Err(Error::Unavailable { what: "guest", detail: "the sandbox has ended".to_owned() }),
        }
    }

    fn inside(&self) -> Result<&dyn Inside> {
        Ok(self.guest()?)
    }
}

impl Environment {
    fn defaults(&self) -> ProcessDefaults {
        self.defaults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the kernel hold limits. For some it may have to take memory back first, or to write to the disk.
    async fn hold(&self, limits: &ResourceLimits, current: &ResourceLimits) -> Result<()> {
        let (inner, cell, limits) = (self.inner.clone(), self.cell.clone(), limits.clone());
        // Files in memory keep the size that they were made with.
        let disk = limits.disk_bytes.filter(|bytes| cell.on_disk || Some(*bytes) != current.disk_bytes);
        let waits = limits.memory_bytes.is_some() || disk.is_some();
        let hold = move || {
            if let Some(cgroups) = &inner.ground.cgroups {
                cgroups.limit(&cell.name, &limits)?;
            }
            match disk {
                Some(bytes) => pool(&inner, &cell, Capability::DiskLimit)?.limit(&cell.name, bytes),
                None => Ok(()),
            }
        };
        if waits { blocking("change limits", hold).await } else { hold() }
    }

    fn guest_config(&self, defaults: &ProcessDefaults, limits: &ResourceLimits) -> GuestConfig {
        crate::create::base_config(defaults, limits, self.cell.range.is_some())
    }
}

/// Does what may take a while on a thread that nobody else waits for. It goes on where the caller does not.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Error::internal(what, panic)).and_then(|done| done)
}

/// The pool, where this jail's files are in it.
fn pool<'a>(inner: &'a Inner, cell: &Cell, capability: Capability) -> Result<&'a crate::storage::Pool> {
    inner.capabilities.require(capability)?;
    match &inner.ground.pool {
        Some(pool) if cell.on_disk => Ok(pool),
        _ => Err(Error::missing(
            capability,
            "the files of this sandbox are in memory, because it has a limit on inodes",
        )),
    }
}

/// Makes a template, whose name is reserved, of what a cell has written: its layer on top of those in the recipe.
fn take_layer(inner: &Inner, cell: &Cell, mut recipe: Recipe) -> Result<Template> {
    let pool = pool(inner, cell, Capability::Snapshot)?;
    let id = recipe.template.id.clone();
    recipe.template.size_bytes = pool.used(&cell.name);
    let added = pool.freeze_layer(&cell.name, id.as_str()).and_then(|layer| {
        recipe.layers.insert(0, format!("cells/{layer}/upper"));
        inner.templates.add(recipe)
    });
    if added.is_err() {
        inner.templates.give_up(&id);
        let _ = pool.destroy(&format!("template-{id}"));
    }
    added
}

/// Reads files of the kernel, and of the pool, which may have to be written first.
fn read_stats(inner: &Inner, cell: &Cell, first: u32) -> SandboxStats {
    let mut stats = SandboxStats::unknown();
    if let Some(cgroups) = &inner.ground.cgroups {
        cgroups.read_usage(&cell.name, &mut stats);
    }
    if let (Some(pool), true) = (&inner.ground.pool, cell.on_disk) {
        stats.disk_bytes = pool.used(&cell.name);
    } else if let Ok(disk) = rustix::fs::statvfs(format!("/proc/{first}/root")) {
        stats.disk_bytes = Some((disk.f_blocks - disk.f_bfree) * disk.f_frsize);
        stats.disk_inodes = Some(disk.f_files - disk.f_ffree);
    }
    stats
}
