//! Making a jail: a clone in a cell, which may wait already, its limits, a message that says whose it is, a word from
//! the guest.

use crate::backend::Inner;
use crate::cell::{Cell, Disk, SOCKET};
use crate::environment::Environment;
use crate::handle::Handle;
use crate::newborn::{Newborn, Shape};
use crate::template::Recipe;
use hostel_guest_client::{Endpoint, Guest, ProcessDefaults};
use hostel_guest_protocol::zygote::{Birth, SYSTEM_V_UNBOUNDED};
use hostel_guest_protocol::{GuestConfig, MAX_MESSAGE, TOKEN_LEN, frame};
use hostel_sandbox::{
    Capability, Created, Error, ExecutionEnvironment, ResourceLimits, Result, SandboxId, SandboxSpec,
    Stopwatch, Weakness,
};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// How long a jail may take to be ready. It takes about a millisecond; a host that swaps takes longer.
const BIRTH: Duration = Duration::from_secs(20);
/// Without a pool a jail's files are in its memory: this part of it, and less where somebody says so.
const MEMORY_PER_DISK: u64 = 2;
/// The kernel ends these before the guest, whose own value is 0.
const OOM_SCORE: i32 = 500;
/// Size of `/dev/shm` where nothing bounds the memory.
const SHM: u64 = 64 << 20;
/// Most of it.
const MOST_SHM: u64 = 1 << 30;
/// Memory that a file in memory takes beside what is in it, and what part of the memory that may be for all.
const BYTES_PER_FILE: u64 = 1024;
const MEMORY_PER_FILES: u64 = 8;
/// A file in memory for each of so many bytes, where nobody says how many.
const DISK_PER_FILE: u64 = 4096;
/// and at least so many.
const LEAST_FILES: u64 = 1024;

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
        let bytes = wanted.min(memory / MEMORY_PER_DISK);
        limits.disk_bytes = Some(bytes);
        let Some(memory) = limits.memory_bytes else {
            return Ok(Caps { tmpfs: Some((bytes, limits.disk_inodes.unwrap_or(0))), limits });
        };
        let most = memory / MEMORY_PER_FILES / BYTES_PER_FILE;
        limits.disk_inodes = limits.disk_inodes.map(|files| files.min(most));
        let files = limits.disk_inodes.unwrap_or((bytes / DISK_PER_FILE).max(LEAST_FILES).min(most));
        Ok(Caps { tmpfs: Some((bytes, files)), limits })
    }
}

