//! Packing.

use crate::supervisor::failure::{Outcome, failure, refused};
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
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Deepest tree that is packed. A descriptor is open for each level.
const MOST_DEPTH: usize = 512;

/// A directory whose content is being packed.
struct Level {
    directory: OwnedFd,
    name: PathBuf,
    left: Vec<CString>,
}

struct Packing {
    archive: Builder<File>,
    levels: Vec<Level>,
}

/// Packs a file or a directory, names relative to the directory that it is in.
pub(super) fn pack(root: &Root, path: &str, archive: File) -> Outcome<()> {
    let mut packing = Packing { archive: Builder::new(archive), levels: Vec::new() };
    let refused = |errno| refused(errno, path);
    if split(path).is_some() {
        let named = root.named(path).map_err(refused)?;
        let name = PathBuf::from(OsStr::from_bytes(named.name.to_bytes()));
        packing.entry(&named.directory, &named.name, name)?;
    } else {
        let directory = root.open_directory(path, OFlags::RDONLY).map_err(refused)?;
        packing.enter(directory, PathBuf::new())?;
    }
    while let Some(level) = packing.levels.last_mut() {
        let Some(name) = level.left.pop() else {
            packing.levels.pop();
            continue;
        };
        let path = level.name.join(OsStr::from_bytes(name.to_bytes()));
        let directory = level.directory.try_clone().map_err(|error| unwritten(&error))?;
        packing.entry(&directory, &name, path)?;
    }
    let mut file = packing.archive.into_inner().map_err(|error| unwritten(&error))?;
    file.flush().map_err(|error| unwritten(&error))
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
    fn entry(&mut self, directory: &OwnedFd, name: &CStr, path: PathBuf) -> Outcome<()> {
        // What vanished meanwhile is not packed.
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let Ok(target) = readlinkat(directory, name, Vec::new()) else { return Ok(()) };
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                let mut header = header(&stat, EntryType::Symlink);
                self.archive.append_link(&mut header, &path, target).map_err(|error| unwritten(&error))
            }
            FileType::Directory => {
                let opened = openat(directory, name, flags | OFlags::DIRECTORY, Mode::empty());
                let opened = opened.map_err(|errno| refused(errno, &path.to_string_lossy()))?;
                self.enter(opened, path)
            }
            FileType::RegularFile => {
                let opened = openat(directory, name, flags, Mode::empty());
                let opened = opened.map_err(|errno| refused(errno, &path.to_string_lossy()))?;
                self.file(opened, &path)
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, directory: OwnedFd, path: PathBuf) -> Outcome<()> {
        let refused = |errno| refused(errno, &path.to_string_lossy());
        if self.levels.len() >= MOST_DEPTH {
            return Err(refused(Errno::NAMETOOLONG));
        }
        if !path.as_os_str().is_empty() {
            let stat = fstat(&directory).map_err(refused)?;
            let mut header = header(&stat, EntryType::Directory);
            self.archive
                .append_data(&mut header, &path, std::io::empty())
                .map_err(|error| unwritten(&error))?;
        }
        let left = names(&directory).map_err(refused)?;
        self.levels.push(Level { directory, name: path, left });
        Ok(())
    }

    fn file(&mut self, file: OwnedFd, path: &Path) -> Outcome<()> {
        let stat = fstat(&file).map_err(|errno| refused(errno, &path.to_string_lossy()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(&stat, EntryType::Regular);
        header.set_size(size);
        // The header promised a size: what was cut off meanwhile is zeros.
        let content = File::from(file).take(size).chain(std::io::repeat(0)).take(size);
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
