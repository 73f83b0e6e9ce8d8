//! The system calls that programs in a sandbox may make, as one list for everybody who enforces it: the guest's
//! own filter, and the profile that a container engine is given.
#![forbid(unsafe_code)]

/// A system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemCall {
    /// Its name in the manual, as libseccomp knows it.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: i64,
}

/// `SYS_name, …` as a list of [`SystemCall`].
macro_rules! calls {
    ($($(#[$condition:meta])* $name:ident),* $(,)?) => {
        &[$($(#[$condition])* SystemCall { name: stringify!($name), number: libc::$name }),*]
    };
}

impl SystemCall {
    /// The name without the prefix of the C constant.
    #[must_use]
    pub fn plain_name(self) -> &'static str {
        self.name.strip_prefix("SYS_").unwrap_or(self.name)
    }
}

/// Namespace flags of clone(2), `CLONE_NEWTIME` included: a clone may have none of them.
pub const NEW_NAMESPACES: u32 = 0x7e02_0080;
/// A socket may have this family, whatever its type and protocol.
pub const AF_UNIX: u32 = 1;
/// A socket may have these families, AF_INET and AF_INET6, with the types and protocols that follow.
pub const INTERNET_FAMILIES: [u32; 2] = [2, 10];
/// Types of their sockets, in the bits of [`SOCKET_TYPE_MASK`]: stream, datagram and raw, for which nobody inside has
/// the right. For others the host would be made to load modules: SCTP's, DCCP's.
pub const INTERNET_TYPES: [u32; 3] = [1, 2, 3];
/// The bits of a socket's type that are no flags (socket(2)).
pub const SOCKET_TYPE_MASK: u32 = 0xf;
/// Protocols of their sockets, for the same reason: the usual one, ICMP, TCP, UDP, ICMPv6, MPTCP.
pub const INTERNET_PROTOCOLS: [u32; 6] = [0, 1, 6, 17, 58, 262];
/// A socket may have this family too, with protocol 0: towards routing.
pub const AF_NETLINK: u32 = 16;
/// The level of setsockopt(2) at which these options are not to be had.
pub const SOL_SOCKET: u32 = 1;
/// Programs on sockets, which the kernel compiles into memory that all of a host share and few programs fill:
/// SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF and SO_ATTACH_REUSEPORT_EBPF.
pub const FORBIDDEN_SOCKET_OPTIONS: [u32; 4] = [26, 50, 51, 52];
/// What personality(2) may be asked: plain Linux, or which it is.
pub const PERSONALITIES: [u32; 2] = [0, u32::MAX];

/// Newer than the libc crate's names; one number on every architecture.
pub const ALLOWED_NEW: &[SystemCall] = &[
    SystemCall { name: "cachestat", number: 451 },
    SystemCall { name: "map_shadow_stack", number: 453 },
    SystemCall { name: "futex_wake", number: 454 },
    SystemCall { name: "futex_wait", number: 455 },
    SystemCall { name: "futex_requeue", number: 456 },
];

/// Answered with success without being made: sync(2) would have every file system of the host written, and syncfs(2)
/// the one that any file is in, be it the host's and read-only here; whoever asked would wait for what others wrote.
/// fsync(2) is there for one's own files.
pub const DONE_AT_ONCE: &[SystemCall] = calls![SYS_sync, SYS_syncfs];

/// What fcntl(2) is not to be asked: for a lease (F_SETLEASE) or for news of a directory (F_NOTIFY). Both belong to the
/// inode, which may be the host's: whoever opened or ran the file there would wait for the lease.
pub const FORBIDDEN_FILE_COMMANDS: [u32; 2] = [1024, 1026];
/// What prctl(2) is not to be asked: PR_SCHED_CORE keeps everybody else from the other half of a processor's core.
pub const FORBIDDEN_PROCESS_OPTIONS: [u32; 1] = [62];

/// Every call that is allowed whatever its arguments. What is not here and not looked at is refused.
pub fn allowed() -> impl Iterator<Item = SystemCall> {
    ALLOWED.iter().chain(ALLOWED_NEW).copied()
}

/// Allowed whatever their arguments, by purpose.
#[rustfmt::skip]
const ALLOWED: &[SystemCall] = calls![
    // Files and directories.
    SYS_read, SYS_write, SYS_openat, SYS_openat2, SYS_close, SYS_lseek,
    SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev, SYS_preadv,
    SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_fstat, SYS_newfstatat,
    SYS_statx, SYS_statfs, SYS_fstatfs, SYS_getdents64, SYS_getcwd,
    SYS_chdir, SYS_fchdir, SYS_faccessat, SYS_faccessat2, SYS_mkdirat,
    SYS_mknodat, SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_linkat,
    SYS_symlinkat, SYS_readlinkat, SYS_fchmod, SYS_fchmodat, SYS_fchmodat2,
    SYS_fchown, SYS_fchownat, SYS_utimensat, SYS_truncate, SYS_ftruncate,
    SYS_fallocate, SYS_fsync, SYS_fdatasync,
    SYS_sync_file_range, SYS_flock, SYS_fadvise64, SYS_readahead,
    SYS_sendfile, SYS_splice, SYS_tee, SYS_vmsplice, SYS_copy_file_range,
    SYS_umask, SYS_close_range,
    // Extended attributes.
    SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_getxattr, SYS_lgetxattr,
    SYS_fgetxattr, SYS_listxattr, SYS_llistxattr, SYS_flistxattr,
    SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr,
    // Descriptors and events.
    SYS_dup, SYS_dup3, SYS_pipe2, SYS_ppoll, SYS_pselect6,
    SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2,
    SYS_eventfd2, SYS_signalfd4, SYS_timerfd_create, SYS_timerfd_settime,
    SYS_timerfd_gettime, SYS_inotify_init1, SYS_inotify_add_watch,
    SYS_inotify_rm_watch,
    // Memory.
    SYS_mmap, SYS_mprotect, SYS_munmap, SYS_brk, SYS_mremap, SYS_msync,
    SYS_mincore, SYS_madvise, SYS_mlock, SYS_mlock2, SYS_munlock,
    SYS_mlockall, SYS_munlockall, SYS_membarrier, SYS_memfd_create,
    SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_mseal,
    // Processes and threads. clone(2) is looked at, clone3 is not there.
    SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4,
    SYS_waitid, SYS_kill, SYS_tkill, SYS_tgkill, SYS_getpid,
    SYS_getppid, SYS_gettid, SYS_getpgid, SYS_setpgid, SYS_getsid,
    SYS_setsid, SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list,
    SYS_futex, SYS_futex_waitv,
    SYS_rseq, SYS_getrlimit, SYS_setrlimit,
    SYS_getrusage, SYS_getpriority, SYS_setpriority,
    SYS_sched_yield, SYS_sched_setparam, SYS_sched_getparam,
    SYS_sched_setscheduler, SYS_sched_getscheduler, SYS_sched_setattr,
    SYS_sched_getattr, SYS_sched_get_priority_max, SYS_sched_get_priority_min,
    SYS_sched_rr_get_interval, SYS_sched_setaffinity, SYS_sched_getaffinity,
    SYS_getcpu, SYS_ioprio_set, SYS_ioprio_get, SYS_pidfd_open,
    SYS_pidfd_send_signal, SYS_restart_syscall, SYS_seccomp,
    SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self,
    // Users. Without capabilities these only give up.
    SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid,
    SYS_getresgid, SYS_getgroups, SYS_setuid, SYS_setgid, SYS_setreuid,
    SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid,
    SYS_setfsgid, SYS_capget, SYS_capset,
    // Signals and time.
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending,
    SYS_rt_sigtimedwait, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo,
    SYS_rt_sigsuspend, SYS_sigaltstack, SYS_nanosleep, SYS_clock_nanosleep,
    SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_getitimer,
    SYS_setitimer, SYS_timer_create, SYS_timer_settime, SYS_timer_gettime,
    SYS_timer_getoverrun, SYS_timer_delete, SYS_times,
    // Sockets. Which families is looked at, and which of their options are set.
    SYS_connect, SYS_accept, SYS_accept4, SYS_bind, SYS_listen,
    SYS_getsockname, SYS_getpeername, SYS_getsockopt,
    SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg,
    SYS_recvmmsg, SYS_shutdown,
    // System V and POSIX communication, in the jail's own namespace.
    SYS_shmget, SYS_shmat, SYS_shmdt, SYS_shmctl, SYS_semget,
    SYS_semop, SYS_semtimedop, SYS_semctl, SYS_msgget, SYS_msgsnd,
    SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink, SYS_mq_timedsend,
    SYS_mq_timedreceive, SYS_mq_notify, SYS_mq_getsetattr,
    // Questions.
    SYS_uname, SYS_sysinfo, SYS_getrandom,
    // The same under the old names that only some architectures have.
    #[cfg(target_arch = "x86_64")] SYS_open,
    #[cfg(target_arch = "x86_64")] SYS_creat,
    #[cfg(target_arch = "x86_64")] SYS_stat,
    #[cfg(target_arch = "x86_64")] SYS_lstat,
    #[cfg(target_arch = "x86_64")] SYS_poll,
    #[cfg(target_arch = "x86_64")] SYS_access,
    #[cfg(target_arch = "x86_64")] SYS_pipe,
    #[cfg(target_arch = "x86_64")] SYS_select,
    #[cfg(target_arch = "x86_64")] SYS_dup2,
    #[cfg(target_arch = "x86_64")] SYS_pause,
    #[cfg(target_arch = "x86_64")] SYS_alarm,
    #[cfg(target_arch = "x86_64")] SYS_fork,
    #[cfg(target_arch = "x86_64")] SYS_vfork,
    #[cfg(target_arch = "x86_64")] SYS_getpgrp,
    #[cfg(target_arch = "x86_64")] SYS_time,
    #[cfg(target_arch = "x86_64")] SYS_epoll_create,
    #[cfg(target_arch = "x86_64")] SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")] SYS_inotify_init,
    #[cfg(target_arch = "x86_64")] SYS_eventfd,
    #[cfg(target_arch = "x86_64")] SYS_signalfd,
    #[cfg(target_arch = "x86_64")] SYS_getdents,
    #[cfg(target_arch = "x86_64")] SYS_rename,
    #[cfg(target_arch = "x86_64")] SYS_mkdir,
    #[cfg(target_arch = "x86_64")] SYS_rmdir,
    #[cfg(target_arch = "x86_64")] SYS_link,
    #[cfg(target_arch = "x86_64")] SYS_unlink,
    #[cfg(target_arch = "x86_64")] SYS_symlink,
    #[cfg(target_arch = "x86_64")] SYS_readlink,
    #[cfg(target_arch = "x86_64")] SYS_chmod,
    #[cfg(target_arch = "x86_64")] SYS_chown,
    #[cfg(target_arch = "x86_64")] SYS_lchown,
    #[cfg(target_arch = "x86_64")] SYS_utime,
    #[cfg(target_arch = "x86_64")] SYS_utimes,
    #[cfg(target_arch = "x86_64")] SYS_futimesat,
    #[cfg(target_arch = "x86_64")] SYS_mknod,
    #[cfg(target_arch = "x86_64")] SYS_arch_prctl,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_is_listed_once_and_the_dangerous_are_not() {
        let names: BTreeSet<&str> = allowed().map(SystemCall::plain_name).collect();
        assert_eq!(names.len(), allowed().count());
        for call in [
            "mount",
            "bpf",
            "ptrace",
            "unshare",
            "clone",
            "clone3",
            "ioctl",
            "socket",
            "setsockopt",
            "keyctl",
            "personality",
            "sync",
        ] {
            assert!(!names.contains(call), "{call}");
        }
        assert!(names.contains("read") && names.contains("futex_wait"));
    }
}
