//! Unpacking.

use crate::supervisor::failure::{Outcome, failure, invalid, refused};
use crate::supervisor::files::write::temporary_name;
use crate::supervisor::files::{Owner, Root, give};
use hostel_guest_protocol::{Failure, FailureKind};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod, futimens, linkat,
    mkdirat, openat, openat2, renameat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use tar::{Archive, Entry, EntryType};

/// Most entries of an archive.
const MOST_ENTRIES: u64 = 1_000_000;
/// Every name is resolved as if the directory that is unpacked into were the root.
const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const COPY: usize = 128 << 10;

struct Unpacking {
    base: OwnedFd,
    owner: Owner,
    buffer: Vec<u8>,
    /// Directories get their final mode and times after what is in them.
    directories: Vec<(String, u32, i64)>,
}

/// Unpacks. → the number of entries.
pub(in crate::supervisor) fn unpack(
    root: &Root,
    path: &str,
    archive: Box<dyn Read>,
    owner: Owner,
) -> Outcome<u64> {
    let base = root.open_directory(path, OFlags::RDONLY).map_err(|errno| refused(errno, path))?;
    let mut unpacking = Unpacking { base, owner, buffer: vec![0; COPY], directories: Vec::new() };
    let mut archive = Archive::new(archive);
    let mut count = 0;
    for entry in archive.entries().map_err(|error| broken(&error))? {
        count += 1;
        if count > MOST_ENTRIES {
            return Err(invalid("archive", format!("more than {MOST_ENTRIES} entries")));
        }
        unpacking.entry(entry.map_err(|error| broken(&error))?)?;
    }
    unpacking.finish_directories();
    // What follows the end of the archive is read, so that whoever sends it is not interrupted.
    let mut rest = archive.into_inner();
    while rest.read(&mut unpacking.buffer).is_ok_and(|count| count > 0) {}
    Ok(count)
}

fn broken(error: &std::io::Error) -> Failure {
    invalid("archive", format!("the archive is broken: {error}"))
}

/// What the kernel answered to an entry. The directory that is unpacked into was there: whatever is missing, or in
/// the way, the archive is at fault.
fn impossible(errno: Errno, path: &str) -> Failure {
    let failure = refused(errno, path);
    match failure.kind() {
        FailureKind::NotFound | FailureKind::Exists | FailureKind::Invalid | FailureKind::WrongState => {
            invalid("archive", failure.message)
        }
        FailureKind::Internal | FailureKind::Limit | FailureKind::Denied => failure,
    }
}

/// The names of a path in an archive, one by one; `None` where it tries to climb.
fn clean(path: &Path) -> Option<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join("/"))
}

