//! Writing: a temporary file beside the target that takes its place when complete, or the file itself.

use super::{Named, Owner, Root, check, describe, give, not_of_the_kernel, split};
use crate::supervisor::failure::{Outcome, refused, wrong_state};
use hostel_guest_protocol::{File, OpenWrite};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid, fchmod, fchown, fstat, linkat, openat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// A file that the host is writing.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    path: String,
    file: OwnedFd,
    replace: Option<Replacement>,
}

/// What happens with a temporary file at the end.
#[derive(Debug)]
struct Replacement {
    target: Named,
    temporary: CString,
    mode: u32,
    owner: Owner,
    must_not_exist: bool,
}

impl Drop for Replacement {
    /// Without a commit the temporary file goes; after one the name is empty.
    fn drop(&mut self) {
        if !self.temporary.is_empty() {
            let _ = unlinkat(&self.target.directory, &self.temporary, AtFlags::empty());
        }
    }
}

/// Opens as asked. → what to commit later, the file's metadata, and a descriptor for the host.
pub(crate) fn open(root: &Root, ask: &OpenWrite, owner: Owner) -> Outcome<(PendingWrite, File, OwnedFd)> {
    check(&ask.path)?;
    let refused = |errno| refused(errno, &ask.path);
    if ask.create_parents
        && let Some((parent, _)) = split(&ask.path)
    {
        root.make_directories(parent, Mode::from_raw_mode(0o755), owner).map_err(refused)?;
    }
    let mode = ask.mode.unwrap_or(0o644) & 0o7777;
    let target = root.named_target(&ask.path).map_err(|errno| match errno {
        // The path as given names a directory, "/" or "..".
        Errno::INVAL => refused(Errno::ISDIR),
        other => refused(other),
    })?;
    if ask.must_not_exist && root.stat(&ask.path, false).is_ok() {
        return Err(refused(Errno::EXIST));
    }
    let pending = if ask.in_place {
        let file = open_in_place(&target, mode, owner).map_err(refused)?;
        PendingWrite { path: ask.path.clone(), file, replace: None }
    } else {
        let (file, replacement) = open_beside(target, mode, owner, ask.must_not_exist).map_err(refused)?;
        PendingWrite { path: ask.path.clone(), file, replace: Some(replacement) }
    };
    let stat = fstat(&pending.file).map_err(refused)?;
    let copy = rustix::io::fcntl_dupfd_cloexec(&pending.file, 3).map_err(refused)?;
    let file = describe(ask.path.clone(), &stat, || None);
    Ok((pending, file, copy))
}

fn open_in_place(target: &Named, mode: u32, owner: Owner) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    for _ in 0..16 {
        match openat(&target.directory, &target.name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
            Ok(file) if is_regular(&file)? => return not_of_the_kernel(&file).map(|()| file),
            Ok(_) => return Err(Errno::INVAL),
        }
        match openat(
            &target.directory,
            &target.name,
            flags | OFlags::CREATE | OFlags::EXCL,
            Mode::RUSR | Mode::WUSR,
        ) {
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
            Ok(file) => {
                give(&file, owner)?;
                fchmod(&file, Mode::from_raw_mode(mode))?;
                return Ok(file);
            }
        }
    }
    Err(Errno::BUSY)
}

fn is_regular(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::RegularFile)
}

fn open_beside(
    target: Named,
    mode: u32,
    owner: Owner,
    must_not_exist: bool,
) -> Result<(OwnedFd, Replacement), Errno> {
    let (mode, owner) = match statat(&target.directory, &target.name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => (mode, owner),
        Err(errno) => return Err(errno),
        Ok(there) => match FileType::from_raw_mode(there.st_mode) {
            FileType::RegularFile => (there.st_mode & 0o7777, Some((there.st_uid, there.st_gid))),
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        },
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..16 {
        let temporary = temporary_name()?;
        match openat(&target.directory, &temporary, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
            Ok(file) => return Ok((file, Replacement { target, temporary, mode, owner, must_not_exist })),
        }
    }
    Err(Errno::EXIST)
}

/// A name that nothing has.
pub(crate) fn temporary_name() -> Result<CString, Errno> {
    let mut random = [0; 8];
    // SAFETY: the pointer and length are those of `random`.
    let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    if usize::try_from(got) != Ok(random.len()) {
        return Err(Errno::IO);
    }
    let name = format!(".hostel-{:016x}", u64::from_ne_bytes(random));
    CString::new(name).map_err(|_| Errno::INVAL)
}

impl PendingWrite {
    /// The content is complete.
    ///
    /// # Errors
    /// Where it cannot take its place; the temporary file is gone then.
    pub(crate) fn commit(mut self) -> Outcome<File> {
        let refused = |errno| refused(errno, &self.path);
        if let Some(replacement) = &mut self.replace {
            replacement.finish(&self.file).map_err(refused)?;
        }
        let stat = fstat(&self.file).map_err(refused)?;
        Ok(describe(self.path.clone(), &stat, || None))
    }
}

impl Replacement {
    fn finish(&mut self, file: &OwnedFd) -> Result<(), Errno> {
        // Giving a file away clears its set-id bits, so the mode comes after.
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            match fchown(file, Some(uid), Some(gid)) {
                // An owner outside of our range cannot be kept.
                Err(Errno::INVAL | Errno::PERM) => {}
                other => other?,
            }
        }
        fchmod(file, Mode::from_raw_mode(self.mode))?;
        let directory = &self.target.directory;
        let (temporary, name): (&CStr, &CStr) = (&self.temporary, &self.target.name);
        if self.must_not_exist {
            match renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE) {
                // Not every file system can.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    return linkat(directory, temporary, directory, name, AtFlags::empty());
                }
                other => other?,
            }
        } else {
            renameat_with(directory, temporary, directory, name, RenameFlags::empty())?;
        }
        self.temporary = CString::default();
        Ok(())
    }
}

/// There is nothing to commit.
pub(crate) fn nothing() -> hostel_guest_protocol::Failure {
    wrong_state("NO_WRITE", "no file was opened for writing on this connection")
}
