//! Descriptors that a guest handed over: anything until looked at.

use crate::failure::broken;
use hostel_sandbox::{Error, Result};
use hostel_untrusted_socket::Descriptor;
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

fn is_kind(fd: &OwnedFd, kind: FileType) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
}

/// A pipe, and nothing else.
pub(crate) fn pipe(descriptor: Descriptor) -> Result<OwnedFd> {
    let pipe = descriptor.take_if(|fd| is_kind(fd, FileType::Fifo));
    pipe.ok_or_else(|| broken("a descriptor that should be a pipe is none"))
}

/// A stream socket of that family that listens, and does not block.
pub(crate) fn listener(descriptor: Descriptor, family: AddressFamily) -> Result<OwnedFd> {
    let listener = descriptor.take_if(|socket| {
        is_kind(socket, FileType::Socket)
            && sockopt::socket_acceptconn(socket) == Ok(true)
            && sockopt::socket_domain(socket) == Ok(family)
            && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
            && rustix::io::ioctl_fionbio(socket, true).is_ok()
    });
    listener.ok_or_else(|| broken("a descriptor that should be a listening socket is none"))
}

/// A regular file that can be read without waiting for anybody.
pub(crate) fn readable_file(descriptor: Descriptor) -> Result<OwnedFd> {
    file(descriptor, &SLOW)
}

/// A regular file that holds data and switches nothing.
pub(crate) fn writable_file(descriptor: Descriptor) -> Result<OwnedFd> {
    file(descriptor, &SWITCHES)
}

fn file(descriptor: Descriptor, refused: &[u32]) -> Result<OwnedFd> {
    let mut problem = "not a regular file";
    let file = descriptor.take_if(|file| {
        if !is_kind(file, FileType::RegularFile) {
            return false;
        }
        problem = "a file of a file system that holds no plain data";
        let refused =
            |system| refused.iter().any(|magic| i128::from(*magic) == i128::from(system) & 0xffff_ffff);
        fstatfs(file).is_ok_and(|system| !refused(system.f_type))
    });
    file.ok_or_else(|| Error::invalid("path", problem))
}
