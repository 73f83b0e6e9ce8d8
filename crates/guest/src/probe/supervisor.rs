//! Probes at PID 1 and at what it may have leaked: jail.md §7c 32 to 36.

use crate::abuse::{Context, Probe};
use crate::sys::{self, sys};
use crate::verdict::{Verdict, all, must_be_denied, must_fail};
use std::ffi::CString;

pub(crate) const PROBES: &[Probe] = &[
    ("ptrace-pid-1", |_| must_fail("PTRACE_SEIZE", sys!(SYS_ptrace, libc::PTRACE_SEIZE, 1, 0, 0))),
    ("process-vm-readv-pid-1", |_| process_vm(libc::SYS_process_vm_readv)),
    ("process-vm-writev-pid-1", |_| process_vm(libc::SYS_process_vm_writev)),
    ("pidfd-getfd-pid-1", pidfd_getfd),
    ("kcmp-pid-1", |_| {
        // KCMP_VM.
        must_fail("kcmp", sys!(SYS_kcmp, 1, i64::from(std::process::id()), 1, 0, 0))
    }),
    ("robust-list-pid-1", robust_list),
    ("proc-1-memory", |_| unreadable(&["mem", "maps", "smaps", "pagemap", "auxv", "syscall", "stack"])),
    ("proc-1-environment", |_| unreadable(&["environ"])),
    ("proc-1-descriptors", descriptors_of_pid_1),
    ("proc-1-links", links_of_pid_1),
    ("proc-1-executable-write", executable_write),
    ("proc-1-through-root", through_root),
    ("kill-pid-1", kill_pid_1),
    ("forged-signal-pid-1", forged_signal),
    ("descriptor-signal-pid-1", descriptor_signal),
    ("kill-everything", kill_everything),
    ("inherited-descriptors", inherited),
    ("inherited-environment", environment),
    ("control-socket", control_socket),
];

fn process_vm(number: i64) -> Verdict {
    let mut target = [0_u8; 8];
    let mut local = [0_u8; 16];
    local[..8].copy_from_slice(&target.as_mut_ptr().expose_provenance().to_ne_bytes());
    local[8] = 8;
    // An address at which programs linked at a fixed place have code; EFAULT also means "allowed".
    let mut remote = [0_u8; 16];
    remote[..8].copy_from_slice(&0x40_0000_usize.to_ne_bytes());
    remote[8] = 8;
    let arguments = [
        1.into(),
        sys::Arg::from(local.as_mut_slice()),
        1.into(),
        sys::Arg::from(remote.as_mut_slice()),
        1.into(),
        0.into(),
    ];
    must_be_denied("process_vm", sys::call(number, arguments))
}

fn pidfd_getfd(_: &Context) -> Verdict {
    match sys!(SYS_pidfd_open, 1, 0) {
        Err(errno) => Verdict::refused(format!("pidfd_open: {errno}")),
        Ok(pidfd) => {
            all((0..16).map(|number| must_fail("pidfd_getfd", sys!(SYS_pidfd_getfd, pidfd, number, 0))))
        }
    }
}

fn robust_list(_: &Context) -> Verdict {
    let (mut head, mut length) = ([0_u8; 8], [0_u8; 8]);
    must_fail("get_robust_list", sys!(SYS_get_robust_list, 1, head.as_mut_slice(), length.as_mut_slice()))
}

/// Files of /proc/1 that must not open, or give nothing.
fn unreadable(names: &[&str]) -> Verdict {
    all(names.iter().map(|name| {
        let path = CString::new(format!("/proc/1/{name}")).unwrap_or_default();
        let descriptor = match sys::open(&path, libc::O_RDONLY) {
            Err(errno) => return Verdict::refused(format!("{name}: {errno}")),
            Ok(descriptor) => descriptor,
        };
        let mut buffer = [0_u8; 64];
        // Of what opens, memory and its like must still give no byte. Address 0 of mem is never mapped.
        match sys!(SYS_read, descriptor, buffer.as_mut_slice(), 64) {
            Ok(0) => Verdict::refused(format!("{name} is empty")),
            Err(errno) if *name != "mem" => Verdict::refused(format!("read {name}: {errno}")),
            other => Verdict::escaped(format!("{name} of PID 1 opened: {:?}", other.ok())),
        }
    }))
}

