//! Probes at mounts, namespaces and devices: jail.md §7c 1 to 18.
//!
//! Most would change the host where they are allowed, so they are made to fail after the permission check:
//! a denial is a refusal, every other answer is an escape.

use crate::abuse::{Context, Probe};
use crate::sys::{self, Outcome, sys};
use crate::verdict::{Verdict, all, must_be_denied, must_fail, own_directory};
use std::ffi::{CStr, CString};

pub(crate) const PROBES: &[Probe] = &[
    ("mount-tmpfs", mount_tmpfs),
    ("mount-bind", mount_bind),
    ("mount-file-system-types", mount_types),
    ("mount-cgroup-v1", mount_cgroup),
    ("mount-propagation", mount_propagation),
    ("remount-root", remount_root),
    ("remount-usr-writable", remount_usr),
    ("umount-proc", umount_proc),
    ("fsopen", |_| must_be_denied("fsopen", closing(sys!(SYS_fsopen, c"tmpfs", 0)))),
    ("fspick", |_| must_be_denied("fspick", closing(sys!(SYS_fspick, libc::AT_FDCWD, c"/proc", 0)))),
    ("open-tree-clone", |_| {
        // OPEN_TREE_CLONE.
        must_be_denied("open_tree", closing(sys!(SYS_open_tree, libc::AT_FDCWD, c"/", 1)))
    }),
    ("move-mount", |_| {
        must_be_denied(
            "move_mount",
            sys!(SYS_move_mount, libc::AT_FDCWD, c"/nowhere", libc::AT_FDCWD, c"/nowhere", 0),
        )
    }),
    ("mount-setattr", mount_setattr),
    ("pivot-root", |_| must_be_denied("pivot_root", sys!(SYS_pivot_root, c"/nowhere", c"/nowhere"))),
    ("chroot", |_| must_be_denied("chroot", sys!(SYS_chroot, c"/"))),
    ("chroot-escape", chroot_escape),
    ("dot-dot-above-root", dot_dot),
    ("unshare-user", |_| unshare(libc::CLONE_NEWUSER)),
    ("unshare-mount", |_| unshare(libc::CLONE_NEWNS)),
    ("unshare-net", |_| unshare(libc::CLONE_NEWNET)),
    ("unshare-pid", |_| unshare(libc::CLONE_NEWPID)),
    ("unshare-ipc", |_| unshare(libc::CLONE_NEWIPC)),
    ("unshare-uts", |_| unshare(libc::CLONE_NEWUTS)),
    ("unshare-cgroup", |_| unshare(libc::CLONE_NEWCGROUP)),
    // CLONE_NEWTIME is in the byte that clone(2) uses for the exit signal.
    ("unshare-time", |_| unshare(0x80)),
    ("unshare-user-and-all", |_| unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET)),
    ("clone-user", clone_user),
    ("clone3-user", clone3_user),
    ("setns-pid-1", setns_files),
    ("setns-pidfd", setns_pidfd),
    ("open-by-handle", open_by_handle),
    ("mknod-block", |_| mknod(libc::S_IFBLK, c"/sys/dev/block")),
    ("mknod-char", |_| mknod(libc::S_IFCHR, c"/sys/dev/char")),
    ("devices", devices),
    ("device-tree-write", device_tree),
    ("cgroupfs-write", cgroupfs_write),
    ("cgroup-path", cgroup_path),
    ("mountinfo-host-paths", mountinfo),
];

/// Closes a descriptor that a call gave.
fn closing(outcome: Outcome) -> Outcome {
    outcome.inspect(|descriptor| sys::close(*descriptor))
}

