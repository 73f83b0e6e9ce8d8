//! The mount interface of Linux 5.2 and later (fsopen(2), open_tree(2), mount_setattr(2)), by descriptor.

use super::{At, Failed};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A new instance of a file system, not yet attached anywhere. An option without value is a flag.
pub(super) fn new_file_system(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Failed> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at(format!("open a {kind}"))?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), *key, *value),
            None => fsconfig_set_flag(context.as_fd(), *key),
        }
        .at(format!("set {key}={} of a {kind}", value.unwrap_or_default()))?;
    }
    fsconfig_create(context.as_fd()).at(format!("make a {kind}"))?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(format!("mount a {kind}"))
}

/// A handle on the file system of a mount, by which [`reconfigure`] changes it even when the mount is out of sight.
pub(super) fn pick(mount: BorrowedFd<'_>) -> Result<OwnedFd, Failed> {
    fspick(mount, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC).at("pick a file system")
}

/// Changes options of a file system that was picked.
pub(super) fn reconfigure(picked: OwnedFd, options: &[(&str, u64)]) -> Result<(), Failed> {
    for (key, value) in options {
        fsconfig_set_string(picked.as_fd(), *key, value.to_string())
            .at(format!("set {key}={value} of a file system"))?;
    }
    fsconfig_reconfigure(picked.as_fd()).at("change a file system")
}

/// A detached copy of the mount at a path, with everything below it where `recursive`.
pub(super) fn copy_of(path: &str, recursive: bool) -> Result<OwnedFd, Failed> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).at(format!("copy the mount at {path}"))
}

/// Attaches a detached mount at a path.
pub(super) fn attach(mount: BorrowedFd<'_>, path: &str) -> Result<(), Failed> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(format!("attach a mount at {path}"))
}

/// Attaches a detached mount on what a descriptor names, so that no name is resolved twice.
pub(super) fn attach_on(mount: BorrowedFd<'_>, target: BorrowedFd<'_>, what: &str) -> Result<(), Failed> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).at(format!("attach {what}"))
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// What to change of a mount.
#[derive(Default, Clone, Copy)]
pub(super) struct Change<'a> {
    /// Attributes to set.
    pub(super) set: Option<MountAttrFlags>,
    /// Show the ids on disk as the ids of this user namespace.
    pub(super) ids: Option<BorrowedFd<'a>>,
    /// With everything below.
    pub(super) recursive: bool,
}

/// Changes a mount.
pub(super) fn change(mount: BorrowedFd<'_>, change: Change<'_>) -> Result<(), Errno> {
    let mut attributes =
        MountAttributes { set: change.set.map_or(0, |flags| u64::from(flags.bits())), ..Default::default() };
    if let Some(ids) = change.ids {
        attributes.set |= MOUNT_ATTR_IDMAP;
        attributes.user_namespace = u64::try_from(ids.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string, the structure lives across the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(super::errno_of(&std::io::Error::last_os_error())) }
}
