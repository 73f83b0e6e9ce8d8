//! Small private files of the daemon: read with a check of mode and size, written whole or not at all.

use crate::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use secrecy::zeroize::Zeroizing;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use tempfile::Builder;

/// Who else may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// Nobody: mode 0600 or less.
    Owner,
    /// The group too. systemd gives a service's user its credentials through an ACL, which shows in the mode as the
    /// group's right to read (systemd.exec(5), "Credentials").
    Group,
    /// Anybody: nothing in it is secret.
    World,
}

/// Reads a file of at most `most` bytes; `None` where there is none. Links are not followed.
///
/// # Errors
/// [`Error::Storage`] where it is no plain file, is not private enough, is another user's or is too long.
pub(crate) fn read(path: &Path, privacy: Privacy, most: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => {
            return Err(Error::storage(path, "is a symbolic link; put the file itself here"));
        }
        Err(error) => return Err(Error::storage(path, error)),
    };
    let about = file.metadata().map_err(|error| Error::storage(path, error))?;
    if !about.is_file() {
        return Err(Error::storage(path, "is not a plain file"));
    }
    let (forbidden, wanted) = match privacy {
        Privacy::Owner => (0o077, "600"),
        Privacy::Group => (0o027, "640"),
        Privacy::World => (0o022, "644"),
    };
    let mode = about.mode() & 0o7777;
    if mode & forbidden != 0 {
        let problem = format!("has mode {mode:03o}; others could read or change it: chmod {wanted}");
        return Err(Error::storage(path, problem));
    }
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != own && about.uid() != 0 {
        return Err(Error::storage(path, format!("belongs to user {}, not to root or {own}", about.uid())));
    }
    let mut content =
        Zeroizing::new(Vec::with_capacity(usize::try_from(about.len().min(most)).unwrap_or(0) + 1));
    file.take(most + 1).read_to_end(&mut content).map_err(|error| Error::storage(path, error))?;
    if content.len() as u64 > most {
        return Err(Error::storage(path, format!("is longer than {most} bytes")));
    }
    Ok(Some(content))
}

/// Writes a file so that after a power cut it has the old content or the new, never a part. `replace` says whether
/// one that is there gives way.
///
/// # Errors
/// [`Error::Storage`] where it cannot be written, or is there and must not give way.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32, replace: bool) -> Result<()> {
    let failed = |error: std::io::Error| Error::storage(path, error);
    let directory = path.parent().ok_or_else(|| Error::storage(path, "has no directory"))?;
    let permissions = std::fs::Permissions::from_mode(mode);
    let mut file =
        Builder::new().prefix(".new-").permissions(permissions).tempfile_in(directory).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    let kept = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map_err(|error| failed(error.error))?;
    sync_directory(directory)
}

/// Removes a file; whether it was there.
///
/// # Errors
/// [`Error::Storage`] where it cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_directory).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::storage(path, error)),
    }
}

/// Makes a directory that only its owner can enter, where it is missing.
///
/// # Errors
/// [`Error::Storage`] where it cannot be made, or others can write in it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |error: std::io::Error| Error::storage(path, error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let mode = std::fs::metadata(path).map_err(failed)?.mode();
    if mode & 0o022 != 0 {
        let problem = format!("has mode {:03o}; others could put files in it: chmod 700", mode & 0o7777);
        return Err(Error::storage(path, problem));
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| Error::storage(path, error))
}
