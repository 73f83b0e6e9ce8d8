//! The disk of a sandbox: one cap over everything it may write.
//!
//! Where the storage driver cannot cap a container's root, the root is read-only and the usual writable places are
//! directories of one file system of the right size, which we make and the engine binds.

use crate::abilities::Facts;
use crate::ground::Ground;
use crate::tools;
use hostel_sandbox::{Error, ResourceLimits, Result, SandboxId};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where output that does not fit in memory goes, in the disk and in the container.
pub(crate) const SPILL: &str = ".spill";
pub(crate) const SPILL_INSIDE: &str = "/.hostel/spill";
/// Where programs expect to write.
const PLACES: [(&str, u32); 6] = [
    ("/workspace", 0o755),
    ("/home", 0o755),
    ("/root", 0o700),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/run", 0o755),
];
/// Directories of the system, which nobody works in.
const SYSTEM: [&str; 12] =
    ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr", "var"];
const DEADLINE: Duration = Duration::from_secs(60);
/// Where nobody caps a disk.
const UNCAPPED: u64 = 16 << 30;
/// The smallest file system that ext4 makes sense for.
const SMALLEST: u64 = 1 << 20;
/// A place of the engine's own is in memory: this part of it.
const MEMORY_PER_DISK: u64 = 2;

/// What a sandbox's files are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The container's root, capped by the storage driver.
    Root,
    /// A file with a file system in it.
    Image,
    /// Memory that we mounted, which counts files exactly.
    Memory,
    /// Memory that the engine mounts, one for each place: no cap over all.
    Engine,
}

/// A directory that can be written, and its mode where the image does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Absolute, inside.
    pub(crate) path: String,
    pub(crate) mode: u32,
    /// It is the default user's.
    pub(crate) owned: bool,
}

impl Kind {
    /// What suits limits on this engine.
    pub(crate) fn choose(facts: &Facts, ground: &Ground, limits: &ResourceLimits) -> Self {
        if facts.quota {
            Self::Root
        } else if facts.remote || ground.disks().is_err() {
            Self::Engine
        } else if limits.disk_inodes.is_some() {
            Self::Memory
        } else {
            Self::Image
        }
    }

    /// Whether the root is read-only and places are mounted.
    pub(crate) fn has_places(self) -> bool {
        self != Self::Root
    }

    /// Whether we mount it.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Image | Self::Memory)
    }
}

/// The writable places of a sandbox: the usual ones, its working directory, and what its image declares as volumes.
pub(crate) fn places(workdir: &str, volumes: &[String]) -> Vec<Place> {
    let usual = PLACES.map(|(path, mode)| Place { path: path.to_owned(), mode, owned: path == "/workspace" });
    let mut places = Vec::from(usual);
    let covered = |places: &[Place], path: &str| {
        places.iter().any(|place| path == place.path || path.starts_with(&format!("{}/", place.path)))
    };
    let plain =
        |path: &str| path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".");
    let top = |path: &str| path.split('/').nth(1).unwrap_or_default().to_owned();
    for volume in volumes.iter().map(|volume| volume.trim_end_matches('/')) {
        // A volume that is not covered would be one without a cap.
        if plain(volume) && !places.iter().any(|place| place.path == volume) {
            places.push(Place { path: volume.to_owned(), mode: 0o755, owned: false });
        }
    }
    let workdir = workdir.trim_end_matches('/');
    if plain(workdir) && !SYSTEM.contains(&top(workdir).as_str()) && !covered(&places, workdir) {
        places.push(Place { path: workdir.to_owned(), mode: 0o755, owned: true });
    }
    places
}

/// The size of each of the engine's own places.
pub(crate) fn engine_bytes(limits: &ResourceLimits) -> u64 {
    let memory = limits.memory_bytes.unwrap_or(2 << 30) / MEMORY_PER_DISK;
    limits.disk_bytes.map_or(memory, |bytes| bytes.min(memory))
}

/// Where a place is in a disk.
pub(crate) fn inside(disk: &Path, place: &str) -> PathBuf {
    disk.join(place.trim_start_matches('/'))
}

