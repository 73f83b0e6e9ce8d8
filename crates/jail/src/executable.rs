//! The guest executable in sealed memory: nothing on disk can be swapped for it (CVE-2019-5736).

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// An executable without a name.
#[derive(Debug)]
pub(crate) struct Executable(File);

impl Executable {
    /// Puts the bytes into memory and seals it.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut file =
            File::from(memfd_create("hostel-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.write_all(bytes)?;
        fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok(Self(file))
    }

    /// The same file, for somebody else to keep.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn share(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Where a child of this process finds it until its exec.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}