/// Tries a mount and undoes it.
fn try_mount(what: &str, source: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Verdict {
    let directory = own_directory();
    let flags = flags.cast_signed();
    let outcome = sys!(SYS_mount, source, directory.as_c_str(), kind, flags, data);
    if outcome.is_ok() {
        let _ = sys!(SYS_umount2, directory.as_c_str(), libc::MNT_DETACH);
    }
    let _ = sys!(SYS_unlinkat, libc::AT_FDCWD, directory.as_c_str(), libc::AT_REMOVEDIR);
    must_be_denied(what, outcome)
}

fn mount_tmpfs(_: &Context) -> Verdict {
    try_mount("mount tmpfs", c"none", c"tmpfs", 0, c"size=4k")
}

fn mount_bind(_: &Context) -> Verdict {
    try_mount("bind mount", c"/proc", c"none", libc::MS_BIND, c"")
}

fn mount_types(_: &Context) -> Verdict {
    let kinds = [
        c"proc",
        c"sysfs",
        c"debugfs",
        c"tracefs",
        c"bpf",
        c"devtmpfs",
        c"devpts",
        c"securityfs",
        c"mqueue",
        c"overlay",
    ];
    all(kinds.map(|kind| {
        let what = format!("mount {}", kind.to_string_lossy());
        match try_mount(&what, c"none", kind, 0, c"") {
            // No such file system in this kernel: nothing was passed.
            Verdict::Escaped(detail) if detail.contains("(os error 19)") => Verdict::Refused(detail),
            verdict => verdict,
        }
    }))
}

fn mount_cgroup(_: &Context) -> Verdict {
    try_mount("mount cgroup v1", c"cgroup", c"cgroup", 0, c"memory")
}

fn mount_propagation(_: &Context) -> Verdict {
    // A path that is no mount point fails with EINVAL, after the permission check.
    let outcome = sys!(SYS_mount, c"none", c"/proc/self", c"none", libc::MS_PRIVATE.cast_signed(), 0);
    must_be_denied("change propagation", outcome)
}

/// The flags that a mount has now, to be given again.
fn present_flags(path: &CStr) -> i64 {
    let mut status = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with NUL and there is room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return 0;
    }
    // SAFETY: the call filled it in; zero would be valid too.
    let flags = unsafe { status.assume_init() }.f_flag;
    // ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC have the values of their MS_ twins; relatime and noatime too.
    let same = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOATIME;
    (flags & same).cast_signed()
}

fn remount_root(_: &Context) -> Verdict {
    let flags = present_flags(c"/") | (libc::MS_REMOUNT | libc::MS_BIND).cast_signed();
    must_be_denied("remount /", sys!(SYS_mount, c"none", c"/", c"none", flags, 0))
}

fn remount_usr(_: &Context) -> Verdict {
    let flags = (present_flags(c"/usr") & !libc::MS_RDONLY.cast_signed())
        | (libc::MS_REMOUNT | libc::MS_BIND).cast_signed();
    must_be_denied("remount /usr writable", sys!(SYS_mount, c"none", c"/usr", c"none", flags, 0))
}

fn umount_proc(_: &Context) -> Verdict {
    // These two flags exclude each other, which is found after the permission check.
    must_be_denied("umount /proc", sys!(SYS_umount2, c"/proc", libc::MNT_EXPIRE | libc::MNT_DETACH))
}

fn mount_setattr(_: &Context) -> Verdict {
    // struct mount_attr: clear MOUNT_ATTR_RDONLY. On a path that is no mount point it changes nothing.
    let mut attributes = [0_u8; 32];
    attributes[8] = 1;
    let outcome = sys!(SYS_mount_setattr, libc::AT_FDCWD, c"/proc/self", 0, attributes.as_mut_slice(), 32);
    must_be_denied("mount_setattr", outcome)
}

fn chroot_escape(_: &Context) -> Verdict {
    let root = sys::open(c"/", libc::O_RDONLY | libc::O_DIRECTORY);
    let Ok(root) = root else { return Verdict::skipped("cannot open /") };
    let moved =
        sys!(SYS_chroot, c"/tmp").and_then(|_| sys!(SYS_fchdir, root)).and_then(|_| sys!(SYS_chdir, c".."));
    must_be_denied("leave a chroot", moved)
}

