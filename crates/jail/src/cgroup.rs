//! Control groups of jails, on version 2 and on version 1 with or without a version 2 hierarchy beside it.
//!
//! All our groups live under one directory per instance of the daemon, named by cell, so that a restarted
//! daemon finds what it has and removes what nobody knows. Groups of others are never touched.

mod discover;
mod usage;

pub(crate) use discover::discover;

use hostel_sandbox::{Error, ResourceLimits, Result};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A version 1 controller that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Cpu,
    Pids,
    BlockIo,
    CpuAccounting,
    Freezer,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::BlockIo => "blkio",
            Self::CpuAccounting => "cpuacct",
            Self::Freezer => "freezer",
        }
    }
}

/// The hierarchies of this host, below which our groups are.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    /// Our directory in the version 2 hierarchy.
    unified: Option<PathBuf>,
    /// Whether memory, cpu and pids are controlled there (io is optional).
    unified_controls: bool,
    /// Our directories in version 1 hierarchies.
    legacy: Vec<(Controller, PathBuf)>,
    /// Whether version 1 limits memory and swap together too; not every kernel counts swap.
    counts_swap: bool,
    /// Whether version 1 has a limit for the buffers of sockets, which its limit of memory does not hold.
    limits_sockets: bool,
}

/// What a clone needs to be born into its groups.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    pub(crate) unified: Option<OwnedFd>,
    pub(crate) oom_counter: Option<OwnedFd>,
    pub(crate) tasks: Vec<OwnedFd>,
}

const CPU_PERIOD_US: u64 = 100_000;
/// On version 1 the buffers of sockets may take this part of a cell's memory on top of it,
const MEMORY_PER_SOCKETS: u64 = 4;
/// and no more than this.
const MOST_SOCKETS: u64 = 64 << 20;
/// The limit of those buffers: TCP's by its name, in truth of all protocols that count theirs (memory.rst).
const SOCKETS: &str = "memory.kmem.tcp.limit_in_bytes";

impl Cgroups {
    fn legacy(&self, controller: Controller) -> Option<&PathBuf> {
        self.legacy.iter().find(|(found, _)| *found == controller).map(|(_, path)| path)
    }

    /// Where the memory limit is.
    fn memory(&self) -> Option<&PathBuf> {
        if self.unified_controls { self.unified.as_ref() } else { self.legacy(Controller::Memory) }
    }

    /// Whether a limit on memory, processor time and processes can be held, in this order.
    pub(crate) fn holds(&self) -> [bool; 3] {
        [Controller::Memory, Controller::Cpu, Controller::Pids]
            .map(|controller| self.unified_controls || self.legacy(controller).is_some())
    }

    /// Whether the memory that a cell's sockets take is bounded by its limit of memory.
    pub(crate) fn holds_sockets(&self) -> bool {
        self.unified_controls || self.limits_sockets
    }

    /// Whether all processes of a cell can be frozen.
    pub(crate) fn can_freeze(&self) -> bool {
        self.unified.is_some() || self.legacy(Controller::Freezer).is_some()
    }

