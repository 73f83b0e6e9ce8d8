//! A cell: everything of the host that one jail stands on, under one name. Its groups, its range of ids, its
//! disk, its directories, its namespaces. Cells can be made before a jail is asked for, and what is found
//! under a name that no jail has is removed.

use crate::cgroup::{Cgroups, Doors};
use crate::ids::{Range, Ranges};
use crate::storage::Pool;
use crate::zygote::Zygote;
use hostel_sandbox::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// The socket of a guest, in its cell's runtime directory.
pub(crate) const SOCKET: &str = "guest.sock";
/// Connections that may wait for a guest.
const BACKLOG: i32 = 128;

/// What cells are made from.
pub(crate) struct Ground {
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) ranges: Option<Ranges>,
    pub(crate) pool: Option<Pool>,
    pub(crate) zygote: Zygote,
    /// Per cell: the socket, and the process number where there are no groups.
    pub(crate) runtime: PathBuf,
    /// Per cell: output that did not fit in memory.
    pub(crate) spill: PathBuf,
    /// The names of all cells that this daemon made or adopted and did not remove.
    pub(crate) living: Mutex<HashSet<String>>,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// `c` and the number of its range, or a random one without ranges; then four random characters.
    pub(crate) name: String,
    /// Its ids; `None` where the daemon has no ids to give.
    pub(crate) range: Option<Range>,
    /// Whether its files are a subvolume of the pool.
    pub(crate) on_disk: bool,
}

impl Cell {
    /// The host's id for root inside.
    pub(crate) fn uid_base(&self) -> u32 {
        self.range.map_or(0, Range::first_id)
    }
}

fn random_name(range: Option<Range>) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    match range {
        Some(range) => format!("c{}-{}", range.number(), &random[..4]),
        None => format!("c{}", &random[..12]),
    }
}

/// A new cell, with everything open that a jail takes of it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) cell: Cell,
    /// Bound and listening.
    pub(crate) listener: OwnedFd,
    pub(crate) spill: OwnedFd,
    pub(crate) doors: Doors,
}

impl Ground {
    /// How many processes of a cell the kernel has ended for memory, as far as it tells.
    pub(crate) fn oom_kills(&self, cell: &str) -> u64 {
        self.cgroups.as_ref().and_then(|cgroups| cgroups.oom_kills(cell)).unwrap_or(0)
    }

    /// Makes a cell, with a disk of its own where `disk` says so: empty, or a copy of another cell's. Dropping
    /// the future leaves nothing: a task of its own finishes the cell and removes it again.
    ///
    /// # Errors
    /// Whatever part could not be made; the others are removed again.
    pub(crate) async fn make(self: &Arc<Self>, tasks: &TaskTracker, disk: Disk) -> Result<Prepared> {
        let (made, wanted) = oneshot::channel();
        let ground = self.clone();
        tasks.spawn(async move {
            if let Err(Ok(prepared)) = made.send(ground.make_whole(disk).await) {
                ground.remove_behind(prepared.cell).await;
            }
        });
        wanted.await.map_err(|error| Error::internal("make a cell", error))?
    }

    async fn make_whole(self: &Arc<Self>, disk: Disk) -> Result<Prepared> {
        let ground = self.clone();
        let made = tokio::task::spawn_blocking(move || ground.make_parts(&disk));
        let prepared = made.await.map_err(|error| Error::internal("make a cell", error))??;
        let cell = &prepared.cell;
        if let Err(error) = self.zygote.prepare(&cell.name, cell.uid_base()).await {
            self.remove_behind(prepared.cell).await;
            return Err(error);
        }
        Ok(prepared)
    }

    /// Lets go of a cell's namespaces and removes it.
    pub(crate) async fn remove_behind(self: &Arc<Self>, cell: Cell) {
        let _ = self.zygote.discard(&cell.name).await;
        let ground = self.clone();
        let _ = tokio::task::spawn_blocking(move || ground.remove(&cell)).await;
    }

    fn make_parts(&self, disk: &Disk) -> Result<Prepared> {
        // Under the lock, so that nobody takes the new range for a lost one.
        let mut living =
            self.living.lock().map_err(|_| Error::internal("make a cell", "a task broke meanwhile"))?;
        let range = self.ranges.as_ref().map(Ranges::take).transpose()?;
        let on_disk = self.pool.is_some() && !matches!(disk, Disk::Memory);
        let cell = Cell { name: random_name(range), range, on_disk };
        living.insert(cell.name.clone());
        drop(living);
        let made = self.make_directories(&cell).and_then(|()| {
            if let Some(cgroups) = &self.cgroups {
                cgroups.create(&cell.name)?;
            }
            match (&self.pool, disk) {
                (Some(pool), Disk::Empty) => pool.create(&cell.name, None)?,
                (Some(pool), Disk::CopyOf(source)) => pool.create(&cell.name, Some(source))?,
                _ => {}
            }
            self.open(&cell)
        });
        match made {
            Ok((listener, spill, doors)) => Ok(Prepared { cell, listener, spill, doors }),
            Err(error) => {
                self.remove(&cell);
                Err(error)
            }
        }
    }

    fn open(&self, cell: &Cell) -> Result<(OwnedFd, OwnedFd, Doors)> {
        let fail = |what: &'static str| move |error: rustix::io::Errno| Error::internal(what, error);
        let listener = listen_at(&self.runtime_of(cell)).map_err(fail("make a guest's listening socket"))?;
        let spill = open_directory(&self.spill.join(&cell.name)).map_err(fail("open a spill directory"))?;
        let doors = self.cgroups.as_ref().map(|cgroups| cgroups.doors(&cell.name)).transpose()?;
        Ok((listener, spill, doors.unwrap_or_default()))
    }

