//! One container, live. Processes and files go to its guest; the rest is the engine's.

use crate::backend::Inner;
use crate::create::base_config;
use crate::engine::{Fault, QUESTION, WORK, bounded};
use crate::handle::Handle;
use crate::namespace;
use crate::pause::Pause;
use crate::removal::Removal;
use crate::stats;
use async_trait::async_trait;
use bollard::models::{ContainerStatsResponse, ContainerUpdateBody};
use bollard::query_parameters::StatsOptionsBuilder;
use futures::StreamExt as _;
use hostel_guest_client::{Guest, ProcessDefaults};
use hostel_sandbox::stats::SandboxStats;
use hostel_sandbox::template::Template;
use hostel_sandbox::{
    Bound, Capability, Created, Error, ExecutionEnvironment, Files as _, Inside, ResourceLimits, Result,
    SandboxId, SandboxSpec,
};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a container sees its own control group, version 1 or 2.
const OOM_COUNTERS: [&str; 2] = ["/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events"];

/// A live container.
pub(crate) struct Environment {
    pub(crate) id: SandboxId,
    pub(crate) inner: Arc<Inner>,
    pub(crate) handle: Handle,
    guest: Guest,
    limits: Mutex<ResourceLimits>,
    defaults: Mutex<ProcessDefaults>,
    pub(crate) pause: Arc<Pause>,
    gone: Arc<tokio::sync::Mutex<bool>>,
}

impl Environment {
    /// Takes a container whose guest is there; `None` where nobody knows whether it is paused.
    pub(crate) fn start(inner: Arc<Inner>, guest: Guest, handle: Handle, paused: Option<bool>) -> Arc<Self> {
        let pause = Arc::new(Pause::new(paused));
        inner.live(&handle, &pause);
        guest.set_frozen(pause.is_paused());
        Arc::new(Self {
            id: handle.sandbox.clone(),
            guest,
            limits: Mutex::new(handle.limits.clone()),
            defaults: Mutex::new(handle.defaults.clone()),
            pause,
            gone: Arc::default(),
            inner,
            handle,
        })
    }

    /// What its processes get unless they say otherwise.
    pub(crate) fn defaults(&self) -> ProcessDefaults {
        self.defaults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_paused()
    }

    /// Freezes or thaws, whatever it is now. → whether that changed anything.
    pub(crate) async fn set_engine_pause(&self, paused: bool) -> Result<bool> {
        let client = self.inner.engine.client().await?;
        let container = &self.handle.container;
        let done = if paused {
            bounded(WORK, client.pause_container(container)).await
        } else {
            bounded(WORK, client.unpause_container(container)).await
        };
        match done {
            // It is what was asked for.
            Err(Fault::Answer { message, .. }) if message.contains("already paused") => Ok(false),
            Err(fault) if fault.is_not_paused() => Ok(false),
            done => {
                done.map(|()| true).map_err(|fault| fault.during(if paused { "pause" } else { "resume" }))
            }
        }
    }

    /// Says that the engine freezes the container for a while, beside any pause.
    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.guest.set_frozen(frozen || self.is_paused());
    }

    fn guest(&self) -> Result<&Guest> {
        if self.is_paused() {
            return Err(Error::wrong_state("SANDBOX_STATE", "the sandbox is paused; resume it first"));
        }
        Ok(&self.guest)
    }

    async fn set_paused(&self, paused: bool) -> Result<()> {
        let _turn = self.pause.turn.lock().await;
        if let Err(error) = self.set_engine_pause(paused).await {
            if paused {
                self.pause.failed_to_pause();
            }
            return Err(error);
        }
        self.guest.set_frozen(paused);
        self.pause.set_paused(paused);
        Ok(())
    }

    /// Kills for want of memory, as the container's own control group counts them.
    async fn oom_kills(&self) -> Option<u64> {
        let guest = self.guest().ok()?;
        for file in OOM_COUNTERS {
            let Ok(Ok((_, mut content))) =
                tokio::time::timeout(QUESTION, guest.read(file, 0, Some(4096))).await
            else {
                continue;
            };
            let mut text = Vec::new();
            while let Some(Ok(piece)) = content.recv().await {
                text.extend_from_slice(&piece);
            }
            let text = String::from_utf8_lossy(&text);
            return text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        }
        None
    }

    fn limits(&self) -> ResourceLimits {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn update_engine(&self, limits: &ResourceLimits) -> Result<()> {
        if !asks_engine(limits) {
            return Ok(());
        }
        let facts = self.inner.facts().await?;
        let memory = limits.memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let body = ContainerUpdateBody {
            memory,
            memory_swap: facts.memory_swap(memory),
            nano_cpus: limits.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
            pids_limit: limits.pids.map(i64::from),
            ..ContainerUpdateBody::default()
        };
        let client = self.inner.engine.client().await?;
        bounded(WORK, client.update_container(&self.handle.container, body)).await.map_err(
            |fault| match fault {
                fault if fault.is_memory_in_use() => Error::limit_below_use("more memory is in use"),
                fault => fault.during("change limits"),
            },
        )
    }

    /// Refuses memory below what is in use: version 2 of control groups would end processes until they fit. Version 1
    /// refuses it by itself.
    async fn make_room(&self, limits: &ResourceLimits, current: &ResourceLimits) -> Result<()> {
        if !limits.take_memory_from(current) || self.inner.facts().await?.cgroup1 {
            return Ok(());
        }
        let memory = self.usage().await?.memory_stats.unwrap_or_default();
        match (stats::held_memory(&memory), limits.memory_bytes) {
            (Some(held), Some(bytes)) if held > bytes => {
                let what = format_args!("{held} bytes of memory are in use, more than {bytes}");
                Err(Error::limit_below_use(what))
            }
            _ => Ok(()),
        }
    }

    /// What the engine says of its usage.
    async fn usage(&self) -> Result<ContainerStatsResponse> {
        let client = self.inner.engine.client().await?;
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut answers = std::pin::pin!(client.stats(&self.handle.container, Some(options)));
        let first = tokio::time::timeout(QUESTION, answers.next())
            .await
            .map_err(|_| Fault::Late(QUESTION).during("read usage"))?
            .ok_or_else(|| Error::internal("read usage", "the engine said nothing"))?;
        first.map_err(|cause| Fault::from(cause).during("read usage"))
    }
}

