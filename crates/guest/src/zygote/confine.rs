//! What a jail's first process gives up for good: limits, capabilities, reach, system calls.

use super::seccomp::{self, Instruction};
use super::{At, Failed, errno_of};
use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, set_capabilities, set_capabilities_secure_bits,
};
use std::os::fd::OwnedFd;

/// The user of the guest in a container, which nothing else there is.
pub(crate) const GUEST_ID: u32 = 65_533;

/// What a guest has after it gave up the rest.
#[derive(Debug, Default)]
pub struct Confined {
    /// What could not be had.
    pub weaknesses: Vec<String>,
    /// Where the kernel asks about system calls.
    pub calls: Option<OwnedFd>,
}

/// The first program of a container gives up what a jail's does; namespaces, mounts and cgroups were made by the
/// engine.
///
/// Root in a container may be the host's, who owns everything in /proc about a process that cannot be dumped. So the
/// guest becomes somebody else and stays dumpable: what is about it is then its own, and closed to root, whose
/// processes have no capabilities.
pub(crate) fn container() -> Result<Confined, Failed> {
    limits(0)?;
    keep_rights()?;
    // SAFETY: an empty list of groups, whose pointer is not read; plain numbers; one thread, so that the kernel's
    // per-thread ids are the process's.
    let changed = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(GUEST_ID, GUEST_ID, GUEST_ID) == 0
            && libc::setresuid(GUEST_ID, GUEST_ID, GUEST_ID) == 0
    };
    if !changed {
        return Err(errno_of(&std::io::Error::last_os_error())).at("become the guest's own user");
    }
    stay_closed_to_root();
    capabilities()?;
    let weaknesses = landlock().into_iter().collect();
    filter(seccomp::program(), weaknesses)
}

/// The last step, after which no right is left: the filter over system calls.
pub(super) fn filter(code: Vec<Instruction>, mut weaknesses: Vec<String>) -> Result<Confined, Failed> {
    let calls = seccomp::install(code).at("filter system calls")?;
    if calls.is_none() {
        let uncounted = "netlink sockets and filters of system calls are not counted: the kernel cannot ask the guest about them";
        weaknesses.push(uncounted.to_owned());
    }
    Ok(Confined { weaknesses, calls })
}

/// Makes the guest of a container dumpable, see [`container`]. A child that shares our memory until it executes, and
/// takes another user, undoes it for both.
pub(crate) fn stay_closed_to_root() {
    // SAFETY: plain calls with numbers.
    unsafe {
        if libc::geteuid() == GUEST_ID {
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        }
    }
}

/// The kernel reaps the zygote's children by itself: nobody needs their status.
pub(super) fn auto_reap_children() {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Undoes [`auto_reap_children`] in a jail, whose guest does want to know.
pub(super) fn default_child_signal() {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Rights stay with this process when its user changes, until a jail gives them up (capabilities(7)).
pub(super) fn keep_rights() -> Result<(), Failed> {
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
        .at("keep rights across a change of user")
}

/// One byte of core is too little for a file, and says to the kernel what zero does not: that no core goes to a program
/// of the host either, which there is where `core_pattern` begins with `|` (core(5)). The filter of system calls keeps
/// it at that. Root of the host may raise what the daemon was given; others stay at 0 then.
pub(super) fn no_cores() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
}

/// What the daemon's service manager may have given it, that the kernel end others first (`OOMScoreAdjust=`), is not
/// for jails.
pub(super) fn no_protection_from_memory_shortage() {
    let own = "/proc/self/oom_score_adj";
    let protected = std::fs::read_to_string(own).is_ok_and(|value| value.starts_with('-'));
    if protected && let Err(error) = std::fs::write(own, "0") {
        eprintln!("jails keep the daemon's protection from shortage of memory: {error}");
    }
}

/// Resource limits that every process of the jail inherits (getrlimit(2)).
pub(super) fn limits(max_processes: u32) -> Result<(), Failed> {
    no_cores();
    let mut wanted = vec![
        (Resource::Memlock, 8 << 20),
        (Resource::Msgqueue, 819_200),
        (Resource::Sigpending, 4096),
        (Resource::Nofile, 1 << 20),
        // No way past others to the processor, whatever the daemon was given.
        (Resource::Rtprio, 0),
        (Resource::Nice, 0),
        (Resource::Rttime, 0),
    ];
    if max_processes > 0 {
        wanted.push((Resource::Nproc, u64::from(max_processes)));
    }
    for (resource, value) in wanted {
        let hard = getrlimit(resource).maximum.map_or(value, |maximum| maximum.min(value));
        setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })
            .at("set a resource limit")?;
    }
    Ok(())
}

/// What the guest keeps, over its own ids only: it starts processes as other users and serves their files.
/// Processes get none: the bounding set is empty and root has no privilege of its own (capabilities(7)).
pub(super) fn capabilities() -> Result<(), Failed> {
    rustix::thread::set_no_new_privs(true).at("give up new privileges")?;
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).at("lock the secure bits")?;
    for capability in 0..=63 {
        // SAFETY: plain numbers.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped != 0 {
            match errno_of(&std::io::Error::last_os_error()) {
                Errno::INVAL => break,
                other => return Err(other).at("drop a capability"),
            }
        }
    }
    let kept = CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::KILL
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).at("keep few capabilities")
}

/// Forbids abstract sockets and signals beyond the jail (Linux 6.12, landlock ABI 6). Namespaces forbid both
/// already; where landlock is missing that is all there is, and it is said.
pub(super) fn landlock() -> Option<String> {
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::AbstractUnixSocket | Scope::Signal)
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    match restricted {
        Ok(status) if status.ruleset == RulesetStatus::FullyEnforced => None,
        Ok(_) => Some(
            "landlock scopes need Linux 6.12; namespaces alone keep signals and abstract sockets in"
                .to_owned(),
        ),
        Err(error) => {
            Some(format!("landlock: {error}; namespaces alone keep signals and abstract sockets in"))
        }
    }
}

/// The newest landlock ABI that the kernel has; 0 is none (landlock_create_ruleset(2)).
pub(super) fn landlock_abi() -> u32 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel reads no memory.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    u32::try_from(abi).unwrap_or(0)
}
