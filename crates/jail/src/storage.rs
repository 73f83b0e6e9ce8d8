//! Where the files of jails live, and what caps them.
//!
//! The pool is one btrfs file system in a sparse image below the state directory, a subvolume for each cell
//! with a quota on its bytes; it also makes snapshots and forks instant. Where there can be no pool, each
//! jail has a tmpfs of its own, capped in bytes and files but paid for in memory.

mod btrfs;
mod loop_device;

use hostel_sandbox::{Error, Result};
use rustix::fs::{AtFlags, Mode};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Subvolumes with this prefix hold templates, the others are cells.
const TEMPLATE_PREFIX: &str = "template-";
/// Largest pool by default: sparse, so that it costs what is in it.
const DEFAULT_POOL_BYTES: u64 = 256 << 30;
/// Smallest that mkfs.btrfs makes without complaint.
const MIN_POOL_BYTES: u64 = 256 << 20;

/// How old a count of bytes on disk may be.
const COUNT_AGE: Duration = Duration::from_millis(500);

/// The image and its device, until the zygote has mounted it.
#[derive(Debug)]
pub(crate) struct PoolDevice {
    pub(crate) path: PathBuf,
    _open: File,
}

/// Makes the image where it is absent and attaches it.
///
/// # Errors
/// Says what is missing on this host; jails then use memory for their files.
pub(crate) fn pool_device(state: &Path, size: Option<u64>) -> std::result::Result<PoolDevice, String> {
    let image = state.join("pool.btrfs");
    if !image.exists() {
        make_image(&image, size)?;
    }
    let (path, open) = loop_device::attach(&image)
        .map_err(|error| format!("attach {} to a loop device: {error}", image.display()))?;
    Ok(PoolDevice { path, _open: open })
}

