//! The daemon's directories: made private, checked, and the state locked against a second daemon.

use crate::config::Config;
use crate::error::{Error, Result};
use nix::unistd::geteuid;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Both directories, ready. While this lives no other daemon uses the same state.
pub(crate) struct Directories {
    _lock: File,
}

impl Directories {
    /// Makes what is missing and takes the lock.
    ///
    /// # Errors
    /// [`Error::Directory`] where a directory cannot be used, or another daemon uses it.
    pub(crate) fn prepare(config: &Config) -> Result<Self> {
        make(&config.state_directory, 0o700)?;
        // The socket is in here; its own mode says who may use it.
        make(&config.runtime_directory, if geteuid().is_root() { 0o755 } else { 0o700 })?;
        Ok(Self { _lock: lock(&config.state_directory)? })
    }
}

/// Makes a directory where it is missing, and refuses one that is not ours alone to write.
///
/// # Errors
/// [`Error::Directory`].
pub(crate) fn make(directory: &Path, mode: u32) -> Result<()> {
    let failed = |detail: String| Error::Directory { path: directory.to_owned(), detail };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .map_err(|error| failed(format!("cannot be made: {error}")))?;
    let metadata = std::fs::symlink_metadata(directory).map_err(|error| failed(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(failed("is not a directory, or a link to one: give the real path".to_owned()));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(failed(format!("belongs to user {}, not to us: move it away", metadata.uid())));
    }
    // In a place like /tmp somebody else might have made it first, open to all.
    if metadata.mode() & 0o022 != 0 {
        return Err(failed("others may write to it: chmod go-w it".to_owned()));
    }
    Ok(())
}

fn lock(state: &Path) -> Result<File> {
    let path = state.join("lock");
    let failed = |detail: String| Error::Directory { path: path.clone(), detail };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(failed(
            "another daemon uses this state directory: stop it, or give another one with --state-dir"
                .to_owned(),
        )),
        Err(TryLockError::Error(error)) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_second_daemon_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::in_directories(&directory.path().join("a/state"), &directory.path().join("run"));
        let first = Directories::prepare(&config).unwrap();
        let error = Directories::prepare(&config).err().unwrap().to_string();
        assert!(error.contains("another daemon"), "{error}");
        drop(first);
        assert!(Directories::prepare(&config).is_ok());
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::in_directories(&directory.path().join("state"), &directory.path().join("run"));
        std::fs::create_dir(&config.runtime_directory).unwrap();
        std::fs::set_permissions(&config.runtime_directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Directories::prepare(&config).is_err());
    }
}