fn descriptors_of_pid_1(_: &Context) -> Verdict {
    all(["fd", "fdinfo", "map_files"].map(|name| match std::fs::read_dir(format!("/proc/1/{name}")) {
        Err(error) => Verdict::refused(format!("{name}: {error}")),
        Ok(entries) => match entries.flatten().count() {
            0 => Verdict::refused(format!("{name} shows nothing")),
            count => Verdict::escaped(format!("{name} of PID 1 shows {count} entries")),
        },
    }))
}

fn links_of_pid_1(_: &Context) -> Verdict {
    all(["exe", "root", "cwd", "ns/mnt"].map(|name| match std::fs::read_link(format!("/proc/1/{name}")) {
        Err(error) => Verdict::refused(format!("{name}: {error}")),
        Ok(target) => Verdict::escaped(format!("{name} of PID 1 is {}", target.display())),
    }))
}

fn executable_write(_: &Context) -> Verdict {
    // Opening for writing changes nothing. CVE-2019-5736 wrote here.
    match sys::open(c"/proc/1/exe", libc::O_RDWR) {
        Err(errno) if errno.0 == libc::ETXTBSY => {
            Verdict::escaped("only its running keeps PID 1's program from us")
        }
        outcome => must_fail("open", outcome),
    }
}

fn through_root(_: &Context) -> Verdict {
    let paths = [c"/proc/1/root/etc/passwd", c"/proc/1/root/.", c"/proc/1/cwd/.", c"/proc/1/task/1/root/."];
    all(paths.map(|path| must_fail(&path.to_string_lossy(), sys::open(path, libc::O_RDONLY))))
}

fn kill_pid_1(_: &Context) -> Verdict {
    // The kernel drops both for the init of a PID namespace when they come from inside (pid_namespaces(7)).
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        let _ = sys!(SYS_kill, 1, signal);
    }
    let status = std::fs::read_to_string("/proc/1/stat").unwrap_or_default();
    let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
    match state {
        Some('T' | 'Z' | 'X' | 't') => Verdict::escaped(format!("PID 1 is in state {state:?}")),
        Some(_) => Verdict::refused("PID 1 goes on"),
        None => Verdict::skipped("PID 1 cannot be seen"),
    }
}

/// A signal with information that says it came from outside of the namespace, and one whose information is lost.
fn forged_signal(_: &Context) -> Verdict {
    let with_room = forged_signals();
    match fill_queue() {
        Ok(()) => all([with_room, forged_signals()]),
        Err(why) => all([with_room, Verdict::skipped(why)]),
    }
}

/// A `siginfo_t`: the number, an error, the code, and, aligned, the sender: none.
fn information(signal: i32, code: i32) -> [u8; 128] {
    let mut bytes = [0_u8; 128];
    bytes[..4].copy_from_slice(&signal.to_ne_bytes());
    bytes[8..12].copy_from_slice(&code.to_ne_bytes());
    bytes
}

/// Leaves so many signals pending that the kernel keeps no information with further ones to this user
/// (`RLIMIT_SIGPENDING` of setrlimit(2)).
fn fill_queue() -> Result<(), String> {
    /// One for real time: of those each is kept.
    const KEPT: i32 = 40;
    const MOST: u32 = 1 << 20;
    let mut blocked = (1_u64 << (KEPT - 1)).to_ne_bytes();
    let _ = sys!(SYS_rt_sigprocmask, libc::SIG_BLOCK, blocked.as_mut_slice(), 0, 8_usize);
    let mut bytes = information(KEPT, libc::SI_QUEUE);
    for _ in 0..MOST {
        match sys!(SYS_rt_sigqueueinfo, std::process::id(), KEPT, bytes.as_mut_slice()) {
            Ok(_) => {}
            Err(errno) if errno.0 == libc::EAGAIN => return Ok(()),
            Err(errno) => return Err(format!("fill the queue: {errno}")),
        }
    }
    Err(format!("the queue is not full with {MOST} signals"))
}