    fn directories<'a>(&'a self, cell: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        self.unified.iter().chain(self.legacy.iter().map(|(_, path)| path)).map(move |path| path.join(cell))
    }

    /// Makes the groups of a cell.
    ///
    /// # Errors
    /// `Internal` with the directory.
    pub(crate) fn create(&self, cell: &str) -> Result<()> {
        for directory in self.directories(cell) {
            match std::fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::internal(format!("make the cgroup {}", directory.display()), error));
                }
                _ => {}
            }
        }
        if self.unified_controls {
            // Killed one by one, so that the guest survives and can say who it was.
            let _ = self.write(self.unified.as_ref(), cell, "memory.oom.group", "0");
        }
        Ok(())
    }

    /// Opens what a clone needs.
    ///
    /// # Errors
    /// `Internal` with the file.
    pub(crate) fn doors(&self, cell: &str) -> Result<Doors> {
        let open = |path: PathBuf, flags: OFlags| {
            rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| Error::internal(format!("open {}", path.display()), error))
        };
        let unified = self
            .unified
            .as_ref()
            .map(|path| open(path.join(cell), OFlags::PATH | OFlags::DIRECTORY))
            .transpose()?;
        let counter = if self.unified_controls { "memory.events" } else { "memory.oom_control" };
        let oom_counter =
            self.memory().map(|path| open(path.join(cell).join(counter), OFlags::RDONLY)).transpose()?;
        let tasks = self
            .legacy
            .iter()
            .map(|(_, path)| open(path.join(cell).join("tasks"), OFlags::WRONLY))
            .collect::<Result<_>>()?;
        Ok(Doors { unified, oom_counter, tasks })
    }

    fn write(&self, base: Option<&PathBuf>, cell: &str, file: &str, value: &str) -> Result<()> {
        let Some(base) = base else { return Ok(()) };
        let path = base.join(cell).join(file);
        std::fs::write(&path, value).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => {
                Error::limit_below_use(format_args!("more than {value} bytes of memory are in use"))
            }
            _ => Error::internal(format!("write {value} to {}", path.display()), error),
        })
    }

    /// Sets the limits that are given.
    ///
    /// # Errors
    /// `WrongState` for memory below what is in use, `Internal` otherwise.
    pub(crate) fn limit(&self, cell: &str, limits: &ResourceLimits) -> Result<()> {
        if let Some(bytes) = limits.memory_bytes {
            self.limit_memory(cell, bytes)?;
        }
        if let Some(millis) = limits.cpu_millis {
            let quota = u64::from(millis) * CPU_PERIOD_US / 1000;
            if self.unified_controls {
                self.write(self.unified.as_ref(), cell, "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
            } else {
                self.write(self.legacy(Controller::Cpu), cell, "cpu.cfs_quota_us", &quota.to_string())?;
            }
        }
        if let Some(pids) = limits.pids {
            let base =
                if self.unified_controls { self.unified.as_ref() } else { self.legacy(Controller::Pids) };
            self.write(base, cell, "pids.max", &pids.to_string())?;
        }
        Ok(())
    }

    /// Gives the processes of a cell their full share of the processors where others want them too, or a tenth of it.
    /// The numbers are the kernel's defaults and a tenth of those (cgroup-v2.rst, sched-design-CFS.rst).
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn weigh(&self, cell: &str, full: bool) -> Result<()> {
        let (base, file, [all, tenth]) = self.weight();
        self.write(base, cell, file, if full { all } else { tenth })
    }

    /// Whether a cell has less than its full share.
    pub(crate) fn is_light(&self, cell: &str) -> bool {
        let (base, file, [all, _]) = self.weight();
        let text = base.and_then(|base| std::fs::read_to_string(base.join(cell).join(file)).ok());
        text.is_some_and(|text| text.trim() != all)
    }

    /// Where the share is, under which name, and what it is as a rule and when standing back.
    fn weight(&self) -> (Option<&PathBuf>, &'static str, [&'static str; 2]) {
        if self.unified_controls {
            (self.unified.as_ref(), "cpu.weight", ["100", "10"])
        } else {
            (self.legacy(Controller::Cpu), "cpu.shares", ["1024", "102"])
        }
    }

    /// Memory without swap. On version 1 the sum with swap is a limit of its own, never below the other, so
    /// that the order of the two depends on the direction.
    fn limit_memory(&self, cell: &str, bytes: u64) -> Result<()> {
        let value = bytes.to_string();
        if self.unified_controls {
            let _ = self.write(self.unified.as_ref(), cell, "memory.swap.max", "0");
            self.make_room(cell, bytes)?;
            return self.write(self.unified.as_ref(), cell, "memory.max", &value);
        }
        let base = self.legacy(Controller::Memory);
        if self.limits_sockets {
            // Nobody is charged for them otherwise. First, as what is refused has changed nothing.
            let sockets = (bytes / MEMORY_PER_SOCKETS).min(MOST_SOCKETS);
            self.write(base, cell, SOCKETS, &sockets.to_string())?;
        }
        let set = |file: &str| self.write(base, cell, file, &value);
        let (alone, with_swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        match set(alone) {
            // The first one of a cell, and each that is lower: the other follows.
            Ok(()) if self.counts_swap => set(with_swap),
            // A higher one: the other goes before.
            Err(Error::Internal { .. }) if self.counts_swap => set(with_swap).and_then(|()| set(alone)),
            set => set,
        }
    }

    /// Refuses a limit below what is in use: version 2 would kill processes until they fit. What the kernel can take
    /// back, caches above all, does not count.
    fn make_room(&self, cell: &str, bytes: u64) -> Result<()> {
        let Some(group) = self.unified.as_ref().map(|path| path.join(cell)) else { return Ok(()) };
        let used = || -> u64 {
            let text = std::fs::read_to_string(group.join("memory.current")).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let excess = used().saturating_sub(bytes);
        if excess > 0 {
            // Since Linux 5.19; it says so where it could not take back everything.
            let _ = std::fs::OpenOptions::new()
                .write(true)
                .open(group.join("memory.reclaim"))
                .and_then(|mut file| io::Write::write_all(&mut file, excess.to_string().as_bytes()));
        }
        let used = if excess > 0 { used() } else { return Ok(()) };
        if used <= bytes {
            return Ok(());
        }
        let what = format_args!("{used} bytes of memory are in use, more than {bytes}");
        Err(Error::limit_below_use(what))
    }

    /// Freezes or thaws, and waits until it is so. Blocks. What cannot be frozen goes on.
    ///
    /// # Errors
    /// `DeadlineExceeded` where a process cannot be frozen within ten seconds.
    pub(crate) fn freeze(&self, cell: &str, frozen: bool) -> Result<()> {
        let done: Box<dyn Fn() -> bool> = if let Some(unified) = &self.unified {
            self.write(Some(unified), cell, "cgroup.freeze", if frozen { "1" } else { "0" })?;
            let events = unified.join(cell).join("cgroup.events");
            let wanted = format!("frozen {}", u8::from(frozen));
            Box::new(move || {
                std::fs::read_to_string(&events).is_ok_and(|text| text.lines().any(|line| line == wanted))
            })
        } else {
            let state = if frozen { "FROZEN" } else { "THAWED" };
            let base = self.legacy(Controller::Freezer);
            self.write(base, cell, "freezer.state", state)?;
            let file = base.map(|path| path.join(cell).join("freezer.state")).unwrap_or_default();
            Box::new(move || std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == state))
        };
        if poll_until(Duration::from_secs(10), done) {
            return Ok(());
        }
        if frozen {
            self.begin_thaw(cell);
        }
        let what = if frozen { "freezing" } else { "thawing" };
        Err(Error::DeadlineExceeded { what: format!("{what} the sandbox") })
    }

    /// Has the kernel let go of a cell that is frozen in part.
    fn begin_thaw(&self, cell: &str) {
        let begun = match &self.unified {
            Some(unified) => self.write(Some(unified), cell, "cgroup.freeze", "0"),
            None => self.write(self.legacy(Controller::Freezer), cell, "freezer.state", "THAWED"),
        };
        if let Err(error) = begun {
            tracing::warn!(cell, %error, "a sandbox that could not be frozen may stay so in part");
        }
    }

    /// Whether a cell is frozen, or on its way.
    pub(crate) fn is_frozen(&self, cell: &str) -> bool {
        match (&self.unified, self.legacy(Controller::Freezer)) {
            (Some(unified), _) => std::fs::read_to_string(unified.join(cell).join("cgroup.freeze"))
                .is_ok_and(|text| text.trim() == "1"),
            (None, Some(legacy)) => std::fs::read_to_string(legacy.join(cell).join("freezer.state"))
                .is_ok_and(|text| text.trim() != "THAWED"),
            (None, None) => false,
        }
    }

    /// Kills every process of a cell, frozen ones too.
    pub(crate) fn kill(&self, cell: &str) {
        if let Some(unified) = &self.unified {
            let group = unified.join(cell);
            if std::fs::write(group.join("cgroup.kill"), "1").is_ok() {
                return;
            }
        }
        for directory in self.directories(cell) {
            let Ok(list) = std::fs::read_to_string(directory.join("cgroup.procs")) else { continue };
            for pid in
                list.lines().filter_map(|line| line.parse().ok()).filter_map(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if self.unified.is_none() && self.legacy(Controller::Freezer).is_some() {
            let _ = self.write(self.legacy(Controller::Freezer), cell, "freezer.state", "THAWED");
        }
    }

    /// Removes the groups of a cell, whose processes must be dying.
    ///
    /// # Errors
    /// `Internal` where a group is not empty within ten seconds.
    pub(crate) fn remove(&self, cell: &str) -> Result<()> {
        for directory in self.directories(cell) {
            let mut last = None;
            let gone = poll_until(Duration::from_secs(10), || match std::fs::remove_dir(&directory) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => {
                    last = Some(error);
                    false
                }
            });
            if !gone {
                let detail = last.map_or_else(String::new, |error| error.to_string());
                return Err(Error::internal(format!("remove the cgroup {}", directory.display()), detail));
            }
        }
        Ok(())
    }

    /// The cells that have a group.
    pub(crate) fn cells(&self) -> Vec<String> {
        let mut cells: Vec<String> = self
            .unified
            .iter()
            .chain(self.legacy.iter().map(|(_, path)| path))
            .filter_map(|path| std::fs::read_dir(path).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    /// Removes our own directories, which must be empty of cells.
    pub(crate) fn close(&self) {
        for path in self.unified.iter().chain(self.legacy.iter().map(|(_, path)| path)) {
            let _ = std::fs::remove_dir(path);
            // The directory that all instances share goes with the last of them.
            let _ = path.parent().map(std::fs::remove_dir);
        }
    }
}

/// Asks again at growing distance. These waits end within microseconds unless the kernel is busy; there is
/// nothing to be notified by on cgroup version 1.
fn poll_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let (start, mut pause) = (Instant::now(), Duration::from_micros(20));
    while !done() {
        if start.elapsed() > limit {
            return false;
        }
        let timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let _ = rustix::event::poll(&mut [], Some(&timespec));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    true
}

/// Whether a path is a directory that this process may make groups in.
fn usable(path: &Path) -> bool {
    path.is_dir()
        && rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_version_2_memory_below_what_is_in_use_is_refused_and_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let group = directory.path().join("cell");
        std::fs::create_dir(&group).unwrap();
        let cgroups = Cgroups {
            unified: Some(directory.path().to_owned()),
            unified_controls: true,
            legacy: Vec::new(),
            counts_swap: false,
            limits_sockets: false,
        };
        let limit = |bytes| {
            cgroups.limit("cell", &ResourceLimits { memory_bytes: Some(bytes), ..ResourceLimits::default() })
        };
        std::fs::write(group.join("memory.current"), "100000\n").unwrap();
        limit(100_000).unwrap();
        assert!(matches!(limit(99_999), Err(Error::WrongState { .. })));
        assert_eq!(std::fs::read_to_string(group.join("memory.max")).unwrap(), "100000");
    }
}