/// Whether some of the limits are the engine's to hold.
fn asks_engine(limits: &ResourceLimits) -> bool {
    limits.memory_bytes.is_some() || limits.cpu_millis.is_some() || limits.pids.is_some()
}

#[async_trait]
impl ExecutionEnvironment for Environment {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    async fn destroy(&self) -> Result<()> {
        let (handle, guest, gone) = (self.handle.clone(), self.guest.clone(), Arc::clone(&self.gone));
        self.inner.remove(Removal { handle, guest, gone }).await
    }

    async fn pause(&self) -> Result<()> {
        self.set_paused(true).await
    }

    async fn resume(&self) -> Result<()> {
        self.set_paused(false).await
    }

    async fn update_limits(&self, limits: &ResourceLimits) -> Result<ResourceLimits> {
        let current = self.limits();
        let changes = |new: Option<u64>, old: Option<u64>| new.is_some() && new != old;
        if changes(limits.disk_bytes, current.disk_bytes) || changes(limits.disk_inodes, current.disk_inodes)
        {
            let detail = "the disk of a container cannot change its size while it runs";
            return Err(Error::missing(Capability::DiskLimit, detail));
        }
        limits.needs().try_for_each(|capability| self.inner.capabilities().require(capability))?;
        let limits =
            if asks_engine(limits) { self.inner.facts().await?.held(limits) } else { limits.clone() };
        let changed = limits.or(&current);
        let tells = limits.open_files.is_some() || limits.output_bytes_per_second.is_some();
        // Before anything is changed: it refuses while it is frozen.
        let guest = if tells { Some(self.guest()?) } else { None };
        self.make_room(&limits, &current).await?;
        self.update_engine(&limits).await?;
        if let Some(guest) = guest
            && let Err(error) = guest.configure(base_config(&self.defaults(), &changed)).await
        {
            // All of it, or nothing.
            if let Err(error) = self.update_engine(&current.changes_to(&changed)).await {
                tracing::warn!(sandbox = %self.id, %error, "limits that were changed in part could not be put back");
            }
            return Err(error);
        }
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&changed);
        Ok(changed)
    }

    fn can_become(&self, changes: &ResourceLimits) -> bool {
        // With less memory it may be refused for what is in use, and `/dev/shm` keeps the size that it was made with.
        !changes.take_memory_from(&self.limits())
    }

    async fn bind(&self, spec: &SandboxSpec) -> Result<Bound> {
        let limits = self.update_limits(&spec.limits).await?;
        let defaults = self.defaults();
        let bound = defaults.with(spec);
        if bound != defaults {
            self.guest()?.configure(base_config(&bound, &limits)).await?;
            self.defaults.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&bound);
        }
        let handle = Handle { limits: limits.clone(), defaults: bound, ..self.handle.clone() };
        Ok(Bound { handle: handle.encode()?, limits })
    }

    async fn snapshot(&self, template: Template) -> Result<Template> {
        self.take_snapshot(template).await
    }

    async fn fork(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created> {
        self.make_fork(id, spec).await
    }

    async fn stats(&self) -> Result<SandboxStats> {
        let mut usage = stats::read(self.usage().await?);
        usage.oom_kills = self.oom_kills().await;
        if self.handle.disk.is_ours()
            && let Ok(disk) = nix::sys::statvfs::statvfs(&self.inner.ground.mount_point(&self.id))
        {
            usage.disk_bytes = Some((disk.blocks() - disk.blocks_free()) * disk.fragment_size());
            usage.disk_inodes = Some(disk.files() - disk.files_free());
        }
        Ok(usage)
    }

    async fn network_namespace(&self) -> Result<OwnedFd> {
        self.inner.capabilities().require(Capability::NetworkAllowlist)?;
        namespace::of_container(self.guest.peer().await?, &self.handle.container)
    }

    fn inside(&self) -> Result<&dyn Inside> {
        Ok(self.guest()?)
    }
}