fn forged_signals() -> Verdict {
    all([libc::SIGTERM, libc::SIGINT].into_iter().flat_map(|signal| {
        [libc::SI_QUEUE, libc::SI_USER, libc::SI_TKILL, libc::SI_MESGQ].into_iter().map(move |code| {
            ends_nobody(|| {
                let mut bytes = information(signal, code);
                let queued = sys!(SYS_rt_sigqueueinfo, 1, signal, bytes.as_mut_slice());
                let pidfd = sys!(SYS_pidfd_open, 1, 0)?;
                let sent = sys!(SYS_pidfd_send_signal, pidfd, signal, bytes.as_mut_slice(), 0);
                queued.or(sent)
            })
        })
    }))
}

/// A signal that a descriptor sends when there is something to read.
fn descriptor_signal(_: &Context) -> Verdict {
    ends_nobody(|| {
        let mut ends = [0_u8; 8];
        sys!(SYS_pipe2, ends.as_mut_slice(), 0)?;
        let [reader, writer] =
            [0, 4].map(|at| ends[at..].first_chunk().map_or(-1, |bytes| i32::from_ne_bytes(*bytes)));
        sys!(SYS_fcntl, reader, libc::F_SETOWN, 1)?;
        // F_SETSIG of fcntl(2).
        sys!(SYS_fcntl, reader, 10, libc::SIGTERM)?;
        sys!(SYS_fcntl, reader, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK)?;
        let mut byte = [b'x'];
        sys!(SYS_write, writer, byte.as_mut_slice(), 1_usize)
    })
}

/// Whether PID 1 took what was sent for an order to end everything. It is asked to reap somebody afterwards: what it
/// sends to all is sent then.
fn ends_nobody(send: impl FnOnce() -> sys::Outcome) -> Verdict {
    // On a host that this is run on by mistake it would be the host's own: the initial namespace has this number.
    if std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]") {
        return Verdict::skipped("PID 1 is the host's");
    }
    let orders = 1_u64 << (libc::SIGTERM - 1) | 1 << (libc::SIGINT - 1);
    let mut blocked = orders.to_ne_bytes();
    let _ = sys!(SYS_rt_sigprocmask, libc::SIG_BLOCK, blocked.as_mut_slice(), 0, 8_usize);
    if let Err(errno) = send() {
        return Verdict::refused(format!("send: {errno}"));
    }
    if let Err(why) = orphan_reaped() {
        return Verdict::skipped(why);
    }
    let mut pending = [0_u8; 8];
    let _ = sys!(SYS_rt_sigpending, pending.as_mut_slice(), 8_usize);
    if u64::from_ne_bytes(pending) & orders == 0 {
        Verdict::refused("PID 1 goes on")
    } else {
        Verdict::escaped("PID 1 ends everything")
    }
}

