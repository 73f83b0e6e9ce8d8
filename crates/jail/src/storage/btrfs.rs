//! The btrfs calls that the pool needs (linux/btrfs.h). Subvolumes are made, copied and limited in
//! microseconds, which no other file system of the kernel offers.

use rustix::fs::{AtFlags, Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const NAME_MAX: usize = 255;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArguments {
    descriptor: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolumeArgumentsV2 {
    descriptor: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
#[derive(Default)]
struct QuotaLimit {
    group: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InodeLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

const SUBVOLUME_CREATE: libc::Ioctl = nix::request_code_write!(0x94, 14, size_of::<VolumeArguments>());
const SNAPSHOT_DESTROY: libc::Ioctl = nix::request_code_write!(0x94, 15, size_of::<VolumeArguments>());
const INODE_LOOKUP: libc::Ioctl = nix::request_code_readwrite!(0x94, 18, size_of::<InodeLookup>());
const SNAPSHOT_CREATE_V2: libc::Ioctl = nix::request_code_write!(0x94, 23, size_of::<VolumeArgumentsV2>());
const QUOTA_CONTROL: libc::Ioctl = nix::request_code_readwrite!(0x94, 40, size_of::<QuotaControl>());
const QUOTA_LIMIT: libc::Ioctl = nix::request_code_read!(0x94, 43, size_of::<QuotaLimit>());

const QUOTA_ENABLE: u64 = 1;
/// Simple quotas, since Linux 6.7: who allocates an extent pays for it, snapshots cost nothing extra.
const QUOTA_ENABLE_SIMPLE: u64 = 4;
const LIMIT_MAX_REFERENCED: u64 = 1;
/// `BTRFS_FIRST_FREE_OBJECTID`: the root directory of every subvolume.
const ROOT_DIRECTORY: u64 = 256;

fn call<T>(descriptor: BorrowedFd<'_>, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: each request above is declared with the size of the structure it is called with, which lives
    // across the call; the kernel checks the rest.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn copy_name(name: &str, to: &mut [u8]) -> io::Result<()> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains(['/', '\0']) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    to[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

/// Turns quotas on, simple ones where the kernel has them. Returns whether they are simple.
pub(super) fn enable_quota(root: BorrowedFd<'_>) -> io::Result<bool> {
    let simple = call(root, QUOTA_CONTROL, &mut QuotaControl { command: QUOTA_ENABLE_SIMPLE, status: 0 });
    match simple {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(true),
        Err(_) => match call(root, QUOTA_CONTROL, &mut QuotaControl { command: QUOTA_ENABLE, status: 0 }) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            _ => Ok(false),
        },
    }
}

/// Makes an empty subvolume.
pub(super) fn create(root: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let mut arguments = VolumeArguments { descriptor: 0, name: [0; 4088] };
    copy_name(name, &mut arguments.name)?;
    call(root, SUBVOLUME_CREATE, &mut arguments)?;
    open(root, name)
}

/// Makes a writable copy-on-write copy of a subvolume.
pub(super) fn snapshot(root: BorrowedFd<'_>, source: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let mut arguments = VolumeArgumentsV2 {
        descriptor: i64::from(source.as_raw_fd()),
        transaction: 0,
        flags: 0,
        unused: [0; 4],
        name: [0; 4040],
    };
    copy_name(name, &mut arguments.name)?;
    call(root, SNAPSHOT_CREATE_V2, &mut arguments)?;
    open(root, name)
}

/// Removes a subvolume with everything in it; the space comes back in the background.
pub(super) fn destroy(root: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut arguments = VolumeArguments { descriptor: 0, name: [0; 4088] };
    copy_name(name, &mut arguments.name)?;
    call(root, SNAPSHOT_DESTROY, &mut arguments)
}

/// Caps the bytes of a subvolume.
pub(super) fn limit(subvolume: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    let mut limit =
        QuotaLimit { flags: LIMIT_MAX_REFERENCED, max_referenced: bytes, ..QuotaLimit::default() };
    call(subvolume, QUOTA_LIMIT, &mut limit)
}

/// The number of a subvolume, by which its quota group goes.
pub(super) fn tree_of(subvolume: BorrowedFd<'_>) -> io::Result<u64> {
    let mut lookup = InodeLookup { tree: 0, object: ROOT_DIRECTORY, name: [0; 4080] };
    call(subvolume, INODE_LOOKUP, &mut lookup)?;
    Ok(lookup.tree)
}

/// Opens a directory below another, never through a link.
pub(super) fn open(root: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(root, name, flags, Mode::empty())?)
}

/// Whether a directory is the root of a subvolume.
pub(super) fn is_subvolume(root: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(root.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_ino == ROOT_DIRECTORY)
}
