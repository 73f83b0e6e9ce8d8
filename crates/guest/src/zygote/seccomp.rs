//! The filter over system calls (seccomp(2)): an allow-list, compiled to a binary search so that a call costs
//! about seven comparisons instead of hundreds.
//!
//! What is known and refused answers `EPERM`; what is newer than this list answers `ENOSYS`, so that programs
//! fall back as on an older kernel. Calls of another architecture kill the process. Whether another netlink socket
//! may be opened, or another filter be installed, depends on how many there are: the kernel asks the guest
//! (seccomp_unotify(2)).

use hostel_system_calls::{
    AF_NETLINK, AF_UNIX, DONE_AT_ONCE, FORBIDDEN_FILE_COMMANDS, FORBIDDEN_PROCESS_OPTIONS,
    FORBIDDEN_SOCKET_OPTIONS, INTERNET_FAMILIES, INTERNET_PROTOCOLS, INTERNET_TYPES, NEW_NAMESPACES,
    PERSONALITIES, SOCKET_TYPE_MASK, SOL_SOCKET,
};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd};

const DONE: u32 = RETURN_ERRNO;
const EPERM: u32 = RETURN_ERRNO | 1;
const ENOSYS: u32 = RETURN_ERRNO | 38;
const EPROTONOSUPPORT: u32 = RETURN_ERRNO | 93;
const EAFNOSUPPORT: u32 = RETURN_ERRNO | 97;

const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls with the bit of the x32 interface (x86-64 psABI); numbers of 64-bit calls stay far below.
const X32_BIT: u32 = 0x4000_0000;
/// The first number that this list has never heard of: after `file_setattr` of Linux 6.17.
const FIRST_UNKNOWN: u32 = 470;

/// Offsets in `struct seccomp_data`; arguments are read by their lower half, where every flag we test lives. Only a
/// pointer has an upper half that counts.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_0: u32 = 16;
const ARGUMENT_1: u32 = 24;
const ARGUMENT_2: u32 = 32;
const ARGUMENT_2_UPPER: u32 = 36;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Pretending input on a terminal (TIOCSTI, TIOCLINUX) and changing its line discipline (TIOCSETD); and what has the
/// host load a module before it looks at rights: bridges (SIOCGIFBR, SIOCSIFBR, SIOCBRADDBR, SIOCBRDELBR) and VLANs
/// (SIOCGIFVLAN, SIOCSIFVLAN).
const FORBIDDEN_IOCTLS: [u32; 9] = [0x5412, 0x541c, 0x5423, 0x8940, 0x8941, 0x89a0, 0x89a1, 0x8982, 0x8983];

/// Only this limit says that no core is to be written or handed to a program of the host: see [`super::confine`].
const RLIMIT_CORE: u32 = 4;
const SET_SECCOMP: u32 = libc::PR_SET_SECCOMP.cast_unsigned();

/// One instruction (`struct sock_filter`, Documentation/networking/filter.rst).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

fn op(code: u16, operand: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, operand }
}

fn jump(code: u16, operand: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, operand }
}

/// What to do with a range of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Return(u32),
    /// Not with new namespaces.
    Clone,
    /// Not the forbidden ones.
    Ioctl,
    /// Not the forbidden ones.
    FileCommand,
    /// Not the forbidden ones; this for a filter of the program's own.
    ProcessOption(u32),
    /// This for a filter of the program's own.
    Filter(u32),
    /// Only harmless families, types and protocols; this for a netlink socket.
    Socket(u32),
    /// No programs on sockets.
    SocketOption,
    /// Only asking, or the plain Linux personality.
    Personality,
    /// Only its own limits: root inside has the supervisor's user. That on cores stays, whoever changes it.
    OwnLimits,
    /// Not that on cores.
    SetLimit,
}

