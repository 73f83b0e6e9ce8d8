//! Descriptors that a guest handed over: anything until looked at.

use crate::failure::broken;
use hostel_sandbox::{Error, Result};
use rustix::fs::{FileType, fstat, fstatfs};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::os::fd::OwnedFd;

/// Magic numbers (`statfs(2)`) of file systems whose files are the kernel's own switches. Some check the rights
/// of who writes instead of who opened, so a guest could lend ours.
const SWITCHES: [u32; 15] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x4249_4e4d, // binfmt_misc
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinux
    0x4341_5d53, // smack
    0x6165_676c, // pstore
    FUSE,
];
/// File systems whose files can make a reader wait for ever.
const SLOW: [u32; 3] = [FUSE, 0x7472_6163, 0x6462_6720];
const FUSE: u32 = 0x6573_5546;

/// A received descriptor. It is closed where blocking is allowed: closing a socket can take as long as its
/// owner wished (`SO_LINGER`).
#[derive(Debug)]
pub(crate) struct Descriptor(Option<OwnedFd>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            // So that many of them do not take all threads that may block. Its owner may be setting it again.
            let _ = sockopt::set_socket_linger(&fd, None);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn_blocking(move || drop(fd));
            }
        }
    }
}

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }

    fn into_kind(mut self, kind: FileType) -> Option<OwnedFd> {
        let is_kind =
            |fd: &OwnedFd| fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind);
        if self.0.as_ref().is_some_and(is_kind) { self.0.take() } else { None }
    }

    /// A pipe, and nothing else.
    pub(crate) fn into_pipe(self) -> Result<OwnedFd> {
        self.into_kind(FileType::Fifo).ok_or_else(|| broken("a descriptor that should be a pipe is none"))
    }

    /// A stream socket of that family that listens, and does not block.
    pub(crate) fn into_listener(self, family: AddressFamily) -> Result<OwnedFd> {
        let wrong = || broken("a descriptor that should be a listening socket is none");
        let is_listener = |socket: &OwnedFd| {
            sockopt::socket_acceptconn(socket) == Ok(true)
                && sockopt::socket_domain(socket) == Ok(family)
                && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
                && rustix::io::ioctl_fionbio(socket, true).is_ok()
        };
        // What is none stays in here, to be closed where that may take time.
        if !self.0.as_ref().is_some_and(is_listener) {
            return Err(wrong());
        }
        self.into_kind(FileType::Socket).ok_or_else(wrong)
    }

    /// A regular file that can be read without waiting for anybody.
    pub(crate) fn into_readable_file(self) -> Result<OwnedFd> {
        self.into_file(&SLOW)
    }

    /// A regular file that holds data and switches nothing.
    pub(crate) fn into_writable_file(self) -> Result<OwnedFd> {
        self.into_file(&SWITCHES)
    }

    fn into_file(self, refused: &[u32]) -> Result<OwnedFd> {
        let not_a_file = || Error::invalid("path", "not a regular file");
        let file = self.into_kind(FileType::RegularFile).ok_or_else(not_a_file)?;
        let system = fstatfs(&file).map_err(|errno| Error::internal("fstatfs", errno))?.f_type;
        if refused.iter().any(|magic| i128::from(*magic) == i128::from(system) & 0xffff_ffff) {
            return Err(Error::invalid("path", "a file of a file system that holds no plain data"));
        }
        Ok(file)
    }
}