impl Unpacking {
    fn entry(&mut self, mut entry: Entry<'_, Box<dyn Read>>) -> Outcome<()> {
        let raw = entry.path().map_err(|error| broken(&error))?.into_owned();
        let Some(path) = clean(&raw) else {
            return Err(invalid("archive", format!("{} leads out of the directory", raw.display())));
        };
        let kind = entry.header().entry_type();
        if path.is_empty() {
            return Ok(());
        }
        let mode = entry.header().mode().map_or(0o644, |mode| mode & 0o7777);
        let modified = entry.header().mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
        let done = match kind {
            EntryType::Directory => {
                self.directory(&path).map(|()| self.directories.push((path.clone(), mode, modified)))
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&path, mode, modified, &mut entry)?
            }
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name().map_err(|error| broken(&error))?;
                let Some(target) = target else { return Err(invalid("archive", "a link without a target")) };
                if kind == EntryType::Link {
                    self.hard_link(&path, &target)
                } else {
                    self.link(&path, &target)
                }
            }
            EntryType::Char | EntryType::Block => {
                return Err(invalid("archive", format!("{path} is a device, which is not unpacked")));
            }
            // Pipes and what other programs put into archives.
            _ => Ok(()),
        };
        done.map_err(|errno| impossible(errno, &path))
    }

    /// The directory that a name is in, made where absent, and the name.
    fn parent(&self, path: &str) -> Result<(OwnedFd, CString), Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match self.open(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                let ends = parent.match_indices('/').map(|(end, _)| end).chain([parent.len()]);
                for end in ends {
                    self.directory(&parent[..end])?;
                }
                Ok((self.open(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
            }
            opened => Ok((opened?, name)),
        }
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        for _ in 0..16 {
            match openat2(&self.base, path, flags | OFlags::CLOEXEC, Mode::empty(), RESOLVE) {
                // Somebody renamed something on the way while the kernel looked (openat2(2)).
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::BUSY)
    }

    /// Makes a directory unless it is there, be it by a link.
    fn directory(&self, path: &str) -> Result<(), Errno> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => return Ok(()),
            // Only what is no directory, or a link to none, is replaced.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno),
        }
        let (parent, name) = self.parent(path)?;
        match mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {
                unlinkat(&parent, &name, AtFlags::empty())?;
                mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
            }
            other => other?,
        }
        self.give_name(&parent, &name)
    }

    fn give_name(&self, parent: &OwnedFd, name: &CString) -> Result<(), Errno> {
        let Some((uid, gid)) = self.owner else { return Ok(()) };
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Writes a file beside its place and moves it there: a link in that place is replaced, never followed.
    fn file(
        &mut self,
        path: &str,
        mode: u32,
        modified: i64,
        content: &mut Entry<'_, Box<dyn Read>>,
    ) -> Outcome<Result<(), Errno>> {
        let (parent, name) = match self.parent(path) {
            Ok(parent) => parent,
            Err(errno) => return Ok(Err(errno)),
        };
        let temporary = temporary_name().map_err(|errno| refused(errno, path))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: File = match openat(&parent, &temporary, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file.into(),
            Err(errno) => return Ok(Err(errno)),
        };
        let written = self.copy(content, &mut file).and_then(|()| {
            let times = times(modified);
            let placed = give(file.as_fd(), self.owner)
                .and_then(|()| fchmod(&file, Mode::from_raw_mode(mode)))
                .and_then(|()| futimens(&file, &times))
                .and_then(|()| renameat(&parent, &temporary, &parent, &name));
            placed.map_err(|errno| impossible(errno, path))
        });
        if written.is_err() {
            let _ = unlinkat(&parent, &temporary, AtFlags::empty());
        }
        written.map(Ok)
    }

    fn copy(&mut self, content: &mut Entry<'_, Box<dyn Read>>, file: &mut File) -> Outcome<()> {
        let mut left = content.size();
        loop {
            let count = content.read(&mut self.buffer).map_err(|error| broken(&error))?;
            if count == 0 {
                // To the tar crate an archive that is cut off ends like an entry.
                return if left == 0 { Ok(()) } else { Err(invalid("archive", "the archive is cut short")) };
            }
            left = left.saturating_sub(count as u64);
            file.write_all(&self.buffer[..count]).map_err(|error| match Errno::from_io_error(&error) {
                Some(errno) => refused(errno, "write"),
                None => failure(FailureKind::Internal, error.to_string(), ""),
            })?;
        }
    }

    fn link(&self, path: &str, target: &Path) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        match symlinkat(target, &parent, &name) {
            Err(Errno::EXIST) => {
                unlinkat(&parent, &name, AtFlags::empty())?;
                symlinkat(target, &parent, &name)?;
            }
            other => other?,
        }
        self.give_name(&parent, &name)
    }

    fn hard_link(&self, path: &str, target: &Path) -> Result<(), Errno> {
        let target = clean(target).filter(|target| !target.is_empty()).ok_or(Errno::INVAL)?;
        let (from, from_name) = self.parent(&target)?;
        let (parent, name) = self.parent(path)?;
        let mut linked = linkat(&from, &from_name, &parent, &name, AtFlags::empty());
        if linked == Err(Errno::EXIST) {
            unlinkat(&parent, &name, AtFlags::empty())?;
            linked = linkat(&from, &from_name, &parent, &name, AtFlags::empty());
        }
        // Not permitted is what the kernel says of directories.
        linked.map_err(|errno| if errno == Errno::PERM { Errno::ISDIR } else { errno })
    }

    /// Innermost first. What has been changed meanwhile stays as it is.
    fn finish_directories(&mut self) {
        for (path, mode, modified) in std::mem::take(&mut self.directories).into_iter().rev() {
            let Ok(directory) = self.open(&path, OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
            let _ = fchmod(&directory, Mode::from_raw_mode(mode));
            let _ = utimensat(&directory, c".", &times(modified), AtFlags::empty());
        }
    }
}

fn times(modified: i64) -> Timestamps {
    let time = Timespec { tv_sec: modified, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::clean;
    use std::path::Path;

    #[test]
    fn names_never_climb() {
        assert_eq!(clean(Path::new("./a//b/./c")).as_deref(), Some("a/b/c"));
        assert_eq!(clean(Path::new("/etc/passwd")).as_deref(), Some("etc/passwd"));
        assert_eq!(clean(Path::new("a/../../b")), None);
        assert_eq!(clean(Path::new("..")), None);
        assert_eq!(clean(Path::new("./")).as_deref(), Some(""));
    }
}
