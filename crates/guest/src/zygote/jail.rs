//! From an order of the daemon to a running guest: clone, then step by step into the jail.

use super::clone3::{Side, clone3};
use super::namespaces::Prepared;
use super::{At, Failed, confine, errno_of, root};
use crate::supervisor::{self, Inherited};
use hostel_guest_protocol::zygote::CloneJail;
use hostel_guest_protocol::{Welcome, frame};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Everything a clone needs, checked before there is one.
pub(super) struct Plan {
    pub(super) order: CloneJail,
    pub(super) rootless: bool,
    idmap: bool,
    prepared: Prepared,
    first: OwnedFd,
    listener: OwnedFd,
    spill: OwnedFd,
    cgroup: Option<OwnedFd>,
    oom_counter: Option<OwnedFd>,
    join: Vec<OwnedFd>,
}

impl Plan {
    /// Sorts the descriptors out, in the order that [`CloneJail`] gives.
    pub(super) fn new(
        order: CloneJail,
        descriptors: Vec<OwnedFd>,
        prepared: Prepared,
        idmap: bool,
        rootless: bool,
    ) -> Result<Self, Failed> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or(Errno::BADF).at("find the descriptors of an order");
        let (first, listener, spill) = (next()?, next()?, next()?);
        let cgroup = order.has_cgroup2.then(&mut next).transpose()?;
        let oom_counter = order.has_oom_file.then(&mut next).transpose()?;
        let join = (0..order.join_files).map(|_| next()).collect::<Result<_, _>>()?;
        Ok(Self { order, rootless, idmap, prepared, first, listener, spill, cgroup, oom_counter, join })
    }

    /// The user namespace whose ids mounts shall show, where mounts can.
    pub(super) fn ids(&self) -> Option<BorrowedFd<'_>> {
        self.idmap.then(|| self.prepared.user.as_fd())
    }

    /// The id that root inside has where the jail is built.
    pub(super) fn root_id(&self) -> u32 {
        if self.rootless { 0 } else { self.order.uid_base }
    }
}

const NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Clones a jail. The caller learns only that there is a process; the guest itself says when it is ready.
pub(super) fn clone(plan: Plan) -> Result<(u32, OwnedFd), Failed> {
    // SAFETY: the zygote has one thread.
    match unsafe { clone3(u64::from(NAMESPACES.unsigned_abs()), plan.cgroup.as_ref().map(AsFd::as_fd)) }
        .at("clone a jail")?
    {
        Side::Parent(pid, pidfd) => Ok((pid, pidfd)),
        Side::Child => become_guest(plan),
    }
}

/// The child: into the jail, or a word to the daemon why not.
fn become_guest(plan: Plan) -> ! {
    let entered = enter(&plan);
    let weaknesses = match entered {
        Ok(weaknesses) => weaknesses,
        Err(failed) => {
            let failure = failed.to_string();
            let welcome = Welcome { version: 0, failure, ..Welcome::default() };
            let _ = rustix::io::write(plan.first.as_fd(), &frame::encode_message(&welcome));
            // SAFETY: _exit(2) has no preconditions; nothing of the zygote's may run in this copy of it.
            unsafe { libc::_exit(1) }
        }
    };
    let Plan { order, first, listener, spill, oom_counter, .. } = plan;
    supervisor::run(Inherited {
        first,
        listener,
        spill_directory: Some(spill),
        oom_counter,
        config: order.guest.unwrap_or_default(),
        weaknesses,
    })
}

/// Every step of confinement, in the only order that works. `Err` is fatal, the strings returned are not.
fn enter(plan: &Plan) -> Result<Vec<String>, Failed> {
    // A half-made jail dies with the zygote.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at("tie the jail to the zygote")?;
    confine::default_child_signal();
    for tasks in &plan.join {
        rustix::io::write(tasks.as_fd(), b"0").at("join a cgroup")?;
    }
    move_into_link_name_space(plan.prepared.network.as_fd(), Some(LinkNameSpaceType::Network))
        .at("enter the network namespace")?;
    // SAFETY: one thread; only this process's namespaces change.
    unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }.at("make a cgroup namespace")?;
    rustix::system::sethostname(plan.order.hostname.as_bytes()).at("set the host name")?;
    root::enter(plan)?;
    take_ids(plan)?;
    standard_streams()?;
    close_everything_else(plan)?;
    confine::limits(plan.order.max_processes)?;
    confine::capabilities()?;
    let weaknesses = confine::landlock().into_iter().collect();
    // A whole one does not. Where ids changed the kernel forgot it by itself; an ordinary user's have not.
    rustix::process::set_parent_process_death_signal(None).at("untie the jail from the zygote")?;
    confine::system_calls()?;
    Ok(weaknesses)
}

/// Root of its own ids only, after every mount: the mounts belong to the host's user namespace, so that no
/// right inside reaches them.
fn take_ids(plan: &Plan) -> Result<(), Failed> {
    move_into_link_name_space(plan.prepared.user.as_fd(), Some(LinkNameSpaceType::User))
        .at("enter the user namespace")?;
    let zero = 0;
    if !plan.rootless {
        // SAFETY: an empty list of groups; the pointer is not read.
        let groups = unsafe { libc::setgroups(0, std::ptr::null()) };
        check(groups).at("drop groups")?;
    }
    // SAFETY: plain numbers; one thread, so that the kernel's per-thread ids are the process's.
    check(unsafe { libc::setresgid(zero, zero, zero) }).at("take the group")?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(zero, zero, zero) }).at("take the user")?;
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).at("become undumpable")
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(errno_of(&std::io::Error::last_os_error())) }
}

/// Standard streams lead nowhere: the zygote's lead to the daemon.
fn standard_streams() -> Result<(), Failed> {
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .at("open /dev/null")?;
    for target in 0..3 {
        // SAFETY: plain numbers; 0 to 2 are owned by nobody in this process.
        let result = unsafe { libc::dup2(null.as_raw_fd(), target) };
        if result < 0 {
            return Err(errno_of(&std::io::Error::last_os_error())).at("replace a standard stream");
        }
    }
    Ok(())
}

/// Closes what belongs to the zygote: its socket's copies, namespaces of other cells, the pool.
fn close_everything_else(plan: &Plan) -> Result<(), Failed> {
    let mut keep = vec![plan.first.as_raw_fd(), plan.listener.as_raw_fd(), plan.spill.as_raw_fd()];
    keep.extend(plan.oom_counter.as_ref().map(AsRawFd::as_raw_fd));
    keep.sort_unstable();
    let mut from: libc::c_uint = 3;
    for descriptor in keep.into_iter().map(libc::c_int::unsigned_abs) {
        if from < descriptor {
            // SAFETY: the closed descriptors belong to values of the zygote that this process never drops.
            check(unsafe { libc::close_range(from, descriptor - 1, 0) }).at("close descriptors")?;
        }
        from = descriptor + 1;
    }
    // SAFETY: as above.
    check(unsafe { libc::close_range(from, libc::c_uint::MAX, 0) }).at("close descriptors")
}