impl Ground {
    /// Makes the directory that a disk is mounted on.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn make_mount_point(&self, sandbox: &SandboxId) -> Result<()> {
        let point = self.mount_point(sandbox);
        fs::create_dir_all(&point)
            .map_err(|error| Error::internal(format!("make {}", point.display()), error))
    }

    /// Mounts an empty disk in memory.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn mount_memory(&self, sandbox: &SandboxId, limits: &ResourceLimits) -> Result<()> {
        let memory = limits.memory_bytes.unwrap_or(u64::MAX);
        let bytes = limits.disk_bytes.unwrap_or(memory / MEMORY_PER_DISK).min(memory);
        let inodes = limits.disk_inodes.unwrap_or(0);
        let options = format!("size={bytes},nr_inodes={inodes},mode=0755");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("disk"), &self.mount_point(sandbox), Some("tmpfs"), flags, Some(options.as_str()))
            .map_err(|errno| Error::internal("mount a disk in memory", errno))
    }

    /// Makes a disk in a file and mounts it. It has the directories that its mount point has from the first moment,
    /// so that whoever looks for one meanwhile finds it.
    ///
    /// # Errors
    /// `LimitReached` for a full host, `Internal`.
    pub(crate) async fn mount_image(&self, sandbox: &SandboxId, limits: &ResourceLimits) -> Result<()> {
        let image = self.disk_image(sandbox);
        let bytes = limits.disk_bytes.unwrap_or(UNCAPPED).max(SMALLEST);
        fs::File::create_new(&image)
            .and_then(|file| file.set_len(bytes))
            .map_err(|error| Error::internal(format!("make {}", image.display()), error))?;
        let image = image.display().to_string();
        let point = self.mount_point(sandbox).display().to_string();
        // No journal: after a crash of the host the sandbox is gone anyway.
        let features = ["-q", "-F", "-m", "0", "-O", "^has_journal"];
        let extended = ["-E", "nodiscard,lazy_itable_init=1,root_owner=0:0", "-d", &point, &image];
        tools::run("mkfs.ext4", features.into_iter().chain(extended), DEADLINE).await?;
        let options = ["-t", "ext4", "-o", "loop,nosuid,nodev,noatime,discard", &image, &point];
        tools::run("mount", options, DEADLINE).await
    }

    /// Makes sure that every place of a disk is a directory. What an image has in a place may be anything, even a
    /// link that the engine would follow to the host's own files.
    ///
    /// # Errors
    /// `Internal`; `LimitReached` for a full disk.
    pub(crate) fn make_places(
        &self,
        sandbox: &SandboxId,
        places: &[Place],
        owner: (u32, u32),
        first_id: u32,
    ) -> Result<()> {
        let disk = self.mount_point(sandbox);
        let _ = fs::remove_dir(disk.join("lost+found"));
        let spill = Place { path: SPILL.to_owned(), mode: 0o700, owned: false };
        for place in places.iter().chain([&spill]) {
            let path = inside(&disk, &place.path);
            let (uid, gid) = if place.owned { owner } else { (0, 0) };
            make_place(&path, place.mode, (uid + first_id, gid + first_id)).map_err(|error| {
                match error.raw_os_error() {
                    Some(nix::libc::ENOSPC) => Error::LimitReached {
                        what: "disk",
                        detail: "the disk is too small for its own directories".to_owned(),
                    },
                    _ => Error::internal(format!("make {}", path.display()), error),
                }
            })?;
        }
        Ok(())
    }

    /// Removes a sandbox's disk.
    pub(crate) fn remove_disk(&self, sandbox: &SandboxId) {
        let point = self.mount_point(sandbox);
        // More than one where a creation was cut short between two tries.
        while umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
        if let Err(error) = fs::remove_dir_all(&point)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %point.display(), %error, "a disk's mount point could not be removed");
        }
        let _ = fs::remove_file(self.disk_image(sandbox));
    }
}

fn make_place(path: &Path, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    fs::create_dir_all(path)?;
    set_owner(path, mode, (uid, gid))
}

/// Gives a directory its owner and mode.
///
/// # Errors
/// Of the kernel.
pub(crate) fn set_owner(path: &Path, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    chown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_can_be_written_unless_it_is_the_systems() {
        let paths = |workdir: &str, volumes: &[&str]| {
            let volumes: Vec<String> = volumes.iter().map(|&volume| volume.to_owned()).collect();
            places(workdir, &volumes)
                .into_iter()
                .skip(PLACES.len())
                .map(|place| place.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(paths("/app", &[]), ["/app"]);
        assert_eq!(paths("/app", &["/app/data/"]), ["/app/data", "/app"]);
        for covered in ["/", "", "/etc", "/usr/src/app", "/tmp/x", "/workspace", "/a/../etc"] {
            assert_eq!(paths(covered, &[]), [""; 0], "{covered}");
        }
        assert_eq!(paths("/", &["/var/lib/postgresql"]), ["/var/lib/postgresql"]);
    }

    #[test]
    fn a_link_in_a_place_becomes_a_directory() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("tmp");
        std::os::unix::fs::symlink("/etc", &place).unwrap();
        let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        make_place(&place, 0o1777, ids).unwrap();
        assert!(fs::symlink_metadata(&place).unwrap().is_dir());
    }
}
