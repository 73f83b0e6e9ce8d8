//! Namespaces of a jail that can be made before it is asked for: user ids and network.

use super::{At, Failed, errno_of};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::Signal;
use std::os::fd::{AsRawFd, OwnedFd};

/// User and group ids that each jail has of its own.
pub(super) const IDS_PER_JAIL: u32 = 65_536;

/// A user namespace and a network namespace that no process is in.
pub(super) struct Prepared {
    pub(super) user: OwnedFd,
    pub(super) network: OwnedFd,
}

/// Makes both. `uid_base` is the host's id for root inside.
pub(super) fn prepare(uid_base: u32, rootless: bool) -> Result<Prepared, Failed> {
    let (map, owner) =
        if rootless { ("0 0 1".to_owned(), 0) } else { (format!("0 {uid_base} {IDS_PER_JAIL}"), uid_base) };
    Ok(Prepared { user: as_user(owner, || user_namespace(&map))?, network: network_namespace()? })
}

/// What the kernel counts by user (inotify instances, namespaces, keys) it counts towards the user who made a
/// namespace as well: each jail's is made by an id of its own, so that no jail can use up another's share.
/// The zygote keeps its rights meanwhile ([`super::confine::keep_rights`]).
fn as_user<T>(id: u32, make: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    let switch = |id: u32| {
        // SAFETY: plain numbers; one thread, so that the kernel's per-thread id is the process's.
        let result = unsafe { libc::setresuid(u32::MAX, id, u32::MAX) };
        if result == 0 { Ok(()) } else { Err(errno_of(&std::io::Error::last_os_error())) }
    };
    switch(id).at("become the owner of a user namespace")?;
    let made = make();
    switch(0).at("become root again")?;
    made
}

/// A namespace lives as long as a descriptor of it: a child is born into it, gets its ids, and may go.
fn user_namespace(map: &str) -> Result<OwnedFd, Failed> {
    let zygote = rustix::process::getpid();
    // SAFETY: the zygote has one thread; the child only waits for its end.
    let child = match unsafe { super::clone3::clone3(u64::from(libc::CLONE_NEWUSER.unsigned_abs()), None) }
        .at("make a user namespace")?
    {
        super::clone3::Side::Parent(pid, pidfd) => (pid, pidfd),
        super::clone3::Side::Child => {
            // Where the zygote ends before it ends this one.
            let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let orphan = rustix::process::getppid() != Some(zygote);
            loop {
                // SAFETY: _exit(2) and pause(2) have no preconditions.
                unsafe { if tied.is_err() || orphan { libc::_exit(1) } else { libc::pause() } };
            }
        }
    };
    let namespace = map_ids(child.0, map).and_then(|()| {
        open(format!("/proc/{}/ns/user", child.0), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .at("open a user namespace")
    });
    let killed = rustix::process::pidfd_send_signal(&child.1, Signal::KILL);
    killed.at("end the holder of a user namespace")?;
    namespace
}

/// Gives a user namespace its ids (user_namespaces(7)).
fn map_ids(pid: u32, map: &str) -> Result<(), Failed> {
    for file in ["uid_map", "gid_map"] {
        write_file(&format!("/proc/{pid}/{file}"), map)?;
    }
    Ok(())
}

/// Moves this process into a new user namespace in which it is root, as an ordinary user may.
pub(super) fn become_root_of_own() -> Result<(), Failed> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: one thread; only namespaces of this process change.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) }
        .at("make a user namespace; the kernel must allow unprivileged ones (kernel.unprivileged_userns_clone, AppArmor)")?;
    write_file("/proc/self/setgroups", "deny")?;
    write_file("/proc/self/uid_map", &format!("0 {user} 1"))?;
    write_file("/proc/self/gid_map", &format!("0 {group} 1"))
}

fn write_file(path: &str, text: &str) -> Result<(), Failed> {
    std::fs::write(path, text).map_err(|error| errno_of(&error)).at(format!("write {text:?} to {path}"))
}

/// A network namespace with nothing but loopback, which is up.
fn network_namespace() -> Result<OwnedFd, Failed> {
    // SAFETY: one thread; the zygote itself uses no network and does not mind where it is.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .at("make a network namespace")?;
    raise_loopback().at("raise loopback")?;
    // Servers inside may use port 80; there is nobody to confuse.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at("open a network namespace")
}

/// `ip link set lo up`, by ioctl (netdevice(7)).
fn raise_loopback() -> Result<(), Errno> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: an ifreq of zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| Errno::INVAL)?;
    // SAFETY: the request is a whole ifreq that lives across the call, as SIOCSIFFLAGS wants.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(errno_of(&std::io::Error::last_os_error())) }
}