impl Verdict {
    fn code(self) -> Vec<Instruction> {
        match self {
            Self::Return(value) => vec![op(RETURN, value)],
            Self::Clone => vec![
                op(LOAD, ARGUMENT_0),
                jump(JUMP_ANY_BIT, NEW_NAMESPACES, 0, 1),
                op(RETURN, EPERM),
                op(RETURN, RETURN_ALLOW),
            ],
            Self::Ioctl => any_of(ARGUMENT_1, &FORBIDDEN_IOCTLS, EPERM, RETURN_ALLOW),
            Self::FileCommand => any_of(ARGUMENT_1, &FORBIDDEN_FILE_COMMANDS, EPERM, RETURN_ALLOW),
            Self::ProcessOption(filter) => {
                let mut code = vec![op(LOAD, ARGUMENT_0), jump(JUMP_EQUAL, SET_SECCOMP, 0, 4)];
                code.extend(any_of(ARGUMENT_1, &[libc::SECCOMP_MODE_FILTER], filter, RETURN_ALLOW));
                code.extend(unless_among(&FORBIDDEN_PROCESS_OPTIONS, RETURN_ALLOW));
                code.push(op(RETURN, EPERM));
                code
            }
            Self::Filter(filter) => {
                any_of(ARGUMENT_0, &[libc::SECCOMP_SET_MODE_FILTER], filter, RETURN_ALLOW)
            }
            Self::OwnLimits => {
                let mut code = vec![op(LOAD, ARGUMENT_0)];
                code.extend(unless_among(&[0], EPERM));
                code.push(op(LOAD, ARGUMENT_1));
                code.extend(unless_among(&[RLIMIT_CORE], RETURN_ALLOW));
                // Asking for it, without a new one, is fine.
                for half in [ARGUMENT_2, ARGUMENT_2_UPPER] {
                    code.push(op(LOAD, half));
                    code.extend(unless_among(&[0], DONE));
                }
                code.push(op(RETURN, RETURN_ALLOW));
                code
            }
            Self::SetLimit => any_of(ARGUMENT_0, &[RLIMIT_CORE], DONE, RETURN_ALLOW),
            Self::SocketOption => {
                let mut code = vec![op(LOAD, ARGUMENT_1)];
                code.extend(unless_among(&[SOL_SOCKET], RETURN_ALLOW));
                code.extend(any_of(ARGUMENT_2, &FORBIDDEN_SOCKET_OPTIONS, EPERM, RETURN_ALLOW));
                code
            }
            Self::Personality => any_of(ARGUMENT_0, &PERSONALITIES, RETURN_ALLOW, EPERM),
            Self::Socket(netlink) => {
                let mut code = vec![
                    op(LOAD, ARGUMENT_0),
                    jump(JUMP_EQUAL, AF_UNIX, 0, 1),
                    op(RETURN, RETURN_ALLOW),
                    jump(JUMP_EQUAL, AF_NETLINK, 0, 4),
                    op(LOAD, ARGUMENT_2),
                    jump(JUMP_EQUAL, 0, 0, 1),
                    op(RETURN, netlink),
                    op(RETURN, EAFNOSUPPORT),
                ];
                code.extend(unless_among(&INTERNET_FAMILIES, EAFNOSUPPORT));
                code.extend([op(LOAD, ARGUMENT_1), op(AND, SOCKET_TYPE_MASK)]);
                code.extend(unless_among(&INTERNET_TYPES, EPROTONOSUPPORT));
                code.extend(any_of(ARGUMENT_2, &INTERNET_PROTOCOLS, RETURN_ALLOW, EPROTONOSUPPORT));
                code
            }
        }
    }
}

/// Loads an argument; `hit` where it equals one of the values, else `miss`.
fn any_of(argument: u32, values: &[u32], hit: u32, miss: u32) -> Vec<Instruction> {
    let mut code = vec![op(LOAD, argument)];
    code.extend(unless_among(values, miss));
    code.push(op(RETURN, hit));
    code
}

/// `miss` unless what is loaded equals one of the values; goes on behind where it does.
fn unless_among(values: &[u32], miss: u32) -> Vec<Instruction> {
    let behind = |index: usize| u8::try_from(values.len() - index).unwrap_or(u8::MAX);
    let mut code: Vec<Instruction> =
        values.iter().enumerate().map(|(index, value)| jump(JUMP_EQUAL, *value, behind(index), 0)).collect();
    code.push(op(RETURN, miss));
    code
}