fn identity(path: &CStr) -> Option<(u64, u64)> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path ends with NUL and there is room for the answer.
    if unsafe { libc::stat(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call filled it in.
    let status = unsafe { status.assume_init() };
    Some((status.st_dev, status.st_ino))
}

fn dot_dot(_: &Context) -> Verdict {
    let above = CString::new("/".to_owned() + &"../".repeat(64)).unwrap_or_default();
    if identity(&above) == identity(c"/") {
        Verdict::refused("/../.. is /")
    } else {
        Verdict::escaped("there is something above /")
    }
}

fn unshare(flags: i32) -> Verdict {
    must_fail("unshare", sys!(SYS_unshare, flags))
}

/// A child made by a raw clone call says nothing and ends at once.
fn cloned(what: &str, outcome: Outcome) -> Verdict {
    match outcome {
        Ok(0) => sys::leave(0),
        other => must_fail(what, other),
    }
}

fn clone_user(_: &Context) -> Verdict {
    cloned("clone", sys!(SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0))
}

fn clone3_user(_: &Context) -> Verdict {
    // struct clone_args: flags at 0, exit_signal at 32; 88 bytes since Linux 5.7.
    let mut arguments = [0_u8; 88];
    arguments[..8].copy_from_slice(&i64::from(libc::CLONE_NEWUSER).to_ne_bytes());
    arguments[32..40].copy_from_slice(&i64::from(libc::SIGCHLD).to_ne_bytes());
    cloned("clone3", sys!(SYS_clone3, arguments.as_mut_slice(), 88))
}

fn setns_files(_: &Context) -> Verdict {
    let kinds = ["mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time"];
    all(kinds.map(|kind| {
        let path = CString::new(format!("/proc/1/ns/{kind}")).unwrap_or_default();
        match sys::open(&path, libc::O_RDONLY) {
            Err(errno) => Verdict::refused(format!("open {kind}: {errno}")),
            Ok(descriptor) => must_fail(kind, sys!(SYS_setns, descriptor, 0)),
        }
    }))
}

fn setns_pidfd(_: &Context) -> Verdict {
    match sys!(SYS_pidfd_open, 1, 0) {
        Err(errno) => Verdict::refused(format!("pidfd_open: {errno}")),
        Ok(descriptor) => {
            must_fail("setns", sys!(SYS_setns, descriptor, libc::CLONE_NEWNS | libc::CLONE_NEWNET))
        }
    }
}

fn open_by_handle(_: &Context) -> Verdict {
    // struct file_handle for inode 2, the root of ext4: 8 bytes of handle, type FILEID_INO32_GEN.
    let mut handle = [0_u8; 16];
    handle[0] = 8;
    handle[4] = 1;
    handle[8] = 2;
    must_be_denied(
        "open_by_handle_at",
        closing(sys!(SYS_open_by_handle_at, libc::AT_FDCWD, handle.as_mut_slice(), libc::O_RDONLY)),
    )
}

/// Makes a node for each device listed and tries to open it.
fn mknod(kind: u32, listing: &CStr) -> Verdict {
    // Where /sys is absent: 1:1 is /dev/mem as a character device, 8:0 a disk, 7:0 a loop device, 254:0 virtio.
    let mut numbers = vec![(1, 1), (8, 0), (7, 0), (254, 0), (10, 237)];
    let listed = std::fs::read_dir(listing.to_string_lossy().as_ref()).into_iter().flatten().flatten();
    numbers.extend(listed.take(16).filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (major, minor) = name.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }));
    // A watchdog that is opened must be served for ever.
    numbers.retain(|(major, minor)| kind == libc::S_IFBLK || (*major, *minor) != (10, 130));
    let path = CString::new(format!("/tmp/hostel-probe-node-{}", std::process::id())).unwrap_or_default();
    all(numbers.into_iter().map(|(major, minor)| {
        let device = libc::makedev(major, minor).cast_signed();
        let verdict = match sys!(SYS_mknodat, libc::AT_FDCWD, path.as_c_str(), kind | 0o600, device) {
            Err(errno) => Verdict::refused(format!("mknod {major}:{minor}: {errno}")),
            Ok(_) => match sys::open(&path, libc::O_RDONLY) {
                Err(errno) => Verdict::refused(format!("open {major}:{minor}: {errno}")),
                Ok(_) => Verdict::escaped(format!("opened device {major}:{minor}")),
            },
        };
        let _ = sys!(SYS_unlinkat, libc::AT_FDCWD, path.as_c_str(), 0);
        verdict
    }))
}