impl Caps {
    /// Most of `/dev/shm` and of System V shared memory, where 0 is the kernel's own limit.
    ///
    /// No process holds what is in these or in files in memory, so that none can be ended for it. All of it together is
    /// three quarters of the memory, or else the guest would be all that there is to end.
    fn shared(&self) -> [u64; 2] {
        let Some(memory) = self.limits.memory_bytes else { return [SHM, 0] };
        let files = self.tmpfs.map_or(0, |(bytes, files)| bytes + files * BYTES_PER_FILE);
        let shared = (memory / 4 * 3).saturating_sub(files);
        // Two thirds, with a quarter of that on top for the files themselves.
        [(shared / 3 * 2).min(MOST_SHM), shared / 6]
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
        let (spec, mut weaknesses) = self.possible(spec);
        if copy_of.is_some() && spec.limits.disk_inodes.is_some() {
            let detail =
                "a fork has a disk of its own in the pool, where files cost bytes and are not counted";
            return Err(Error::missing(Capability::InodeLimit, detail));
        }
        let caps = self.disks.caps(&spec)?;
        let disk = match (copy_of, caps.tmpfs) {
            (Some(source), _) => Disk::CopyOf(source),
            (None, Some(_)) => Disk::Memory,
            (None, None) => Disk::Empty,
        };
        let _held = self.templates.hold_layers(&recipe.layers);
        let _under_way = self.spares.under_way();
        let shape = Shape { layers: recipe.layers.clone(), host_usr: recipe.host_usr, disk };
        let mut claimed = Claimed { inner: self, cell: None };
        let waiting = self.spares.take_jail(&shape);
        let waited = waiting.is_some();
        let newborn = if let Some(waiting) = waiting {
            claimed.cell = Some(waiting.cell.clone());
            self.stand(id, &waiting.cell, &recipe.layers)?;
            clock.lap("cell");
            waiting
        } else {
            let prepared = self.spares.take_cell(&shape.disk).await?;
            claimed.cell = Some(prepared.cell.clone());
            self.stand(id, &prepared.cell, &recipe.layers)?;
            clock.lap("cell");
            self.ground.conceive(prepared, shape.clone()).await?
        };
        clock.lap("clone");

        let Newborn { cell, first, cloned, .. } = newborn;
        let token: Vec<u8> = (0..TOKEN_LEN / 16).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
        let config = guest_config(&spec, &recipe, token.clone(), self.disks.root);
        let birth = self.birth(id, &caps, config.clone())?;
        if self.ground.cgroups.is_none() {
            let file = self.ground.runtime_of(&cell).join("pid");
            // Before it is told whose it is: until then it ends with us, from then on it is found by this.
            std::fs::write(file, format!("{} {}", cloned.pid, cloned.started))
                .map_err(|error| Error::internal("note the process of a jail", error))?;
        }
        let endpoint = Endpoint::open(&self.ground.runtime_of(&cell), SOCKET, token.clone())?;
        let end = KillOnDrop(Some(&cloned.pidfd));
        // The limits hold before anybody can start a process; until then only the guest is in there.
        let (born, limited) =
            tokio::join!(Guest::born_of(endpoint, first, &birth, BIRTH), async { self.limit(&cell, &caps) });
        let (guest, said) = born.map_err(|error| if waited { bereft(error) } else { error })?;
        limited?;
        end.defuse();
        clock.lap("guest");
        for detail in said {
            if detail.starts_with(SYSTEM_V_UNBOUNDED) {
                weaknesses.push(Weakness { capability: Capability::MemoryLimit, detail });
            } else {
                tracing::debug!(sandbox = %id, weakness = detail, "the guest could not have everything");
            }
        }
        let handle = Handle {
            sandbox: id.clone(),
            cell: cell.name.clone(),
            range: cell.range.map(crate::ids::Range::number),
            on_disk: cell.on_disk,
            pid: cloned.pid,
            started: cloned.started,
            token,
            template: recipe.template.id.clone(),
            layers: recipe.layers.clone(),
            host_usr: recipe.host_usr,
            limits: caps.limits.clone(),
            defaults: ProcessDefaults { env: config.env, user: config.user, workdir: config.workdir },
        };
        let encoded = handle.encode()?;
        let environment: Arc<dyn ExecutionEnvironment> =
            Environment::new(id.clone(), self.clone(), guest, cloned.pidfd, handle, 0)?;
        claimed.cell = None;
        self.spares.asked(&shape);
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
        let mut weaknesses: Vec<Weakness> = self
            .capabilities
            .missing
            .iter()
            .filter(|weakness| told.contains(&weakness.capability))
            .cloned()
            .collect();
        if limits.memory_bytes.is_some()
            && self.ground.cgroups.as_ref().is_some_and(|cgroups| !cgroups.holds_sockets())
        {
            weaknesses.push(Weakness {
                capability: Capability::MemoryLimit,
                detail:
                    "buffers of sockets are not counted: this kernel has no memory.kmem.tcp for groups of \
                         version 1; use version 2"
                        .to_owned(),
            });
        }
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

    /// The message that says whose a jail is.
    fn birth(&self, id: &SandboxId, caps: &Caps, config: GuestConfig) -> Result<Vec<u8>> {
        let counted = self.ground.cgroups.as_ref().is_some_and(|cgroups| cgroups.holds()[2]);
        let [shm_bytes, system_v_bytes] = caps.shared();
        let birth = Birth {
            hostname: id.to_string(),
            tmpfs_bytes: caps.tmpfs.map_or(0, |(bytes, _)| bytes),
            tmpfs_inodes: caps.tmpfs.map_or(0, |(_, inodes)| inodes),
            shm_bytes,
            system_v_bytes,
            max_processes: if counted { 0 } else { caps.limits.pids.unwrap_or(0) },
            guest: Some(config),
        };
        let bytes = frame::encode_message(&birth);
        if bytes.len() > MAX_MESSAGE {
            return Err(Error::invalid("spec", format!("more than {MAX_MESSAGE} bytes")));
        }
        Ok(bytes)
    }
}

/// A jail that waits dies with the zygote, which may be now.
fn bereft(error: Error) -> Error {
    match error {
        Error::Unavailable { what: "guest", detail } => Error::Unavailable { what: "zygote", detail },
        other => other,
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