fn make_image(image: &Path, size: Option<u64>) -> std::result::Result<(), String> {
    let unfinished = image.with_extension("new");
    let fail = |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", image.display());
    let directory = image.parent().unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(directory).map(|disk| disk.f_bavail * disk.f_frsize).unwrap_or(u64::MAX);
    let size = size.unwrap_or_else(|| DEFAULT_POOL_BYTES.min(free / 10 * 8)).max(MIN_POOL_BYTES);
    let file = File::create(&unfinished).map_err(|error| fail("create", &error))?;
    file.set_len(size).map_err(|error| fail("size", &error))?;
    drop(file);
    let made = Command::new("mkfs.btrfs")
        .args(["-q", "-f", "-L", "hostel", "-m", "single"])
        .arg(&unfinished)
        .output();
    match made {
        Ok(output) if output.status.success() => {
            std::fs::rename(&unfinished, image).map_err(|error| fail("finish", &error))
        }
        Ok(output) => Err(fail("format", &String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("mkfs.btrfs is not installed (apt-get install btrfs-progs)".to_owned())
        }
        Err(error) => Err(fail("format", &error)),
    }
}

/// The mounted pool.
#[derive(Debug)]
pub(crate) struct Pool {
    root: OwnedFd,
    sysfs: Option<PathBuf>,
    synced: Mutex<Option<Instant>>,
}

impl Pool {
    /// Takes the root directory that the zygote mounted.
    ///
    /// # Errors
    /// `Internal` where quotas cannot be turned on.
    pub(crate) fn open(root: OwnedFd, device: &Path) -> Result<Self> {
        btrfs::enable_quota(root.as_fd())
            .map_err(|error| Error::internal("turn on quotas of the pool", error))?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o700))
            .map_err(|error| Error::internal("close the pool to others", error))?;
        Ok(Self { root, sysfs: sysfs_of(device), synced: Mutex::new(None) })
    }

    /// Makes the disk of a cell: empty, or a copy-on-write copy of another cell's.
    ///
    /// # Errors
    /// `Internal` with what the kernel said.
    pub(crate) fn create(&self, cell: &str, copy_of: Option<&str>) -> Result<()> {
        let fail =
            |what: &'static str| move |error: io::Error| Error::internal(format!("{what} of a cell"), error);
        let disk = match copy_of {
            None => btrfs::create(self.root.as_fd(), cell).map_err(fail("make the subvolume"))?,
            Some(source) => {
                let source = btrfs::open(self.root.as_fd(), source).map_err(fail("open the original"))?;
                btrfs::snapshot(self.root.as_fd(), source.as_fd(), cell)
                    .map_err(fail("copy the subvolume"))?
            }
        };
        if copy_of.is_some() {
            // The overlay's working directory belongs to the mount of the original.
            remove_tree(&disk, "work").map_err(fail("clear the copy"))?;
        } else {
            rustix::fs::mkdirat(&disk, "upper", Mode::from_raw_mode(0o755))
                .map_err(|e| fail("lay out the disk")(e.into()))?;
        }
        rustix::fs::mkdirat(&disk, "work", Mode::from_raw_mode(0o755))
            .map_err(|e| fail("lay out the disk")(e.into()))
    }

    /// Caps the bytes of a cell.
    ///
    /// # Errors
    /// `Internal` with what the kernel said.
    pub(crate) fn limit(&self, cell: &str, bytes: u64) -> Result<()> {
        btrfs::open(self.root.as_fd(), cell)
            .and_then(|disk| btrfs::limit(disk.as_fd(), bytes))
            .map_err(|error| Error::internal(format!("cap the disk of {cell}"), error))
    }

    /// Removes the disk of a cell, or a template's layer; absent ones are fine.
    ///
    /// # Errors
    /// `Internal` with what the kernel said.
    pub(crate) fn destroy(&self, name: &str) -> Result<()> {
        match btrfs::destroy(self.root.as_fd(), name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::internal(format!("remove the disk {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Makes a template's layer from what a cell has written.
    ///
    /// # Errors
    /// `Internal` with what the kernel said.
    pub(crate) fn freeze_layer(&self, cell: &str, template: &str) -> Result<String> {
        let name = format!("{TEMPLATE_PREFIX}{template}");
        let fail = |error| Error::internal(format!("snapshot the disk of {cell}"), error);
        let source = btrfs::open(self.root.as_fd(), cell).map_err(fail)?;
        btrfs::snapshot(self.root.as_fd(), source.as_fd(), &name).map_err(fail)?;
        Ok(name)
    }

    /// Removes layers of templates that are not in use: those of templates that were half made, or half removed.
    pub(crate) fn keep_layers(&self, used: &std::collections::HashSet<String>) {
        let lost = |name: &String| name.starts_with(TEMPLATE_PREFIX) && !used.contains(name);
        for layer in self.subvolumes().filter(lost) {
            match self.destroy(&layer) {
                Ok(()) => tracing::info!(layer, "the layer of a template that does not exist was removed"),
                Err(error) => tracing::warn!(layer, %error, "a layer could not be removed"),
            }
        }
    }

    /// Bytes that a cell has written and kept. Blocks: btrfs counts what it has allocated, so that what is
    /// still in memory is written first, for all cells at once and at most once in [`COUNT_AGE`].
    pub(crate) fn used(&self, cell: &str) -> Option<u64> {
        // One writes for all. Who comes meanwhile takes the count as it is: a cell that has much to write is not to
        // hold up everybody's.
        if let Ok(mut synced) = self.synced.try_lock()
            && synced.is_none_or(|last| last.elapsed() > COUNT_AGE)
        {
            rustix::fs::syncfs(&self.root).ok()?;
            *synced = Some(Instant::now());
        }
        let disk = btrfs::open(self.root.as_fd(), cell).ok()?;
        let tree = btrfs::tree_of(disk.as_fd()).ok()?;
        let file = self.sysfs.as_ref()?.join(format!("qgroups/0_{tree}/referenced"));
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// The cells that have a disk.
    pub(crate) fn cells(&self) -> Vec<String> {
        self.subvolumes().filter(|name| !name.starts_with(TEMPLATE_PREFIX)).collect()
    }

    fn subvolumes(&self) -> impl Iterator<Item = String> {
        let entries = rustix::fs::Dir::read_from(&self.root).into_iter().flatten();
        entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.') && btrfs::is_subvolume(self.root.as_fd(), name))
    }
}

/// `/sys/fs/btrfs/UUID` of the file system on a device.
fn sysfs_of(device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?;
    std::fs::read_dir("/sys/fs/btrfs")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("devices").join(name).exists())
}

/// Removes a directory below another one with everything in it, never through links.
fn remove_tree(parent: &OwnedFd, name: &str) -> io::Result<()> {
    let directory = btrfs::open(parent.as_fd(), name)?;
    for entry in rustix::fs::Dir::read_from(&directory)?.flatten() {
        let entry_name = entry.file_name();
        if matches!(entry_name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(&directory, entry_name, AtFlags::empty()) {
            Ok(()) => {}
            Err(rustix::io::Errno::ISDIR) => remove_tree(&directory, &entry_name.to_string_lossy())?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}
