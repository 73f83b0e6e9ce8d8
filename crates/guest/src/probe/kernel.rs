//! Probes at rarely needed parts of the kernel: jail.md §7c 19 to 31.

use crate::abuse::{Context, Probe};
use crate::sys::{self, sys};
use crate::verdict::{Verdict, all, must_be_denied, must_fail};

pub(crate) const PROBES: &[Probe] = &[
    ("bpf", bpf),
    ("socket-programs", socket_programs),
    ("perf-event-open", perf_event_open),
    ("io-uring", io_uring),
    ("userfaultfd", |_| must_fail("userfaultfd", sys!(SYS_userfaultfd, libc::O_CLOEXEC | 1))),
    ("keyctl", |_| must_fail("keyctl", sys!(SYS_keyctl, 0, -3, 1))),
    ("add-key", add_key),
    ("request-key", |_| {
        must_be_denied("request_key", sys!(SYS_request_key, c"user", c"hostel-nothing", 0, 0))
    }),
    ("fanotify", |_| must_fail("fanotify_init", sys!(SYS_fanotify_init, 0, libc::O_RDONLY))),
    ("fanotify-unprivileged", |_| {
        // FAN_REPORT_FID: what an ordinary user may have since Linux 5.13.
        must_fail("fanotify_init", sys!(SYS_fanotify_init, 0x200, libc::O_RDONLY))
    }),
    ("init-module", |_| must_be_denied("init_module", sys!(SYS_init_module, 0, 0, c""))),
    ("finit-module", |_| must_be_denied("finit_module", sys!(SYS_finit_module, -1, c"", 0))),
    ("delete-module", |_| must_be_denied("delete_module", sys!(SYS_delete_module, c"hostel-nothing", 0))),
    ("kexec-load", |_| must_be_denied("kexec_load", sys!(SYS_kexec_load, 0, 1000, 0, 0xffff))),
    ("reboot", |_| must_be_denied("reboot", sys!(SYS_reboot, 0, 0, 0, 0))),
    ("iopl", iopl),
    ("swapon", |_| must_be_denied("swapon", sys!(SYS_swapon, c"/nowhere", 0))),
    ("swapoff", |_| must_be_denied("swapoff", sys!(SYS_swapoff, c"/nowhere"))),
    ("acct", |_| must_be_denied("acct", sys!(SYS_acct, c"/nowhere"))),
    ("quotactl", |_| {
        // QCMD(Q_QUOTAON, USRQUOTA) on no device.
        must_be_denied("quotactl", sys!(SYS_quotactl, 0x8000_0200_u32, c"/nowhere", 0, 0))
    }),
    ("settimeofday", settimeofday),
    ("adjtimex", adjtimex),
    ("clock-adjtime", clock_adjtime),
    ("sethostname", |_| must_be_denied("sethostname", sys!(SYS_sethostname, c"x", 1000))),
    ("setdomainname", |_| must_be_denied("setdomainname", sys!(SYS_setdomainname, c"x", 1000))),
    ("syslog", syslog),
    ("vhangup", vhangup),
    ("personality", |_| must_fail("personality", sys!(SYS_personality, libc::ADDR_NO_RANDOMIZE))),
    ("lookup-dcookie-and-friends", obsolete),
    ("x32-call", x32),
    ("int-80-call", int80),
    ("tiocsti", tiocsti),
    ("nice-minus-20", |_| must_fail("setpriority", sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, -20))),
    ("sched-fifo", sched_fifo),
    ("io-priority-realtime", |_| {
        // IOPRIO_WHO_PROCESS, class real time.
        must_fail("ioprio_set", sys!(SYS_ioprio_set, 1, 0, 1 << 13))
    }),
    ("raise-hard-limit", raise_limit),
    ("priority-limits", priority_limits),
    ("core-dumps", core_dumps),
    ("no-new-privileges", no_new_privileges),
    ("seccomp-active", |_| status_field("Seccomp", |value| value == "2")),
    ("capabilities", capabilities),
    ("bounding-set", bounding_set),
];

fn bpf(_: &Context) -> Verdict {
    // BPF_MAP_CREATE of an array: type 2, key 4, value 8, one entry.
    let mut attributes = [0_u8; 128];
    for (place, value) in [(0, 2), (4, 4), (8, 8), (12, 1)] {
        attributes[place] = value;
    }
    must_fail("bpf", sys!(SYS_bpf, 0, attributes.as_mut_slice(), 72))
}

