//! The root of a jail: layers, its own writable files, /dev, /proc. Runs in the jail's new mount namespace,
//! before it gives up its rights. What has a size gets it when the jail is born ([`Sizes`]).

use super::jail::Plan;
use super::mounts::{self, Change};
use super::{At, Failed, errno_of, world};
use hostel_guest_protocol::zygote::{Birth, SYSTEM_V_UNBOUNDED};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, UnmountFlags, open_tree, unmount};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Files of /proc that tell of the host rather than of the jail.
const MASKED: [&str; 7] =
    ["config.gz", "cmdline", "keys", "key-users", "kallsyms", "interrupts", "timer_list"];

/// Directories of /proc that do so.
const MASKED_DIRECTORIES: [&str; 1] = ["pressure"];

/// Most terminals of a jail. All jails of a host together have `kernel.pty.max`, 4096 by default.
const TERMINALS: &str = "64";

/// Size of a tmpfs until its jail is born. Zero would be none at all.
const UNBORN: (&str, Option<&str>) = ("size", Some("1m"));
/// The smallest tmpfs.
const LEAST_BYTES: u64 = 4096;
/// The least shared memory.
const LEAST_SHARED: u64 = 1 << 20;
/// Most pages of System V shared memory.
const SHMALL: &str = "/proc/sys/kernel/shmall";
/// A file of shared memory that has nothing in it takes memory too, about a quarter of this.
const BYTES_PER_SHARED_FILE: u64 = 4096;

/// What of a jail in memory, that no process holds, has a size that depends on whose it is.
pub(super) struct Sizes {
    /// The tmpfs with its files, where they are in one.
    own: Option<OwnedFd>,
    shm: OwnedFd,
    /// Pages of System V shared memory in its namespace, where we may say so (proc(5), `shmall`).
    system_v: Result<OwnedFd, Errno>,
}

impl Sizes {
    /// Handles on them, which are no part of the jail that is born.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.own.iter().chain([&self.shm]).chain(self.system_v.as_ref().ok()).map(AsFd::as_fd)
    }

    /// Sets them; returns what could not be set. Needs the rights of the host's user namespace.
    pub(super) fn set(self, birth: &Birth) -> Result<Option<String>, Failed> {
        let shared = birth.shm_bytes.max(LEAST_SHARED);
        let files = shared / BYTES_PER_SHARED_FILE;
        mounts::reconfigure(self.shm, &[("size", shared), ("nr_inodes", files)])?;
        let weakness = match (self.system_v, birth.system_v_bytes) {
            (_, 0) => None,
            (Ok(pages), bytes) => {
                // SAFETY: sysconf(3) with a constant.
                let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(1);
                let text = (bytes / page).to_string();
                rustix::io::write(pages, text.as_bytes()).at("limit System V shared memory")?;
                None
            }
            (Err(errno), _) => Some(format!("{SYSTEM_V_UNBOUNDED}: {SHMALL} cannot be written: {errno}")),
        };
        if let Some(own) = self.own {
            let bytes = ("size", birth.tmpfs_bytes.max(LEAST_BYTES));
            match birth.tmpfs_inodes {
                0 => mounts::reconfigure(own, &[bytes])?,
                inodes => mounts::reconfigure(own, &[bytes, ("nr_inodes", inodes)])?,
            }
        }
        Ok(weakness)
    }
}

