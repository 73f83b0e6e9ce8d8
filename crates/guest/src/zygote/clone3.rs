//! clone3(2), which neither libc nor the crates wrap.

use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct clone_args`, up to the field of Linux 5.7.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;

/// Which of the two came back.
pub(super) enum Side {
    /// The parent, with the child's number and a descriptor of it.
    Parent(u32, OwnedFd),
    /// The child.
    Child,
}

/// Clones this process with new namespaces, straight into a cgroup where one is given.
///
/// # Safety
/// The process must have one thread: the child is a copy of memory in which nobody else's locks may be held.
pub(super) unsafe fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Errno> {
    let mut pidfd: i32 = -1;
    let mut arguments = CloneArguments {
        flags: namespaces | CLONE_PIDFD,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..Default::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: the arguments are those of a fork (no stack, no shared memory), so that the child returns here on
    // its own copy of the stack; the caller promised a single thread.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArguments>()) };
    match u32::try_from(result) {
        Ok(0) => Ok(Side::Child),
        Ok(pid) => {
            // SAFETY: CLONE_PIDFD made a new descriptor that nobody else owns.
            Ok(Side::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
        Err(_) => Err(super::errno_of(&std::io::Error::last_os_error())),
    }
}