/// What the kernel compiles comes out of memory that all of the host share.
fn socket_programs(_: &Context) -> Verdict {
    let socket = match sys!(SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0) {
        Ok(socket) => socket,
        Err(errno) => return Verdict::skipped(format!("socket: {errno}")),
    };
    let options = [
        libc::SO_ATTACH_FILTER,
        libc::SO_ATTACH_BPF,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        libc::SO_ATTACH_REUSEPORT_EBPF,
    ];
    // Without a program, which is looked at after the permission.
    all(options.map(|option| {
        must_be_denied("setsockopt", sys!(SYS_setsockopt, socket, libc::SOL_SOCKET, option, 0, 0))
    }))
}

fn perf_event_open(_: &Context) -> Verdict {
    // PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, size 64, on this process, kernel and hypervisor left out.
    let mut attributes = [0_u8; 128];
    attributes[0] = 1;
    attributes[4] = 64;
    attributes[40] = 0b0110_0000;
    must_fail("perf_event_open", sys!(SYS_perf_event_open, attributes.as_mut_slice(), 0, -1, -1, 0))
}

fn io_uring(_: &Context) -> Verdict {
    let mut parameters = [0_u8; 128];
    let setup = must_fail("io_uring_setup", sys!(SYS_io_uring_setup, 1, parameters.as_mut_slice()));
    let enter = must_be_denied("io_uring_enter", sys!(SYS_io_uring_enter, -1, 0, 0, 0, 0, 0));
    let register = must_be_denied("io_uring_register", sys!(SYS_io_uring_register, -1, 0, 0, 0));
    all([setup, enter, register])
}

fn add_key(_: &Context) -> Verdict {
    // Into the process keyring, -2, which goes away with this child.
    must_fail("add_key", sys!(SYS_add_key, c"user", c"hostel-probe", c"x", 1_usize, -2))
}

#[cfg(target_arch = "x86_64")]
fn iopl(_: &Context) -> Verdict {
    all([must_fail("iopl", sys!(SYS_iopl, 3)), must_fail("ioperm", sys!(SYS_ioperm, 0x80, 1, 1))])
}

#[cfg(not(target_arch = "x86_64"))]
fn iopl(_: &Context) -> Verdict {
    Verdict::skipped("only x86 has I/O ports")
}

fn settimeofday(_: &Context) -> Verdict {
    // A time zone of more than 15 hours, which is found after the permission check.
    let mut zone = [0_u8; 8];
    zone[..4].copy_from_slice(&10_000_i32.to_ne_bytes());
    must_be_denied("settimeofday", sys!(SYS_settimeofday, 0, zone.as_mut_slice()))
}

fn adjtimex(_: &Context) -> Verdict {
    // struct timex with modes = ADJ_TICK and an absurd tick.
    let mut timex = [0_u8; 512];
    timex[..4].copy_from_slice(&0x4000_u32.to_ne_bytes());
    must_be_denied("adjtimex", sys!(SYS_adjtimex, timex.as_mut_slice()))
}

fn clock_adjtime(_: &Context) -> Verdict {
    let mut timex = [0_u8; 512];
    timex[..4].copy_from_slice(&0x4000_u32.to_ne_bytes());
    must_be_denied("clock_adjtime", sys!(SYS_clock_adjtime, libc::CLOCK_REALTIME, timex.as_mut_slice()))
}

fn syslog(_: &Context) -> Verdict {
    let mut buffer = vec![0_u8; 4096];
    // SYSLOG_ACTION_READ_ALL.
    must_fail("syslog", sys!(SYS_syslog, 3, buffer.as_mut_slice(), 4096))
}

fn vhangup(_: &Context) -> Verdict {
    // In a session of its own there is no terminal to hang up.
    let _ = sys!(SYS_setsid);
    must_fail("vhangup", sys!(SYS_vhangup))
}

