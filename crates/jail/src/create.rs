//! Making a jail: a cell, its limits, a clone, a word from the guest.

use crate::backend::Inner;
use crate::cell::{Cell, Disk, Prepared, SOCKET};
use crate::environment::Environment;
use crate::handle::{self, Handle};
use crate::template::Recipe;
use hostel_guest_client::{Endpoint, Guest, ProcessDefaults};
use hostel_guest_protocol::zygote::CloneJail;
use hostel_guest_protocol::{GuestConfig, TOKEN_LEN};
use hostel_sandbox::{
    Capability, Created, Error, ExecutionEnvironment, ResourceLimits, Result, SandboxId, SandboxSpec,
    Stopwatch, Weakness,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// How long a jail may take to be ready. It takes about a millisecond; a host that swaps takes longer.
const BIRTH: Duration = Duration::from_secs(20);
/// Without a pool a jail's files are in its memory: this part of it, where nobody says otherwise.
const MEMORY_PER_DISK: u64 = 2;
/// The kernel ends these before the guest, whose own value is 0.
const OOM_SCORE: i32 = 500;

/// Which disks this host has for jails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disks {
    pub(crate) pool: bool,
    pub(crate) root: bool,
}

/// The limits in force and what they leave to wish.
struct Caps {
    limits: ResourceLimits,
    /// Size and files of a tmpfs, where the jail's files are in one.
    tmpfs: Option<(u64, u64)>,
}

impl Disks {
    fn caps(self, spec: &SandboxSpec) -> Result<Caps> {
        let mut limits = spec.limits.clone();
        // Only a tmpfs counts files exactly; in the pool they cost bytes like everything else.
        if self.pool && limits.disk_inodes.is_none() {
            return Ok(Caps { limits, tmpfs: None });
        }
        let memory = limits.memory_bytes.unwrap_or(u64::MAX);
        let wanted = limits.disk_bytes.unwrap_or(memory / MEMORY_PER_DISK);
        let bytes = if wanted < memory { wanted } else { memory / MEMORY_PER_DISK };
        limits.disk_bytes = Some(bytes);
        Ok(Caps { tmpfs: Some((bytes, limits.disk_inodes.unwrap_or(0))), limits })
    }
}

/// A cell that is removed unless a jail comes to stand on it.
struct Claimed<'a> {
    inner: &'a Inner,
    cell: Option<Cell>,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            self.inner.bury(cell);
        }
    }
}

impl Inner {
    /// Makes a jail. `copy_of` is the cell whose files it starts with.
    pub(crate) async fn create(
        self: &Arc<Self>,
        id: &SandboxId,
        spec: &SandboxSpec,
        recipe: Recipe,
        copy_of: Option<String>,
    ) -> Result<Created> {
        self.capabilities.require(spec.network.needs())?;
        let mut clock = Stopwatch::start();
        let (spec, weaknesses) = self.possible(spec);
        let caps = self.disks.caps(&spec)?;
        let disk = match (copy_of, caps.tmpfs) {
            (Some(source), _) => Disk::CopyOf(source),
            (None, Some(_)) => Disk::Memory,
            (None, None) => Disk::Empty,
        };
        let prepared = self.spares.take(disk).await?;
        let cell = prepared.cell.clone();
        let mut claimed = Claimed { inner: self, cell: Some(cell.clone()) };
        self.stand(id, &cell, &recipe.layers)?;
        clock.lap("cell");

        let token: Vec<u8> = (0..TOKEN_LEN / 16).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
        let config = guest_config(&spec, &recipe, token.clone(), self.disks.root);
        let (ours, descriptors, order) = self.order(id, prepared, &caps, &recipe, config.clone())?;
        // The limits hold before anybody can start a process; until then only the guest is in there.
        let (cloned, limited) = tokio::join!(self.ground.zygote.clone_jail(order, descriptors), async {
            self.limit(&cell, &caps)
        });
        let cloned = cloned?;
        limited?;
        clock.lap("clone");
        let started = handle::started(cloned.pid).unwrap_or(0);
        if self.ground.cgroups.is_none() {
            let file = self.ground.runtime_of(&cell).join("pid");
            let _ = std::fs::write(file, format!("{} {started}", cloned.pid));
        }
        let endpoint = Endpoint::open(&self.ground.runtime_of(&cell), SOCKET, token.clone())?;
        let end = KillOnDrop(Some(&cloned.pidfd));
        let (guest, said) = Guest::born(endpoint, ours, BIRTH).await?;
        end.defuse();
        clock.lap("guest");
        for weakness in said {
            tracing::debug!(sandbox = %id, weakness, "the guest could not have everything");
        }
        let handle = Handle {
            sandbox: id.clone(),
            cell: cell.name.clone(),
            range: cell.range.map(crate::ids::Range::number),
            on_disk: cell.on_disk,
            pid: cloned.pid,
            started,
            token,
            template: recipe.template.id.clone(),
            layers: recipe.layers.clone(),
            host_usr: recipe.host_usr,
            limits: caps.limits.clone(),
            defaults: ProcessDefaults { env: config.env, user: config.user, workdir: config.workdir },
        };
        let encoded = handle.encode()?;
        let environment: Arc<dyn ExecutionEnvironment> =
            Environment::new(id.clone(), self.clone(), guest, cloned.pidfd, handle)?;
        claimed.cell = None;
        Ok(Created { environment, handle: encoded, limits: caps.limits, weaknesses, stages: clock.stages() })
    }

