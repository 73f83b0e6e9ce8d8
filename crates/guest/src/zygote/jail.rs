//! From an order of the daemon to a running guest, in two steps. The clone builds all of its jail that does not depend
//! on whose it is, and waits: for microseconds, or, where it was cloned ahead, until somebody wants a jail. Its
//! [`Birth`] message then says whose it is; what is left is to give up its rights. Until then it runs nothing but this
//! file, on nothing that came from inside a jail.

use super::clone3::{Side, clone3};
use super::confine::Confined;
use super::namespaces::Prepared;
use super::seccomp::{self, Instruction};
use super::{At, Failed, confine, errno_of, root};
use crate::supervisor::{self, Inherited};
use hostel_guest_protocol::zygote::{Birth, CloneJail};
use hostel_guest_protocol::{Frame, GuestConfig, HEADER_LEN, VERSION, Welcome, frame};
use prost::Message;
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
    let (config, confined) = match live(&plan) {
        Ok(Some(born)) => born,
        Ok(None) => exit(0),
        Err(failed) => {
            let failure = failed.to_string();
            let welcome = Welcome { version: VERSION, failure, ..Welcome::default() };
            let _ = rustix::io::write(plan.first.as_fd(), &frame::encode_message(&welcome));
            exit(1)
        }
    };
    let Plan { first, listener, spill, oom_counter, .. } = plan;
    let inherited = Inherited { listener, spill_directory: Some(spill), oom_counter, config, confined };
    supervisor::run(first, inherited)
}

fn exit(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions; nothing of the zygote's may run in this copy of it.
    unsafe { libc::_exit(status) }
}

/// Both steps. `Err` is fatal, weaknesses are not; `None` where nobody wants the jail any more.
fn live(plan: &Plan) -> Result<Option<(GuestConfig, Confined)>, Failed> {
    let unborn = enter(plan)?;
    let Some(birth) = await_birth(plan.first.as_fd())? else { return Ok(None) };
    let confined = unborn.confine(plan, &birth)?;
    Ok(Some((birth.guest.unwrap_or_default(), confined)))
}

/// A jail that has everything but somebody whose it is. Its process has the zygote's rights still.
struct Unborn {
    sizes: root::Sizes,
    filter: Vec<Instruction>,
}

/// Everything that does not depend on whose the jail is.
fn enter(plan: &Plan) -> Result<Unborn, Failed> {
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
    let sizes = root::enter(plan)?;
    standard_streams()?;
    // It may wait for hours: nothing of the zygote's or of other cells' may stay open in it.
    close_everything_else(plan, sizes.descriptors().chain([plan.prepared.user.as_fd()]))?;
    Ok(Unborn { sizes, filter: seccomp::program() })
}

/// Waits for the message that says whose the jail is. `None` where the daemon hangs up.
fn await_birth(first: BorrowedFd<'_>) -> Result<Option<Birth>, Failed> {
    let mut header = [0; HEADER_LEN];
    if !read_whole(first, &mut header)? {
        return Ok(None);
    }
    let Ok(Frame::Message { length }) = Frame::decode(&header) else {
        return Err(Errno::PROTO).at("understand the daemon");
    };
    let mut message = vec![0; length];
    if !read_whole(first, &mut message)? {
        return Ok(None);
    }
    Birth::decode(&*message).map(Some).map_err(|_| Errno::PROTO).at("understand the daemon")
}

/// Fills a buffer; `false` where the other side hangs up before.
fn read_whole(first: BorrowedFd<'_>, mut buffer: &mut [u8]) -> Result<bool, Failed> {
    while !buffer.is_empty() {
        match rustix::io::read(first, &mut *buffer) {
            Ok(0) | Err(Errno::CONNRESET) => return Ok(false),
            Ok(length) => buffer = &mut buffer[length..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).at("read whose the jail is"),
        }
    }
    Ok(true)
}

impl Unborn {
    /// What is left to be done once it is known whose the jail is, in the only order that works.
    fn confine(self, plan: &Plan, birth: &Birth) -> Result<Confined, Failed> {
        rustix::system::sethostname(birth.hostname.as_bytes()).at("set the host name")?;
        let unbounded = self.sizes.set(birth)?;
        take_ids(plan)?;
        close_everything_else(plan, [])?;
        confine::limits(birth.max_processes)?;
        confine::capabilities()?;
        let weaknesses = unbounded.into_iter().chain(confine::landlock()).collect();
        // A whole one does not. Where ids changed the kernel forgot it by itself; an ordinary user's have not.
        rustix::process::set_parent_process_death_signal(None).at("untie the jail from the zygote")?;
        confine::filter(self.filter, weaknesses)
    }
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

/// Closes what belongs to the zygote: its socket's copies, namespaces of other cells, the pool. What a guest works with
/// stays open, and what else is named.
fn close_everything_else<'a>(
    plan: &Plan,
    besides: impl IntoIterator<Item = BorrowedFd<'a>>,
) -> Result<(), Failed> {
    let mut keep = vec![plan.first.as_raw_fd(), plan.listener.as_raw_fd(), plan.spill.as_raw_fd()];
    keep.extend(plan.oom_counter.as_ref().map(AsRawFd::as_raw_fd));
    keep.extend(besides.into_iter().map(|descriptor| descriptor.as_raw_fd()));
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