fn obsolete(_: &Context) -> Verdict {
    #[cfg(target_arch = "x86_64")]
    let all_of = [
        must_be_denied("lookup_dcookie", sys!(SYS_lookup_dcookie, 0, c"", 0)),
        must_be_denied("_sysctl", sys!(SYS__sysctl, 0)),
        must_be_denied("uselib", sys!(SYS_uselib, c"/nowhere")),
        must_be_denied("nfsservctl", sys!(SYS_nfsservctl, 0, 0, 0)),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let all_of = [must_be_denied("nfsservctl", sys!(SYS_nfsservctl, 0, 0, 0))];
    all(all_of)
}

#[cfg(target_arch = "x86_64")]
fn x32(_: &Context) -> Verdict {
    const X32_BIT: i64 = 0x4000_0000;
    must_fail("getpid through x32", sys::call(X32_BIT | libc::SYS_getpid, []))
}

#[cfg(not(target_arch = "x86_64"))]
fn x32(_: &Context) -> Verdict {
    Verdict::skipped("only x86-64 has x32")
}

#[cfg(target_arch = "x86_64")]
fn int80(_: &Context) -> Verdict {
    const GETPID_I386: i64 = 20;
    let mut result = GETPID_I386;
    // SAFETY: getpid touches no memory; the kernel clears r8 to r11 on this path.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    let outcome = if result < 0 { Err(sys::Errno(i32::try_from(-result).unwrap_or(0))) } else { Ok(result) };
    must_fail("getpid through int 0x80", outcome)
}

#[cfg(not(target_arch = "x86_64"))]
fn int80(_: &Context) -> Verdict {
    Verdict::skipped("only x86-64 has int 0x80")
}

/// Makes a new terminal this child's own and pretends a key press on it.
fn tiocsti(_: &Context) -> Verdict {
    let _ = sys!(SYS_setsid);
    let Ok(master) = sys::open(c"/dev/ptmx", libc::O_RDWR) else {
        return Verdict::refused("no terminals here");
    };
    let mut number = [0_u8; 4];
    let mut unlock = [0_u8; 4];
    let _ = sys!(SYS_ioctl, master, libc::TIOCSPTLCK.cast_signed(), unlock.as_mut_slice());
    let _ = sys!(SYS_ioctl, master, libc::TIOCGPTN.cast_signed(), number.as_mut_slice());
    let path = format!("/dev/pts/{}", u32::from_ne_bytes(number));
    let path = std::ffi::CString::new(path).unwrap_or_default();
    // Without O_NOCTTY, so that it becomes the controlling terminal, for which TIOCSTI needs no privilege.
    let slave = match sys!(SYS_openat, libc::AT_FDCWD, path.as_c_str(), libc::O_RDWR, 0) {
        Ok(slave) => slave,
        Err(errno) => return Verdict::skipped(format!("open the terminal: {errno}")),
    };
    let mut key = [b'x'];
    let sti = must_fail("TIOCSTI", sys!(SYS_ioctl, slave, libc::TIOCSTI.cast_signed(), key.as_mut_slice()));
    let mut request = [2_u8; 16];
    let linux = sys!(SYS_ioctl, slave, 0x541c, request.as_mut_slice());
    all([sti, must_fail("TIOCLINUX", linux)])
}

fn sched_fifo(_: &Context) -> Verdict {
    let mut parameter = 1_i32.to_ne_bytes();
    let fifo = sys!(SYS_sched_setscheduler, 0, libc::SCHED_FIFO, parameter.as_mut_slice());
    // struct sched_attr: size, policy SCHED_DEADLINE, runtime, deadline and period in nanoseconds.
    let mut attributes = [0_u8; 48];
    attributes[0] = 48;
    attributes[4] = 6;
    for (place, value) in [(24, 1_000_000_u64), (32, 10_000_000), (40, 10_000_000)] {
        attributes[place..place + 8].copy_from_slice(&value.to_ne_bytes());
    }
    let deadline = sys!(SYS_sched_setattr, 0, attributes.as_mut_slice(), 0);
    all([must_fail("SCHED_FIFO", fifo), must_fail("SCHED_DEADLINE", deadline)])
}

/// The soft and hard limit of this process.
fn limits(resource: u32) -> Option<[u64; 2]> {
    let mut both = [0_u8; 16];
    sys!(SYS_prlimit64, 0, resource, 0, both.as_mut_slice()).ok()?;
    let (soft, hard) = both.split_at(8);
    Some([u64::from_ne_bytes(soft.try_into().ok()?), u64::from_ne_bytes(hard.try_into().ok()?)])
}

fn raise_limit(_: &Context) -> Verdict {
    let resources = [libc::RLIMIT_NOFILE, libc::RLIMIT_NPROC, libc::RLIMIT_MEMLOCK];
    all(resources.map(|resource| {
        let Some([soft, hard]) = limits(resource) else { return Verdict::skipped("no limit") };
        if hard == u64::MAX {
            return Verdict::skipped(format!("limit {resource} is unlimited already"));
        }
        let mut wanted = [0_u8; 16];
        wanted[..8].copy_from_slice(&soft.to_ne_bytes());
        wanted[8..].copy_from_slice(&(hard + 1).to_ne_bytes());
        must_fail("raise a limit", sys!(SYS_prlimit64, 0, resource, wanted.as_mut_slice(), 0))
    }))
}

fn priority_limits(_: &Context) -> Verdict {
    let resources =
        [("RTPRIO", libc::RLIMIT_RTPRIO), ("NICE", libc::RLIMIT_NICE), ("RTTIME", libc::RLIMIT_RTTIME)];
    all(resources.map(|(name, resource)| match limits(resource) {
        Some([0, 0]) => Verdict::refused(format!("{name} is 0")),
        other => Verdict::escaped(format!("{name} is {other:?}")),
    }))
}

/// Only a limit of 1 keeps a core from a program of the host (core(5)), so nobody may change it, not even to 0.
fn core_dumps(_: &Context) -> Verdict {
    for wanted in [[0_u8; 16], [0xff; 16]] {
        let (mut one, mut other) = (wanted, wanted);
        let _ = sys!(SYS_prlimit64, 0, libc::RLIMIT_CORE, one.as_mut_slice(), 0);
        let _ = sys!(SYS_setrlimit, libc::RLIMIT_CORE, other.as_mut_slice());
    }
    let piped = std::fs::read("/proc/sys/kernel/core_pattern").is_ok_and(|text| text.starts_with(b"|"));
    match limits(libc::RLIMIT_CORE) {
        Some([1, 1]) => {}
        // The daemon's own, which it cannot raise.
        Some([0, 0]) if !piped => {}
        other => return Verdict::escaped(format!("the host may be made to take cores: {other:?}")),
    }
    dies_without_a_core()
}

/// Has a child end in a way that leaves a core, where one may be had.
fn dies_without_a_core() -> Verdict {
    const CORE_WAS_DUMPED: i32 = 0x80;
    let child = match sys::fork() {
        Ok(0) => {
            let _ = std::env::set_current_dir("/tmp");
            let _ = sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            let _ = sys!(SYS_kill, std::process::id(), libc::SIGQUIT);
            sys::leave(0)
        }
        Ok(child) => child,
        Err(errno) => return Verdict::skipped(format!("fork: {errno}")),
    };
    match sys::wait(child) {
        Ok(status) if status & 0x7f != libc::SIGQUIT => {
            Verdict::escaped(format!("a child did not die of SIGQUIT: {status:#x}"))
        }
        Ok(status) if status & CORE_WAS_DUMPED != 0 => Verdict::escaped("a core was dumped"),
        Ok(_) => Verdict::refused("no core is dumped"),
        Err(errno) => Verdict::skipped(format!("wait: {errno}")),
    }
}

fn no_new_privileges(_: &Context) -> Verdict {
    match sys!(SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) {
        Ok(1) => Verdict::refused("set-user-id programs gain nothing"),
        other => Verdict::escaped(format!("no_new_privs is {:?}", other.ok())),
    }
}

/// A field of /proc/self/status.
fn status(name: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(':'))?;
    Some(line[name.len() + 1..].trim().to_owned())
}

fn status_field(name: &str, good: fn(&str) -> bool) -> Verdict {
    match status(name) {
        Some(value) if good(&value) => Verdict::refused(format!("{name} is {value}")),
        Some(value) => Verdict::escaped(format!("{name} is {value}")),
        None => Verdict::skipped(format!("/proc/self/status has no {name}")),
    }
}

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETFCAP: over the sandbox's own files and users.
const HARMLESS: u64 = 0b1000_0000_0000_0000_0000_0000_0000_0000 | 0b1111_1011;

fn capabilities(_: &Context) -> Verdict {
    all(["CapEff", "CapPrm", "CapInh", "CapAmb"].map(|name| status_field(name, only_harmless)))
}

fn bounding_set(_: &Context) -> Verdict {
    status_field("CapBnd", only_harmless)
}

fn only_harmless(mask: &str) -> bool {
    u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & !HARMLESS == 0)
}
