//! Files, for the host. Every path is resolved by the kernel below the root, and nothing here follows a link
//! out of it: `openat2(2)` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`.

pub(crate) mod descent;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod write;

use super::failure::{Outcome, failure, invalid, refused};
use hostel_guest_protocol::{FailureKind, File, FileKind, MakeDirectory, Rename};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid, fchmod, fchown, fstat,
    mkdirat, openat2, readlinkat, renameat_with, statat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

/// Longest path, in bytes, as the kernel has it.
const MOST_PATH: usize = 4096;
/// Most links followed for one path, as the kernel has it.
const MOST_LINKS: usize = 40;
const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Who owns what the host makes.
pub(crate) type Owner = Option<(u32, u32)>;

/// The root of the sandbox.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) directory: OwnedFd,
    pub(crate) name: CString,
}

impl Root {
    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(c"/", flags, Mode::empty())? })
    }

    /// Makes it the current directory.
    pub(crate) fn enter(&self) -> Result<(), Errno> {
        rustix::process::fchdir(&self.fd)
    }

    /// Opens a path that need not be valid yet.
    pub(crate) fn open(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        if path.len() >= MOST_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..16 {
            match openat2(&self.fd, path, flags, mode, RESOLVE) {
                // Somebody renamed something on the way while the kernel looked.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::BUSY)
    }

    /// Opens a regular file, and nothing else: no pipe that blocks, no device.
    pub(crate) fn open_regular(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let fd = self.open(path, flags | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
            FileType::RegularFile => not_of_the_kernel(&fd).map(|()| fd),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    /// Opens a directory.
    pub(crate) fn open_directory(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open(path, flags | OFlags::DIRECTORY, Mode::empty())
    }

    /// The directory that a path's last name is in, and that name.
    pub(crate) fn named(&self, path: &str) -> Result<Named, Errno> {
        let (parent, name) = split(path).ok_or(Errno::INVAL)?;
        let directory = self.open_directory(parent, OFlags::PATH)?;
        Ok(Named { directory, name: CString::new(name).map_err(|_| Errno::INVAL)? })
    }

    /// The same for what the path finally means when its last name is a link, there or not.
    pub(crate) fn named_target(&self, path: &str) -> Result<Named, Errno> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let named = self.named(&path)?;
            let target = match readlinkat(&named.directory, &named.name, Vec::new()) {
                Ok(target) => target.into_string().map_err(|_| Errno::INVAL)?,
                Err(_) => return Ok(named),
            };
            path = match split(&path) {
                Some((parent, _)) if !target.starts_with('/') => format!("{parent}/{target}"),
                _ => target,
            };
        }
        Err(Errno::LOOP)
    }

    /// Makes a directory and all that are missing above it. → whether the last one is new.
    pub(crate) fn make_directories(&self, path: &str, mode: Mode, owner: Owner) -> Result<bool, Errno> {
        let mut missing = vec![path.trim_end_matches('/')];
        let mut made = false;
        while let Some(path) = missing.pop() {
            if path.is_empty() || self.open_directory(path, OFlags::PATH).is_ok() {
                continue;
            }
            let last = missing.is_empty();
            match self.make_directory(path, if last { mode } else { Mode::from_raw_mode(0o755) }, owner) {
                Ok(()) => made = last,
                Err(Errno::EXIST) => drop(self.open_directory(path, OFlags::PATH)?),
                Err(Errno::NOENT) if missing.len() < MOST_PATH => {
                    let (parent, _) = split(path).ok_or(Errno::NOENT)?;
                    // A link to nowhere looks absent for ever; in a parent that is there, as in /proc, nothing can be
                    // made.
                    if parent.is_empty()
                        || missing.last() == Some(&parent)
                        || self.open_directory(parent, OFlags::PATH).is_ok()
                    {
                        return Err(Errno::NOENT);
                    }
                    missing.extend([path, parent]);
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(made)
    }

    fn make_directory(&self, path: &str, mode: Mode, owner: Owner) -> Result<(), Errno> {
        let named = self.named(path)?;
        mkdirat(&named.directory, &named.name, mode)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&named.directory, &named.name, flags, Mode::empty())?;
        give(&made, owner)?;
        fchmod(&made, mode)
    }

    /// Metadata.
    pub(crate) fn stat(&self, path: &str, follow: bool) -> Outcome<File> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let fd = self.open(path, flags, Mode::empty()).map_err(|errno| refused(errno, path))?;
        let stat = fstat(&fd).map_err(|errno| refused(errno, path))?;
        Ok(describe(path.to_owned(), &stat, || readlinkat(&fd, c"", Vec::new()).ok()))
    }
}

/// Files of procfs are refused: some are doors into the process that opened them, this one, and a link to one
/// can be anywhere.
pub(crate) fn not_of_the_kernel(file: impl AsFd) -> Result<(), Errno> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    if kind == rustix::fs::PROC_SUPER_MAGIC { Err(Errno::ACCESS) } else { Ok(()) }
}

/// Gives a file to its owner-to-be.
pub(crate) fn give(file: impl AsFd, owner: Owner) -> Result<(), Errno> {
    owner.map_or(Ok(()), |(uid, gid)| fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
}

/// Checks what every path has to fulfil.
pub(crate) fn check(path: &str) -> Outcome<()> {
    if !path.starts_with('/') {
        return Err(invalid("path", "a path begins with /"));
    }
    if path.contains('\0') || path.len() >= MOST_PATH {
        return Err(invalid("path", format!("a path has less than {MOST_PATH} bytes and no NUL")));
    }
    Ok(())
}

/// The path of the directory, without a slash at its end, and the last name. `None` for the root and for
/// names that are not names.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = if parent.is_empty() { "/" } else { parent };
    (!matches!(name, "" | "." | "..")).then_some((parent, name))
}

/// Puts metadata into the protocol's words.
pub(crate) fn describe(path: String, stat: &Stat, link: impl FnOnce() -> Option<CString>) -> File {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let link_target = if kind == FileKind::Symlink { link() } else { None };
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    File {
        path,
        kind: kind.into(),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        link_target: link_target.map(|target| target.to_string_lossy().into_owned()),
    }
}

/// Metadata of a name in a directory, of a link itself.
pub(crate) fn stat_name(directory: impl AsFd, name: &CStr, path: String) -> Result<File, Errno> {
    let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(describe(path, &stat, || readlinkat(&directory, name, Vec::new()).ok()))
}

/// Makes a directory as asked.
pub(crate) fn make_directory(root: &Root, ask: &MakeDirectory, owner: Owner) -> Outcome<File> {
    check(&ask.path)?;
    let mode = Mode::from_raw_mode(ask.mode.unwrap_or(0o755) & 0o7777);
    let made = if ask.parents {
        root.make_directories(&ask.path, mode, owner).map(|_| ())
    } else if split(&ask.path).is_none() && root.open_directory(&ask.path, OFlags::PATH).is_ok() {
        Err(Errno::EXIST)
    } else {
        root.make_directory(&ask.path, mode, owner)
    };
    made.map_err(|errno| refused(errno, &ask.path))?;
    root.stat(&ask.path, true)
}

/// Moves as asked.
pub(crate) fn rename(root: &Root, ask: &Rename) -> Outcome<File> {
    check(&ask.from)?;
    check(&ask.to)?;
    let from = root.named(&ask.from).map_err(|errno| refused(errno, &ask.from))?;
    let to = root.named(&ask.to).map_err(|errno| refused(errno, &ask.to))?;
    let flags = if ask.overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    match renameat_with(&from.directory, &from.name, &to.directory, &to.name, flags) {
        Ok(()) => {}
        Err(Errno::NOTEMPTY) => {
            let message = format!("{} is a directory that is not empty", ask.to);
            return Err(failure(FailureKind::WrongState, message, "DIRECTORY_NOT_EMPTY"));
        }
        Err(Errno::EXIST) if ask.overwrite => {
            let message = format!("{} is a directory that is not empty", ask.to);
            return Err(failure(FailureKind::WrongState, message, "DIRECTORY_NOT_EMPTY"));
        }
        Err(Errno::EXIST) => return Err(refused(Errno::EXIST, &ask.to)),
        Err(errno) => return Err(refused(errno, &format!("move {} to {}", ask.from, ask.to))),
    }
    stat_name(&to.directory, &to.name, ask.to.clone()).map_err(|errno| refused(errno, &ask.to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_the_last_name() {
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a//b//"), Some(("/a/", "b")));
        assert_eq!(split("/a"), Some(("/", "a")));
        for path in ["/", "", "//", "/a/..", "/.", "/a/./"] {
            assert_eq!(split(path), None, "{path}");
        }
    }
}
