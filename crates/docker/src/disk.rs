//! The disk of a sandbox: one cap over everything it may write.
//!
//! Where the storage driver cannot cap a container's root, the root is read-only and the usual writable places are
//! directories of one file system of the right size, which we make and the engine binds. None of them is below another
//! one there, even where it is inside: what leads to a place is never anything that an image or a sandbox could
//! replace by a link to the host's own files.

use crate::abilities::Facts;
use crate::digits;
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
/// Where in the disk the places are that not every sandbox has.
const MORE: &str = ".place";
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
/// What an archive says about one file, whose path may be long.
const HEADERS: u64 = 8 << 10;

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
    /// Where it is in a disk. It ends as the path does, and depends on nothing else.
    pub(crate) directory: String,
}

impl Place {
    /// One of [`PLACES`].
    fn usual((path, mode): (&str, u32)) -> Self {
        let directory = path.trim_start_matches('/').to_owned();
        Self { path: path.to_owned(), mode, owned: path == "/workspace", directory }
    }

    /// Any other, with a cleaned path.
    fn more(path: &str, owned: bool) -> Self {
        let name = digits::name_of(path, 8);
        let last = path.rsplit('/').next().unwrap_or_default();
        Self { path: path.to_owned(), mode: 0o755, owned, directory: format!("{MORE}/{name}/{last}") }
    }

    /// What is at a cleaned path, usual or not.
    fn of(path: &str) -> Self {
        let usual = PLACES.into_iter().find(|(usual, _)| *usual == path);
        usual.map_or_else(|| Self::more(path, false), Self::usual)
    }

    /// Where it is in the disk that is mounted there.
    pub(crate) fn within(&self, disk: &Path) -> PathBuf {
        disk.join(&self.directory)
    }

    /// Where earlier daemons put it.
    fn former(&self) -> &str {
        self.path.trim_start_matches('/')
    }
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

/// An absolute path without `.`, `..`, and needless slashes, as an engine understands it; `None` for another one, and
/// for the root.
pub(crate) fn clean(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.strip_prefix('/')?.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}

/// The writable places of a sandbox: the usual ones, its working directory, and what its image declares as volumes,
/// whose paths are clean.
pub(crate) fn places(workdir: &str, volumes: &[String]) -> Vec<Place> {
    let mut places = Vec::from(PLACES.map(Place::usual));
    // One that is inside another place, too: the engine makes a volume without a cap where nothing is mounted.
    for volume in volumes {
        if !places.iter().any(|place| place.path == *volume) {
            places.push(Place::more(volume, false));
        }
    }
    let Some(workdir) = clean(workdir) else { return places };
    let top = workdir.split('/').nth(1).unwrap_or_default();
    let covered =
        places.iter().any(|place| workdir == place.path || workdir.starts_with(&format!("{}/", place.path)));
    if !SYSTEM.contains(&top) && !covered {
        places.push(Place::more(&workdir, true));
    }
    places
}

/// Where a cleaned path is in a disk, if it is a place of its own there.
pub(crate) fn directory_of(path: &str) -> String {
    Place::of(path).directory
}

/// Most bytes that a plain archive of a full disk has: what its files have, once more for headers and for what a file
/// system packs tightly, and the headers of many empty files where those take no room. More is of files that are
/// longer than what is in them.
pub(crate) fn archive_bytes(limits: &ResourceLimits) -> u64 {
    let bytes = limits.disk_bytes.unwrap_or(UNCAPPED).saturating_mul(2);
    bytes.saturating_add(limits.disk_inodes.unwrap_or(0).saturating_mul(HEADERS))
}

/// The size of each of the engine's own places.
pub(crate) fn engine_bytes(limits: &ResourceLimits) -> u64 {
    let memory = limits.memory_bytes.unwrap_or(2 << 30) / MEMORY_PER_DISK;
    limits.disk_bytes.map_or(memory, |bytes| bytes.min(memory))
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
        let of_place =
            |place: &Place| (place.within(&disk), place.mode, if place.owned { owner } else { (0, 0) });
        let spill = (disk.join(SPILL), 0o700, (0, 0));
        for (path, mode, (uid, gid)) in places.iter().map(of_place).chain([spill]) {
            make_place(&path, mode, (uid + first_id, gid + first_id)).map_err(|error| {
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

    /// Puts what a copy has where earlier daemons put places to where they are now. Nothing runs on the copy.
    pub(crate) fn move_places(&self, sandbox: &SandboxId, parent: &SandboxId, places: &[Place]) {
        let (disk, original) = (self.mount_point(sandbox), self.mount_point(parent));
        let mut former: Vec<&Place> = places
            .iter()
            .filter(|place| place.former() != place.directory)
            .filter(|place| fs::symlink_metadata(place.within(&original)).is_err())
            .filter(|place| is_below(&disk, place.former()))
            .collect();
        // One that was below another comes first.
        former.sort_by_key(|place| std::cmp::Reverse(place.path.len()));
        for place in former {
            if let Err(error) = fs::rename(disk.join(place.former()), place.within(&disk)) {
                tracing::warn!(%sandbox, path = place.path, %error, "files of a fork stay where nobody sees them");
            }
        }
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

/// Whether a directory is there and no link leads to it.
fn is_below(disk: &Path, path: &str) -> bool {
    let mut at = disk.to_owned();
    path.split('/').all(|part| {
        at.push(part);
        fs::symlink_metadata(&at).is_ok_and(|found| found.is_dir())
    })
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
        assert_eq!(paths("/app", &["/app/data"]), ["/app/data", "/app"]);
        assert_eq!(paths("//srv/./x/", &[]), ["/srv/x"]);
        for covered in ["/", "", "/etc", "/usr/src/app", "/tmp/x", "/workspace", "/a/../etc"] {
            assert_eq!(paths(covered, &[]), [""; 0], "{covered}");
        }
        assert_eq!(paths("/", &["/var/lib/postgresql"]), ["/var/lib/postgresql"]);
    }

    #[test]
    fn no_place_leads_through_another_one() {
        let volumes =
            ["/home/a/cron.d", "/var", "/data", "/data/deep", "/.spill", "/.place"].map(str::to_owned);
        let places = places("/home/a", &volumes);
        assert_eq!(places.len(), PLACES.len() + volumes.len());
        for (at, place) in places.iter().enumerate() {
            assert_eq!(place.directory.rsplit('/').next(), place.path.rsplit('/').next());
            for (_, other) in places.iter().enumerate().filter(|(other, _)| *other != at) {
                assert!(!Path::new(&place.directory).starts_with(&other.directory), "{place:?} in {other:?}");
            }
            assert!(!Path::new(&place.directory).starts_with(SPILL), "{place:?}");
        }
    }

    #[test]
    fn paths_are_cleaned_as_the_engine_cleans_them() {
        let cleaned = ["/./data", "/x/../data", "//data//", "/../data/."];
        assert!(cleaned.iter().all(|path| clean(path).as_deref() == Some("/data")));
        assert!(["", "data", "./data", "/", "/x/.."].iter().all(|path| clean(path).is_none()));
    }

    #[test]
    fn nothing_behind_a_link_is_below() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("app/real/data")).unwrap();
        std::os::unix::fs::symlink(home.path().join("app/real"), home.path().join("app/link")).unwrap();
        assert!(is_below(home.path(), "app/real/data"));
        assert!(!is_below(home.path(), "app/link/data") && !is_below(home.path(), "app/link"));
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