    /// What of a request this host can hold. The daemon refused what was asked for by name; what is left are
    /// defaults, and each that falls is told.
    fn possible(&self, spec: &SandboxSpec) -> (SandboxSpec, Vec<Weakness>) {
        let mut spec = spec.clone();
        let limits = &mut spec.limits;
        if !self.capabilities.has(Capability::MemoryLimit) {
            limits.memory_bytes = None;
        }
        if !self.capabilities.has(Capability::CpuLimit) {
            limits.cpu_millis = None;
        }
        if !self.capabilities.has(Capability::PidsLimit) {
            limits.pids = None;
        }
        let told = [
            Capability::MemoryLimit,
            Capability::CpuLimit,
            Capability::PidsLimit,
            Capability::PrivateUserIds,
        ];
        let weaknesses = self
            .capabilities
            .missing
            .iter()
            .filter(|weakness| told.contains(&weakness.capability))
            .cloned()
            .collect();
        (spec, weaknesses)
    }

    fn limit(&self, cell: &Cell, caps: &Caps) -> Result<()> {
        if let Some(cgroups) = &self.ground.cgroups {
            cgroups.limit(&cell.name, &caps.limits)?;
        }
        if let (Some(pool), None, Some(bytes)) = (&self.ground.pool, caps.tmpfs, caps.limits.disk_bytes) {
            pool.limit(&cell.name, bytes)?;
        }
        Ok(())
    }

    /// The order to the zygote, with its descriptors in the order that [`CloneJail`] gives.
    fn order(
        &self,
        id: &SandboxId,
        Prepared { cell, listener, spill, doors }: Prepared,
        caps: &Caps,
        recipe: &Recipe,
        config: GuestConfig,
    ) -> Result<(OwnedFd, Vec<OwnedFd>, CloneJail)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| Error::internal("make a guest's socket", error))?;
        let mut descriptors = vec![theirs, listener, spill];
        let mut order = CloneJail {
            uid_base: cell.uid_base(),
            cell: cell.name,
            hostname: id.to_string(),
            layers: recipe.layers.clone(),
            host_usr: recipe.host_usr,
            tmpfs_bytes: caps.tmpfs.map_or(0, |(bytes, _)| bytes),
            tmpfs_inodes: caps.tmpfs.map_or(0, |(_, inodes)| inodes),
            shm_bytes: caps.limits.memory_bytes.map_or(64 << 20, |bytes| (bytes / 2).min(1 << 30)),
            guest: Some(config),
            ..CloneJail::default()
        };
        order.has_cgroup2 = doors.unified.is_some();
        order.has_oom_file = doors.oom_counter.is_some();
        order.join_files = u32::try_from(doors.tasks.len()).unwrap_or(0);
        descriptors.extend(doors.unified.into_iter().chain(doors.oom_counter).chain(doors.tasks));
        if !self.ground.cgroups.as_ref().is_some_and(|cgroups| cgroups.holds()[2]) {
            order.max_processes = caps.limits.pids.unwrap_or(0);
        }
        Ok((ours, descriptors, order))
    }
}

fn guest_config(spec: &SandboxSpec, recipe: &Recipe, token: Vec<u8>, own_ids: bool) -> GuestConfig {
    let template = &recipe.template;
    let of_template = ProcessDefaults {
        env: template.env.clone(),
        user: template.user.clone().unwrap_or_default(),
        workdir: template.workdir.clone().unwrap_or_else(|| "/".to_owned()),
    };
    GuestConfig { token, ..base_config(&of_template.with(spec), &spec.limits, own_ids) }
}

/// What a guest is told, but for its token.
pub(crate) fn base_config(defaults: &ProcessDefaults, limits: &ResourceLimits, own_ids: bool) -> GuestConfig {
    GuestConfig { oom_score_adj: OOM_SCORE, can_switch_user: own_ids, ..defaults.config(limits) }
}

/// Kills a clone that nobody will ever talk to.
struct KillOnDrop<'a>(Option<&'a OwnedFd>);

impl KillOnDrop<'_> {
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0 {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
    }
}