fn devices(_: &Context) -> Verdict {
    let paths = [
        c"/dev/vda",
        c"/dev/sda",
        c"/dev/nvme0n1",
        c"/dev/mem",
        c"/dev/port",
        c"/dev/kmsg",
        c"/dev/kvm",
        c"/dev/fuse",
        c"/dev/net/tun",
        c"/dev/loop-control",
        c"/dev/loop0",
        c"/dev/console",
        c"/dev/tty0",
        c"/dev/tty1",
        c"/dev/vsock",
        c"/dev/vhost-vsock",
        c"/dev/vhost-net",
        c"/dev/btrfs-control",
        c"/dev/mapper/control",
        c"/dev/uinput",
        c"/dev/userfaultfd",
        c"/dev/hwrng",
        c"/dev/cuse",
        c"/dev/snapshot",
        c"/dev/autofs",
        c"/dev/rtc0",
        c"/dev/ptp0",
    ];
    all(paths.map(|path| must_fail(&path.to_string_lossy(), sys::open(path, libc::O_RDONLY))))
}

/// Jails share one tree of devices.
fn device_tree(_: &Context) -> Verdict {
    if std::path::Path::new("/.dockerenv").exists() {
        return Verdict::skipped("a container has a tree of its own");
    }
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    let made = closing(sys!(SYS_openat, libc::AT_FDCWD, c"/dev/hostel-note", flags, 0o600));
    if made.is_ok() {
        let _ = sys!(SYS_unlinkat, libc::AT_FDCWD, c"/dev/hostel-note", 0);
    }
    let linked = sys!(SYS_symlinkat, c"/nowhere", libc::AT_FDCWD, c"/dev/hostel-link");
    if linked.is_ok() {
        let _ = sys!(SYS_unlinkat, libc::AT_FDCWD, c"/dev/hostel-link", 0);
    }
    // Nothing changes where it is allowed.
    let renamed = sys!(SYS_renameat2, libc::AT_FDCWD, c"/dev/ptmx", libc::AT_FDCWD, c"/dev/ptmx", 0);
    all([
        must_fail("make a file in /dev", made),
        must_fail("make a link in /dev", linked),
        must_fail("rename /dev/ptmx", renamed),
    ])
}

/// Control files anywhere under the cgroup mounts, three levels deep.
fn cgroupfs_write(_: &Context) -> Verdict {
    let mut directories = vec![(std::path::PathBuf::from("/sys/fs/cgroup"), 0)];
    let (mut seen, mut verdicts) = (0, vec![Verdict::refused("searched /sys/fs/cgroup")]);
    while let Some((directory, depth)) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 3 && seen < 200 {
                seen += 1;
                directories.push((path, depth + 1));
            } else if ["cgroup.procs", "tasks", "release_agent", "memory.max", "memory.limit_in_bytes"]
                .iter()
                .any(|known| name == *known)
            {
                let text = path.to_string_lossy().into_owned();
                let path = CString::new(text.clone()).unwrap_or_default();
                verdicts.push(must_fail(&text, sys::open(&path, libc::O_WRONLY)));
            }
        }
    }
    match all(verdicts) {
        Verdict::Refused(_) => Verdict::refused("nothing under /sys/fs/cgroup can be written"),
        verdict => verdict,
    }
}

fn cgroup_path(_: &Context) -> Verdict {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match text.lines().find(|line| !line.ends_with(":/")) {
        Some(line) => Verdict::escaped(format!("the cgroup shows: {line}")),
        None => Verdict::refused("every cgroup is /"),
    }
}

fn mountinfo(context: &Context) -> Verdict {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if text.is_empty() {
        return Verdict::refused("there is no mountinfo");
    }
    for line in text.lines() {
        // proc(5): the fourth field is the root of the mount within its file system.
        let root = line.split(' ').nth(3).unwrap_or_default();
        let private =
            ["/var/lib/", "/home/", "/root/", "/run/"].iter().any(|prefix| root.starts_with(prefix));
        let named = context.host_paths.iter().any(|path| line.contains(path.as_str()));
        // Engines bind these single files into containers; they name a container, not the host.
        let expected = ["/resolv.conf", "/hostname", "/hosts"].iter().any(|name| root.ends_with(name));
        if (private && !expected) || named {
            return Verdict::escaped(format!("a mount shows a path of the host: {line}"));
        }
    }
    Verdict::refused("no mount shows a path of the host")
}