/// Builds the root and makes it this process's only one.
pub(super) fn enter(plan: &Plan) -> Result<Sizes, Failed> {
    create_as_jail(plan);
    let own = own_files(plan)?;
    let root = overlay(plan)?;
    mounts::attach(root.as_fd(), "/root")?;
    if plan.order.host_usr {
        let usr = mounts::copy_of("/usr", true)?;
        if let Some(ids) = plan.ids() {
            // What lies below /usr on other file systems may not support it; then owners show as nobody.
            let _ = mounts::change(usr.as_fd(), Change { ids: Some(ids), ..Default::default() });
        }
        mounts::attach_on(usr.as_fd(), place(root.as_fd(), "usr")?.as_fd(), "/usr")?;
    }
    let shm = device_tree(plan, root.as_fd())?;
    // Of this jail's namespace, though by the zygote's /proc; the jail's own takes no writes.
    let system_v = openat(rustix::fs::CWD, SHMALL, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    process_tree(root.as_fd())?;
    rustix::process::fchdir(root.as_fd()).at("enter the root")?;
    rustix::process::pivot_root(".", ".").at("pivot into the root")?;
    unmount(".", UnmountFlags::DETACH).at("let go of the zygote's root")?;
    rustix::process::chdir("/").at("enter the root")?;
    Ok(Sizes { own, shm, system_v })
}

/// What is created from here on belongs to root inside. Overlayfs too creates its own files as whoever mounted
/// it, and the host's root has no id in the mapped mounts of a jail.
fn create_as_jail(plan: &Plan) {
    // SAFETY: plain numbers; these calls report the old id, not success, and have a right to any id here.
    unsafe {
        libc::setfsgid(plan.root_id());
        libc::setfsuid(plan.root_id());
    }
}

/// Mounts the jail's own writable files at /upper: a tmpfs of its own, which it returns, or its cell on disk.
fn own_files(plan: &Plan) -> Result<Option<OwnedFd>, Failed> {
    if plan.order.in_memory {
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
        let tmpfs = mounts::new_file_system("tmpfs", &[UNBORN, ("mode", Some("0755"))], attributes)?;
        mounts::attach(tmpfs.as_fd(), "/upper")?;
        for name in ["upper", "work"] {
            mkdirat(tmpfs.as_fd(), name, Mode::from_raw_mode(0o755)).at("make a directory for writes")?;
        }
        std::os::unix::fs::chown("/upper/upper", Some(plan.root_id()), Some(plan.root_id()))
            .map_err(|error| errno_of(&error))
            .at("own the directory for writes")?;
        return mounts::pick(tmpfs.as_fd()).map(Some);
    }
    let cell = mounts::copy_of(&format!("/cells/{}", plan.order.cell), false)?;
    if let Some(ids) = plan.ids() {
        mounts::change(cell.as_fd(), Change { ids: Some(ids), ..Default::default() })
            .at("map ids of the cell")?;
    }
    mounts::attach(cell.as_fd(), "/upper")?;
    Ok(None)
}

fn overlay(plan: &Plan) -> Result<OwnedFd, Failed> {
    if plan.order.layers.len() > world::MAX_LAYERS {
        return Err(Errno::TOOBIG).at("stack the layers");
    }
    let mut lower = Vec::with_capacity(plan.order.layers.len());
    for (index, layer) in plan.order.layers.iter().enumerate() {
        // A layer with mapped ids must be attached somewhere for overlayfs to take it (Linux 6.1).
        let copy = mounts::copy_of(&format!("/{layer}"), false)?;
        if let Some(ids) = plan.ids() {
            mounts::change(copy.as_fd(), Change { ids: Some(ids), ..Default::default() })
                .at("map ids of a layer")?;
        }
        mounts::attach(copy.as_fd(), &format!("/lower/{index}"))?;
        lower.push(index.to_string());
    }
    // All of them together may have 255 bytes (fsconfig(2)): from here their names are short enough.
    rustix::process::chdir("/lower").at("enter the directory of layers")?;
    let lower = lower.join(":");
    let mut options = vec![
        ("lowerdir", Some(lower.as_str())),
        ("upperdir", Some("/upper/upper")),
        ("workdir", Some("/upper/work")),
    ];
    if plan.rootless {
        options.push(("userxattr", None));
    } else {
        // Nothing of a jail outlives its host, so that syncing it to disk would only cost.
        options.push(("volatile", None));
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    mounts::new_file_system("overlay", &options, attributes)
}

/// A directory in the root to mount on: made where absent, never reached through a link.
fn place(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Failed> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match openat2(root, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => {
            mkdirat(root, name, Mode::from_raw_mode(0o755)).at(format!("make /{name}"))?;
            openat2(root, name, flags, Mode::empty(), resolve)
        }
        other => other,
    }
    .at(format!("open /{name} of the template, which must be a directory"))
}

/// /dev, with a terminal device and shared memory of the jail's own; returns the latter's file system.
fn device_tree(plan: &Plan, root: BorrowedFd<'_>) -> Result<OwnedFd, Failed> {
    let tree = mounts::copy_of("/dev", true)?;
    mounts::attach_on(tree.as_fd(), place(root, "dev")?.as_fd(), "/dev")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let base = plan.root_id().to_string();
    let pts_options = [("mode", Some("0620")), ("ptmxmode", Some("0666")), ("max", Some(TERMINALS))];
    let pts = mounts::new_file_system("devpts", &pts_options, attributes)?;
    let shm_options =
        [UNBORN, ("mode", Some("1777")), ("uid", Some(base.as_str())), ("gid", Some(base.as_str()))];
    let shm = mounts::new_file_system("tmpfs", &shm_options, attributes | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    for (mount, name) in [(&pts, "pts"), (&shm, "shm")] {
        let directory = openat(tree.as_fd(), name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .at("open a place in /dev")?;
        mounts::attach_on(mount.as_fd(), directory.as_fd(), name)?;
    }
    mounts::pick(shm.as_fd())
}

/// /proc of the jail's own processes; what tells of the host is covered by /dev/null.
fn process_tree(root: BorrowedFd<'_>) -> Result<(), Failed> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = mounts::new_file_system("proc", &[], attributes)?;
    mounts::attach_on(proc.as_fd(), place(root, "proc")?.as_fd(), "/proc")?;
    // Some of these files take anybody's writes for an open, and refuse only later.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let settings = open_tree(proc.as_fd(), "sys", flags).at("copy the mount of /proc/sys")?;
    mounts::change(
        settings.as_fd(),
        Change { set: Some(MountAttrFlags::MOUNT_ATTR_RDONLY), ..Default::default() },
    )
    .at("make /proc/sys read-only")?;
    let place =
        openat(proc.as_fd(), "sys", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open /proc/sys")?;
    mounts::attach_on(settings.as_fd(), place.as_fd(), "/proc/sys")?;
    // Where the jail's shared memory is mounted there is an empty directory below, which nobody can write to.
    let masks = MASKED.map(|name| (name, "/dev/null")).into_iter();
    for (name, cover) in masks.chain(MASKED_DIRECTORIES.map(|name| (name, "/dev/shm"))) {
        let Ok(place) =
            openat(proc.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        else {
            continue;
        };
        let cover = mounts::copy_of(cover, false)?;
        mounts::attach_on(cover.as_fd(), place.as_fd(), "a mask")?;
    }
    Ok(())
}
