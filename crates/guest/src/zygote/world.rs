//! The zygote's own mount namespace. Each jail starts as a copy of it, and a copy costs by the number of
//! mounts: it holds only what jails are made from.
//!
//! ```text
//! /usr         the host's, read-only          /dev     device nodes that every jail shares, read-only
//! /templates   root file systems              /proc    needed to make namespaces
//! /cells       the jails' disks               /root, /upper, /lower/N    where a jail builds its root
//! ```

use super::mounts::{self, Change};
use super::{At, Failed, namespaces};
use hostel_guest_protocol::zygote::{Setup, SetupReply};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::os::fd::{AsFd, OwnedFd};

/// Most layers below one jail's own.
pub(super) const MAX_LAYERS: usize = 64;

/// The devices of a jail: name and number (`Documentation/admin-guide/devices.txt`).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What came of it, for the daemon.
pub(super) struct Entered {
    pub(super) message: SetupReply,
    pub(super) pool: Option<OwnedFd>,
}

/// Builds the namespace and moves into it.
pub(super) fn enter(setup: &Setup) -> Entered {
    match build(setup) {
        Ok((idmap, pool)) => {
            let abi = super::confine::landlock_abi();
            let message = SetupReply { idmap, landlock_abi: abi, ..Default::default() };
            Entered { message, pool }
        }
        Err(failed) => {
            Entered { message: SetupReply { failure: failed.to_string(), ..Default::default() }, pool: None }
        }
    }
}

fn build(setup: &Setup) -> Result<(bool, Option<OwnedFd>), Failed> {
    if setup.rootless {
        namespaces::become_root_of_own()?;
    }
    super::confine::keep_rights()?;
    // SAFETY: one thread; only this process's namespaces change.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.at("make a mount namespace")?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .at("make mounts private")?;
    rustix::process::umask(Mode::empty());

    // Copies are taken before anything covers the paths they come from.
    let usr = mounts::copy_of("/usr", true)?;
    let templates = mounts::copy_of(&setup.templates, false)?;
    let proc = mounts::copy_of("/proc", true)?;
    let (cells, pool) = match setup.pool_device.as_str() {
        "" => (mounts::copy_of(&setup.cells, false)?, None),
        device => {
            let mount = pool(device)?;
            let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root =
                rustix::fs::openat(mount.as_fd(), ".", directory, Mode::empty()).at("open the pool")?;
            (mount, Some(root))
        }
    };
    let devices = devices(setup.rootless)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let read_only =
        Change { set: Some(attributes | MountAttrFlags::MOUNT_ATTR_RDONLY), recursive: true, ids: None };
    mounts::change(usr.as_fd(), read_only).at("make /usr read-only")?;

    let root = mounts::new_file_system("tmpfs", &[("size", Some("1m"))], attributes)?;
    mounts::attach(root.as_fd(), "/tmp")?;
    rustix::process::chdir("/tmp").at("enter the new root")?;
    for directory in ["usr", "templates", "cells", "proc", "dev", "root", "upper", "lower", "old"] {
        make_directory(directory)?;
    }
    for layer in 0..MAX_LAYERS {
        make_directory(&format!("lower/{layer}"))?;
    }
    for (mount, path) in
        [(&usr, "usr"), (&templates, "templates"), (&cells, "cells"), (&proc, "proc"), (&devices, "dev")]
    {
        mounts::attach(mount.as_fd(), path)?;
    }
    if setup.rootless {
        bind_devices()?;
    }
    // All jails have this one tree, and without root each of them has its owner's id.
    mounts::change(
        devices.as_fd(),
        Change { set: Some(MountAttrFlags::MOUNT_ATTR_RDONLY), ..Default::default() },
    )
    .at("make /dev read-only")?;
    rustix::process::pivot_root(".", "old").at("pivot into the new root")?;
    rustix::process::chdir("/").at("enter the new root")?;
    unmount("/old", UnmountFlags::DETACH).at("let go of the host's root")?;
    let idmap = !setup.rootless && can_map_ids().is_ok();
    Ok((idmap, pool))
}

fn make_directory(path: &str) -> Result<(), Failed> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).at(format!("make {path}"))
}

/// The btrfs pool; the same device mounted again is the same file system, not a second one.
fn pool(device: &str) -> Result<OwnedFd, Failed> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    mounts::new_file_system("btrfs", &[("source", Some(device)), ("discard", Some("async"))], attributes)
}

/// The device tree that jails share: nodes of its own where we may make them, the host's nodes otherwise.
fn devices(rootless: bool) -> Result<OwnedFd, Failed> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let tree =
        mounts::new_file_system("tmpfs", &[("size", Some("64k")), ("mode", Some("0755"))], attributes)?;
    for (name, major, minor) in DEVICES {
        if rootless {
            let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(tree.as_fd(), name, flags, Mode::from_raw_mode(0o666))
                .at("make a place for a device")?;
        } else {
            let mode = Mode::from_raw_mode(0o666);
            let number = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(tree.as_fd(), name, rustix::fs::FileType::CharacterDevice, mode, number)
                .at(format!("make /dev/{name}"))?;
        }
    }
    for directory in ["pts", "shm"] {
        rustix::fs::mkdirat(tree.as_fd(), directory, Mode::from_raw_mode(0o755))
            .at("make a directory in /dev")?;
    }
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        rustix::fs::symlinkat(target, tree.as_fd(), link).at("make a link in /dev")?;
    }
    Ok(tree)
}

/// Puts the host's device nodes into their places. Only mounts that are attached take others (until Linux 6.15).
fn bind_devices() -> Result<(), Failed> {
    for (name, ..) in DEVICES {
        let node = mounts::copy_of(&format!("/dev/{name}"), false)?;
        mounts::attach(node.as_fd(), &format!("dev/{name}"))?;
    }
    Ok(())
}

/// Whether the file system of the templates can show other ids (`FS_ALLOW_IDMAP`).
fn can_map_ids() -> Result<(), Failed> {
    let prepared = namespaces::prepare(1 << 30, false)?;
    for path in ["/templates", "/cells"] {
        let copy = mounts::copy_of(path, false)?;
        mounts::change(copy.as_fd(), Change { ids: Some(prepared.user.as_fd()), ..Default::default() })
            .at("map ids of a mount")?;
    }
    Ok(())
}
