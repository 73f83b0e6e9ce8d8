//! Removal, of whole trees too, never following a link and never deep in calls.

use super::descent::{Descent, open_below};
use super::{Root, check};
use crate::supervisor::failure::{Outcome, failure, refused};
use hostel_guest_protocol::FailureKind;
use rustix::fs::{AtFlags, FileType, RawDir, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// Removes a file, link or empty directory.
pub(crate) fn remove(root: &Root, path: &str) -> Outcome<()> {
    check(path)?;
    let named = root.named(path).map_err(|errno| refused(errno, path))?;
    let kind = statat(&named.directory, &named.name, AtFlags::SYMLINK_NOFOLLOW)
        .map(|stat| FileType::from_raw_mode(stat.st_mode))
        .map_err(|errno| refused(errno, path))?;
    let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match unlinkat(&named.directory, &named.name, flags) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            Err(failure(FailureKind::WrongState, format!("{path} is not empty"), "DIRECTORY_NOT_EMPTY"))
        }
        other => other.map_err(|errno| refused(errno, path)),
    }
}

/// Removes a tree. Takes long: not for the supervisor itself.
pub(crate) fn remove_tree(root: &Root, path: &str) -> Outcome<()> {
    check(path)?;
    let named = root.named(path).map_err(|errno| refused(errno, path))?;
    remove_below(&named.directory, &named.name).map_err(|errno| refused(errno, path))
}

fn remove_below(directory: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let mut descent = Descent::new();
    descent.enter(open_below(directory, name)?, name.to_owned())?;
    while let Some((here, _)) = descent.here() {
        if let Some(below) = empty(here)? {
            match open_below(here, &below) {
                Ok(opened) => descent.enter(opened, below)?,
                // It is another thing by now, or gone: look again.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
            continue;
        }
        let Some(name) = descent.leave()? else { break };
        let parent = descent.here().map_or(directory, |(parent, _)| parent);
        match unlinkat(parent, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Somebody put something new into it: once more.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let again = open_below(parent, &name)?;
                descent.enter(again, name)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Removes everything in a directory up to the first directory that is not empty. → its name.
fn empty(directory: &OwnedFd) -> Result<Option<CString>, Errno> {
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags =
            if entry.file_type() == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(directory, name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => return Ok(Some(name.to_owned())),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}