/// The whole range of call numbers as consecutive pieces, each with its verdict: `(first number, verdict)`.
fn pieces(ask: u32) -> Vec<(u32, Verdict)> {
    let allowed: BTreeSet<i64> = hostel_system_calls::allowed().map(|call| call.number).collect();
    let verdict = |number: u32| {
        let number_of = |call: i64| u32::try_from(call).ok() == Some(number);
        if number >= FIRST_UNKNOWN || number_of(libc::SYS_clone3) {
            // glibc falls back to clone(2), whose flags can be seen.
            Verdict::Return(ENOSYS)
        } else if number_of(libc::SYS_clone) {
            Verdict::Clone
        } else if number_of(libc::SYS_ioctl) {
            Verdict::Ioctl
        } else if number_of(libc::SYS_fcntl) {
            Verdict::FileCommand
        } else if number_of(libc::SYS_prctl) {
            Verdict::ProcessOption(ask)
        } else if number_of(libc::SYS_seccomp) {
            Verdict::Filter(ask)
        } else if number_of(libc::SYS_socket) || number_of(libc::SYS_socketpair) {
            Verdict::Socket(ask)
        } else if number_of(libc::SYS_setsockopt) {
            Verdict::SocketOption
        } else if number_of(libc::SYS_personality) {
            Verdict::Personality
        } else if DONE_AT_ONCE.iter().any(|call| number_of(call.number)) {
            Verdict::Return(DONE)
        } else if number_of(libc::SYS_prlimit64) {
            Verdict::OwnLimits
        } else if number_of(libc::SYS_setrlimit) {
            Verdict::SetLimit
        } else if allowed.contains(&i64::from(number)) {
            Verdict::Return(RETURN_ALLOW)
        } else {
            Verdict::Return(EPERM)
        }
    };
    let mut pieces: Vec<(u32, Verdict)> = Vec::new();
    for number in 0..=FIRST_UNKNOWN {
        let verdict = verdict(number);
        if pieces.last().is_none_or(|(_, last)| *last != verdict) {
            pieces.push((number, verdict));
        }
    }
    pieces
}

/// Binary search over the pieces. Jumps reach 255 instructions, so the smaller half comes first.
fn search(pieces: &[(u32, Verdict)]) -> Vec<Instruction> {
    let [(_, verdict)] = pieces else {
        let (low, high) = pieces.split_at(pieces.len() / 2);
        let (below, above) = (search(low), search(high));
        let skip = u8::try_from(below.len()).unwrap_or(u8::MAX);
        let mut code = vec![jump(JUMP_GREATER_EQUAL, high[0].0, skip, 0)];
        code.extend(below);
        code.extend(above);
        return code;
    };
    verdict.code()
}

/// The whole program, for which somebody has to answer what the kernel asks.
#[must_use]
pub fn program() -> Vec<Instruction> {
    program_with(RETURN_ASK)
}

fn program_with(ask: u32) -> Vec<Instruction> {
    let mut code = vec![
        op(LOAD, ARCH),
        jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        op(RETURN, RETURN_KILL_PROCESS),
        op(LOAD, NUMBER),
        jump(JUMP_GREATER_EQUAL, X32_BIT, 0, 1),
        op(RETURN, RETURN_KILL_PROCESS),
    ];
    code.extend(search(&pieces(ask)));
    code
}

/// Puts a filter, [`program`]'s, on this thread and all it will ever start. Needs `no_new_privs`. → where the kernel
/// asks. Where it cannot, since it is too old (before Linux 5.0) or the filter of who runs us asks somebody else, netlink
/// sockets and filters are not counted, and nobody is asked.
///
/// # Errors
/// The kernel's, where it has no filters or does not like this one.
pub fn install(mut code: Vec<Instruction>) -> Result<Option<OwnedFd>, Errno> {
    // Without SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: who waits so can be frozen no more, nor its sandbox paused.
    match set(&mut code, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER) {
        // SAFETY: with this flag the kernel answers with a new descriptor, which nobody else has.
        Ok(listener) => return Ok(Some(unsafe { OwnedFd::from_raw_fd(listener) })),
        Err(Errno::INVAL | Errno::BUSY) => {}
        Err(errno) => return Err(errno),
    }
    set(&mut program_with(RETURN_ALLOW), 0).map(|_| None)
}

