//! Packing.

use crate::supervisor::failure::{Outcome, failure, refused};
use crate::supervisor::files::descent::Descent;
use crate::supervisor::files::{Root, split};
use hostel_guest_protocol::{Failure, FailureKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// What is left of a directory whose content is being packed.
struct Content {
    /// Names in reverse order.
    left: Vec<CString>,
    /// Length of the directory's own path.
    path_length: usize,
}

struct Packing {
    archive: Builder<Box<dyn Write>>,
    descent: Descent<Content>,
    /// Of the entry that is being packed, as it is named in the archive. One for all: in a deep tree one for each
    /// level would take much memory.
    path: Vec<u8>,
}

/// Packs a file or a directory, or the one that a link leads to, names relative to the directory that the path is in:
/// they begin with its last name where it has one, and are relative to the directory itself where it ends with `.` or
/// `..`.
pub(in crate::supervisor) fn pack(root: &Root, path: &str, archive: Box<dyn Write>) -> Outcome<()> {
    let mut packing = Packing { archive: Builder::new(archive), descent: Descent::new(), path: Vec::new() };
    let refused = |errno| refused(errno, path);
    if let Some((_, name)) = split(path) {
        packing.path.extend_from_slice(name.as_bytes());
    }
    match root.open_directory(path, OFlags::RDONLY) {
        Ok(directory) => packing.enter(directory)?,
        Err(Errno::NOTDIR) => packing.file(root.open_regular(path, OFlags::RDONLY).map_err(refused)?)?,
        Err(errno) => return Err(refused(errno)),
    }
    while let Some((directory, content)) = packing.descent.here() {
        let Some(name) = content.left.pop() else {
            packing.descent.leave().map_err(refused)?;
            continue;
        };
        packing.path.truncate(content.path_length);
        if !packing.path.is_empty() {
            packing.path.push(b'/');
        }
        packing.path.extend_from_slice(name.to_bytes());
        let directory = directory.try_clone().map_err(|error| unwritten(&error))?;
        packing.entry(&directory, &name)?;
    }
    let mut file = packing.archive.into_inner().map_err(|error| unwritten(&error))?;
    file.flush().map_err(|error| unwritten(&error))
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn unwritten(error: &std::io::Error) -> Failure {
    match Errno::from_io_error(error) {
        Some(errno) => refused(errno, "write the archive"),
        None => failure(FailureKind::Internal, format!("write the archive: {error}"), ""),
    }
}

fn header(stat: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

impl Packing {
    /// Packs what has that name in a directory; `self.path` says how it is called in the archive.
    fn entry(&mut self, directory: &OwnedFd, name: &CStr) -> Outcome<()> {
        // What vanished meanwhile is not packed.
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let Ok(target) = readlinkat(directory, name, Vec::new()) else { return Ok(()) };
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                let mut header = header(&stat, EntryType::Symlink);
                let path = as_path(&self.path);
                self.archive.append_link(&mut header, path, target).map_err(|error| unwritten(&error))
            }
            FileType::Directory => {
                let opened = openat(directory, name, flags | OFlags::DIRECTORY, Mode::empty());
                self.unless_vanished(opened)?.map_or(Ok(()), |opened| self.enter(opened))
            }
            FileType::RegularFile => {
                let opened = openat(directory, name, flags, Mode::empty());
                self.unless_vanished(opened)?.map_or(Ok(()), |opened| self.file(opened))
            }
            _ => Ok(()),
        }
    }

    /// `None` where it is gone, or another kind of thing, since it was looked at.
    fn unless_vanished(&self, opened: Result<OwnedFd, Errno>) -> Outcome<Option<OwnedFd>> {
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(errno) => Err(self.refused(errno)),
        }
    }

    fn refused(&self, errno: Errno) -> Failure {
        refused(errno, &String::from_utf8_lossy(&self.path))
    }

    fn enter(&mut self, directory: OwnedFd) -> Outcome<()> {
        if !self.path.is_empty() {
            let stat = fstat(&directory).map_err(|errno| self.refused(errno))?;
            let mut header = header(&stat, EntryType::Directory);
            self.archive
                .append_data(&mut header, as_path(&self.path), std::io::empty())
                .map_err(|error| unwritten(&error))?;
        }
        let left = names(&directory).map_err(|errno| self.refused(errno))?;
        let content = Content { left, path_length: self.path.len() };
        self.descent.enter(directory, content).map_err(|errno| self.refused(errno))
    }

    fn file(&mut self, file: OwnedFd) -> Outcome<()> {
        let stat = fstat(&file).map_err(|errno| self.refused(errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(&stat, EntryType::Regular);
        header.set_size(size);
        // The header promised a size: what was cut off meanwhile is zeros.
        let content = File::from(file).take(size).chain(std::io::repeat(0)).take(size);
        let path = as_path(&self.path);
        self.archive.append_data(&mut header, path, content).map_err(|error| unwritten(&error))
    }
}

/// Names in a directory, in reverse order.
fn names(directory: impl AsFd) -> Result<Vec<CString>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}