/// Leaves a process to PID 1 and waits until it is gone.
fn orphan_reaped() -> Result<(), String> {
    let mut ends = [0_u8; 8];
    sys!(SYS_pipe2, ends.as_mut_slice(), 0).map_err(|errno| format!("pipe: {errno}"))?;
    let [reader, writer] =
        [0, 4].map(|at| ends[at..].first_chunk().map_or(-1, |bytes| i32::from_ne_bytes(*bytes)));
    let child = sys::fork().map_err(|errno| format!("fork: {errno}"))?;
    if child == 0 {
        let parent = std::process::id();
        if sys::fork().is_ok_and(|pid| pid == 0) {
            let mut own = std::process::id().to_ne_bytes();
            let _ = sys!(SYS_write, writer, own.as_mut_slice(), 4_usize);
            while parent == std::os::unix::process::parent_id() {
                let _ = sys!(SYS_sched_yield);
            }
        }
        sys::leave(0);
    }
    let _ = sys::wait(child);
    let mut orphan = [0_u8; 4];
    sys!(SYS_read, reader, orphan.as_mut_slice(), 4_usize).map_err(|errno| format!("read: {errno}"))?;
    let shown = format!("/proc/{}", u32::from_ne_bytes(orphan));
    while std::path::Path::new(&shown).exists() {
        let _ = sys!(SYS_sched_yield);
    }
    sys::close(i64::from(reader));
    sys::close(i64::from(writer));
    Ok(())
}

fn kill_everything(_: &Context) -> Verdict {
    // Signal 0 to everybody: succeeds only when somebody else may be signalled; who that is, is then counted.
    let own = i64::from(std::process::id());
    let mut strangers = Vec::new();
    for pid in 2..=(1 << 16) {
        if pid != own && sys!(SYS_kill, pid, 0).is_ok() {
            let visible = std::path::Path::new(&format!("/proc/{pid}")).exists();
            if !visible {
                strangers.push(pid);
            }
        }
    }
    if strangers.is_empty() {
        Verdict::refused("only processes that show in /proc can be signalled")
    } else {
        Verdict::escaped(format!("hidden processes can be signalled: {strangers:?}"))
    }
}

/// Descriptors above 2 that are open now.
pub(crate) fn open_descriptors() -> Vec<i32> {
    const MOST: i32 = 4096;
    (3..MOST).filter(|descriptor| sys!(SYS_fcntl, *descriptor, libc::F_GETFD).is_ok()).collect()
}

fn inherited(context: &Context) -> Verdict {
    if context.inherited.is_empty() {
        return Verdict::refused("nothing but 0, 1 and 2");
    }
    let shown: Vec<String> = context
        .inherited
        .iter()
        .map(|descriptor| {
            let target = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap_or_default();
            format!("{descriptor} → {}", target.display())
        })
        .collect();
    Verdict::escaped(format!("inherited {}", shown.join(", ")))
}

fn environment(_: &Context) -> Verdict {
    let telling = |name: &str| {
        [
            "CARGO",
            "NEXTEST",
            "RUST",
            "HOSTEL_STATE",
            "HOSTEL_RUNTIME",
            "HOSTEL_ADDR",
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
            || ["SECRET", "TOKEN", "API_KEY", "PASSWORD"].iter().any(|part| name.contains(part))
    };
    let names: Vec<String> = std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| telling(name))
        .collect();
    if names.is_empty() {
        Verdict::refused("nothing of the daemon's environment")
    } else {
        Verdict::escaped(format!("the daemon's environment shows: {}", names.join(", ")))
    }
}

/// Sockets by path anywhere in the usual places: the guest's control socket must not be reachable.
fn control_socket(_: &Context) -> Verdict {
    use std::os::unix::fs::FileTypeExt;
    let mut directories: Vec<(std::path::PathBuf, u32)> =
        ["/run", "/tmp", "/var/run", "/dev", "/hostel", "/.hostel", "/mnt", "/srv"]
            .map(|path| (path.into(), 0))
            .into();
    let mut verdicts = vec![Verdict::refused("searched for sockets")];
    while let Some((directory, depth)) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten().take(1000) {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < 3 {
                directories.push((entry.path(), depth + 1));
            } else if kind.is_socket() && std::os::unix::net::UnixStream::connect(entry.path()).is_ok() {
                verdicts.push(Verdict::escaped(format!("connected to {}", entry.path().display())));
            }
        }
    }
    all(verdicts)
}