fn set(code: &mut [Instruction], flags: libc::c_ulong) -> Result<libc::c_int, Errno> {
    let length = u16::try_from(code.len()).map_err(|_| Errno::TOOBIG)?;
    let program = libc::sock_fprog { len: length, filter: code.as_mut_ptr().cast() };
    // SAFETY: the program points at `length` instructions of the kernel's layout that live across the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    libc::c_int::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(|| super::errno_of(&std::io::Error::last_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs the program as the kernel would.
    fn run(code: &[Instruction], arch: u32, number: u32, arguments: [u32; 3]) -> u32 {
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let instruction = code[at];
            at += 1;
            let taken = match instruction.code {
                LOAD => {
                    accumulator = match instruction.operand {
                        NUMBER => number,
                        ARCH => arch,
                        ARGUMENT_0 => arguments[0],
                        ARGUMENT_1 => arguments[1],
                        ARGUMENT_2 => arguments[2],
                        // As if each pointer were below 4 GiB.
                        ARGUMENT_2_UPPER => 0,
                        other => panic!("loads {other}"),
                    };
                    continue;
                }
                AND => {
                    accumulator &= instruction.operand;
                    continue;
                }
                RETURN => return instruction.operand,
                JUMP_EQUAL => accumulator == instruction.operand,
                JUMP_GREATER_EQUAL => accumulator >= instruction.operand,
                JUMP_ANY_BIT => accumulator & instruction.operand != 0,
                other => panic!("code {other}"),
            };
            at += usize::from(if taken { instruction.if_true } else { instruction.if_false });
        }
    }

    fn verdict(call: i64, arguments: [u32; 3]) -> u32 {
        run(&program(), ARCHITECTURE, u32::try_from(call).unwrap(), arguments)
    }

    #[test]
    fn the_calls_that_break_sandboxes_are_refused() {
        for call in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_userfaultfd,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_pidfd_getfd,
            libc::SYS_open_by_handle_at,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_fsopen,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_mount_setattr,
            libc::SYS_fanotify_init,
            libc::SYS_quotactl,
            libc::SYS_reboot,
            libc::SYS_syslog,
            libc::SYS_swapon,
            libc::SYS_acct,
            libc::SYS_sethostname,
            libc::SYS_settimeofday,
        ] {
            assert_eq!(verdict(call, [0; 3]), EPERM, "{call}");
        }
        assert_eq!(verdict(libc::SYS_clone3, [0; 3]), ENOSYS);
        assert_eq!(verdict(libc::SYS_sync, [0; 3]), RETURN_ERRNO);
        assert_eq!(run(&program(), ARCHITECTURE, 100_000, [0; 3]), ENOSYS);
    }

    #[test]
    fn arguments_decide_where_they_must() {
        assert_eq!(verdict(libc::SYS_clone, [libc::SIGCHLD.unsigned_abs(), 0, 0]), RETURN_ALLOW);
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID] {
            assert_eq!(verdict(libc::SYS_clone, [flag.unsigned_abs(), 0, 0]), EPERM);
        }
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x5412, 0]), EPERM);
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x5413, 0]), RETURN_ALLOW);
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x8940, 0]), EPERM);
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x8983, 0]), EPERM);
        for command in [libc::F_SETLEASE, libc::F_NOTIFY] {
            assert_eq!(verdict(libc::SYS_fcntl, [3, command.cast_unsigned(), 1]), EPERM);
        }
        for command in
            [libc::F_GETFD, libc::F_SETLK, libc::F_OFD_SETLKW, libc::F_SETPIPE_SZ, libc::F_ADD_SEALS]
        {
            assert_eq!(verdict(libc::SYS_fcntl, [3, command.cast_unsigned(), 1]), RETURN_ALLOW);
        }
        assert_eq!(verdict(libc::SYS_prctl, [libc::PR_SCHED_CORE.cast_unsigned(), 1, 0]), EPERM);
        assert_eq!(verdict(libc::SYS_prctl, [libc::PR_SET_NAME.cast_unsigned(), 0, 0]), RETURN_ALLOW);
        for (option, mode, expected) in [(22, 2, RETURN_ASK), (22, 1, RETURN_ALLOW), (21, 2, RETURN_ALLOW)] {
            assert_eq!(verdict(libc::SYS_prctl, [option, mode, 0]), expected, "option {option}, mode {mode}");
        }
        for (operation, expected) in
            [(0, RETURN_ALLOW), (1, RETURN_ASK), (2, RETURN_ALLOW), (3, RETURN_ALLOW)]
        {
            assert_eq!(verdict(libc::SYS_seccomp, [operation, 0, 0]), expected, "operation {operation}");
        }
        assert_eq!(verdict(libc::SYS_syncfs, [3, 0, 0]), DONE);
        for (family, kind, protocol, expected) in [
            (1, 1, 0, RETURN_ALLOW),
            (1, 5, 0, RETURN_ALLOW),
            (2, 2 | 0x80800, 17, RETURN_ALLOW),
            (10, 1, 6, RETURN_ALLOW),
            (10, 1, 262, RETURN_ALLOW),
            (10, 2, 58, RETURN_ALLOW),
            (2, 5, 132, EPROTONOSUPPORT),
            (2, 1, 132, EPROTONOSUPPORT),
            (10, 6, 33, EPROTONOSUPPORT),
            (2, 2, 136, EPROTONOSUPPORT),
            (2, 10 | 0x80000, 0, EPROTONOSUPPORT),
            (2, 0, 0, EPROTONOSUPPORT),
            (16, 3, 0, RETURN_ASK),
            (16, 3, 15, EAFNOSUPPORT),
            (40, 1, 0, EAFNOSUPPORT),
            (17, 3, 0, EAFNOSUPPORT),
            (38, 5, 0, EAFNOSUPPORT),
        ] {
            let seen = verdict(libc::SYS_socket, [family, kind, protocol]);
            assert_eq!(seen, expected, "family {family}, type {kind}, protocol {protocol}");
        }
        for (level, option, expected) in [
            (1, 26, EPERM),
            (1, 50, EPERM),
            (1, 51, EPERM),
            (1, 52, EPERM),
            (1, 2, RETURN_ALLOW),
            (1, 27, RETURN_ALLOW),
            (6, 26, RETURN_ALLOW),
            (41, 26, RETURN_ALLOW),
        ] {
            let seen = verdict(libc::SYS_setsockopt, [3, level, option]);
            assert_eq!(seen, expected, "level {level}, option {option}");
        }
        assert_eq!(verdict(libc::SYS_personality, [u32::MAX, 0, 0]), RETURN_ALLOW);
        assert_eq!(verdict(libc::SYS_personality, [0x0004_0000, 0, 0]), EPERM);
        assert_eq!(verdict(libc::SYS_prlimit64, [0, 7, 0]), RETURN_ALLOW);
        assert_eq!(verdict(libc::SYS_prlimit64, [1, 7, 0]), EPERM);
        assert_eq!(verdict(libc::SYS_prlimit64, [0, 7, 0x1000]), RETURN_ALLOW);
        assert_eq!(verdict(libc::SYS_prlimit64, [0, RLIMIT_CORE, 0]), RETURN_ALLOW);
        assert_eq!(verdict(libc::SYS_prlimit64, [0, RLIMIT_CORE, 0x1000]), DONE);
        assert_eq!(verdict(libc::SYS_prlimit64, [1, RLIMIT_CORE, 0x1000]), EPERM);
        assert_eq!(verdict(libc::SYS_setrlimit, [RLIMIT_CORE, 0x1000, 0]), DONE);
        assert_eq!(verdict(libc::SYS_setrlimit, [7, 0x1000, 0]), RETURN_ALLOW);
    }

    #[test]
    fn other_architectures_die() {
        assert_eq!(run(&program(), 0x4000_0003, 1, [0; 3]), RETURN_KILL_PROCESS);
        assert_eq!(run(&program(), ARCHITECTURE, X32_BIT | 1, [0; 3]), RETURN_KILL_PROCESS);
    }

    #[test]
    fn ordinary_programs_can_work_and_the_search_is_short() {
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_openat,
            libc::SYS_futex,
            libc::SYS_mmap,
            libc::SYS_statx,
        ] {
            assert_eq!(verdict(call, [0; 3]), RETURN_ALLOW);
        }
        assert!(program().len() < 300, "{} instructions", program().len());
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_the_list(number in 0u32..2000, arguments: [u32; 3]) {
            let expected = pieces(RETURN_ASK).into_iter().rev().find(|(first, _)| *first <= number).map(|(_, verdict)| verdict);
            if let Some(Verdict::Return(expected)) = expected {
                prop_assert_eq!(run(&program(), ARCHITECTURE, number, arguments), expected);
            }
        }
    }
}