    /// Gives back ranges of ids that were taken for cells of which nothing else was made, or is there any more.
    pub(crate) fn give_back_ranges(&self) {
        let (Some(ranges), Ok(living)) = (&self.ranges, self.living.lock()) else { return };
        let mut used: HashSet<Range> = living.iter().filter_map(|name| range_in(name)).collect();
        used.extend(self.found().into_iter().filter_map(|cell| cell.range));
        ranges
            .ours()
            .into_iter()
            .filter(|range| !used.contains(range))
            .for_each(|range| ranges.give_back(range));
    }

    /// Notes that a cell is in use, before any part of it is there.
    pub(crate) fn keep(&self, cell: &Cell) {
        if let Ok(mut living) = self.living.lock() {
            living.insert(cell.name.clone());
        }
    }

    /// Takes back what [`Self::keep`] noted.
    pub(crate) fn forget(&self, cell: &Cell) {
        if let Ok(mut living) = self.living.lock() {
            living.remove(&cell.name);
        }
    }

    /// Whether a cell is in use.
    pub(crate) fn is_kept(&self, cell: &Cell) -> bool {
        self.living.lock().is_ok_and(|living| living.contains(&cell.name))
    }

    fn make_directories(&self, cell: &Cell) -> Result<()> {
        for directory in [self.runtime.join(&cell.name), self.spill.join(&cell.name)] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&directory)
                .map_err(|error| Error::internal(format!("make {}", directory.display()), error))?;
        }
        if cell.range.is_some() {
            let spill = self.spill.join(&cell.name);
            chown(&spill, Some(cell.uid_base()), Some(cell.uid_base()))
                .map_err(|error| Error::internal(format!("hand over {}", spill.display()), error))?;
        }
        Ok(())
    }

    /// Removes every part of a cell whose processes are dead or dying. Blocks; what fails is logged and found
    /// again at the next start, and nobody else has its ids until then.
    pub(crate) fn remove(&self, cell: &Cell) {
        let mut whole = true;
        if let Some(cgroups) = &self.cgroups {
            cgroups.kill(&cell.name);
            whole &= log(&cell.name, cgroups.remove(&cell.name));
        }
        if let Some(pool) = self.pool.as_ref().filter(|_| cell.on_disk) {
            whole &= log(&cell.name, pool.destroy(&cell.name));
        }
        for directory in [self.runtime.join(&cell.name), self.spill.join(&cell.name)] {
            whole &= match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log(&cell.name, Err(Error::internal(format!("remove {}", directory.display()), error)))
                }
                _ => true,
            };
        }
        let Ok(mut living) = self.living.lock() else { return };
        living.remove(&cell.name);
        if let (true, Some(ranges), Some(range)) = (whole, &self.ranges, cell.range)
            && !living.iter().any(|name| range_in(name) == Some(range))
        {
            ranges.give_back(range);
        }
    }

    /// The names of all cells of which anything is there.
    pub(crate) fn found(&self) -> Vec<Cell> {
        let mut names: Vec<String> = [&self.runtime, &self.spill]
            .into_iter()
            .filter_map(|directory| fs::read_dir(directory).ok())
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.extend(self.cgroups.iter().flat_map(Cgroups::cells));
        names.extend(self.pool.iter().flat_map(Pool::cells));
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| Cell { range: range_in(&name), on_disk: true, name }).collect()
    }

    /// Without groups: ends the first process of a cell by the number that was noted, if it is still the same.
    pub(crate) fn end_without_groups(&self, cell: &Cell) {
        let noted = fs::read_to_string(self.runtime_of(cell).join("pid")).unwrap_or_default();
        let Some((pid, started)) = noted.split_once(' ') else { return };
        let (Ok(pid), Ok(started)) = (pid.parse::<u32>(), started.parse::<u64>()) else { return };
        let process = rustix::process::Pid::from_raw(pid.cast_signed());
        let descriptor = process
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
        if let Some(descriptor) = descriptor.filter(|_| crate::handle::started(pid) == Some(started)) {
            let _ = rustix::process::pidfd_send_signal(descriptor, rustix::process::Signal::KILL);
        }
    }

    /// The runtime directory of a cell.
    pub(crate) fn runtime_of(&self, cell: &Cell) -> PathBuf {
        self.runtime.join(&cell.name)
    }
}

/// The range in a cell's name.
fn range_in(name: &str) -> Option<Range> {
    Range::from_number(name.strip_prefix('c')?.split_once('-')?.0.parse().ok()?)
}

/// → whether it went well.
fn log(cell: &str, outcome: Result<()>) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!(cell, %error, "a part of a cell could not be removed; the next start tries again");
    }
    outcome.is_ok()
}

/// What a cell's disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Disk {
    /// A tmpfs that goes with the jail.
    Memory,
    /// A new subvolume.
    Empty,
    /// A copy-on-write copy of another cell's subvolume.
    CopyOf(String),
}

/// Makes a directory that nobody else may enter.
///
/// # Errors
/// `Internal` where it cannot be made or is somebody else's.
pub(crate) fn private_directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Error::internal(format!("make {}", path.display()), error))?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(|error| Error::internal(format!("close {} to others", path.display()), error))
}

/// A path through a descriptor: names of sockets hold 107 bytes, those of directories more (unix(7)).
fn listen_at(directory: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let directory = open_directory(directory)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn open_directory(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
