//! The ends of processes: ours, and those of orphans, which fall to us.

use super::Supervisor;
use super::process::{Process, now_ns};
use hostel_guest_protocol::{Exit, ExitReason};
use rustix::io::Errno;
use rustix::process::Signal;
use std::os::fd::{FromRawFd, OwnedFd};

/// A descriptor for the signals that a supervisor listens to, which are blocked from now on.
pub(crate) fn signals() -> Result<OwnedFd, Errno> {
    // SAFETY: signal sets on our own stack, and a descriptor that is ours if it is one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(Errno::MFILE),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Asks everything in the sandbox to end: as process number 1 really everything, otherwise what we started.
pub(crate) fn terminate_everything<'a>(processes: impl Iterator<Item = &'a mut Process>) {
    if rustix::process::getpid().is_init() {
        // SAFETY: plain kill(2); -1 is everything in our namespace but ourselves.
        unsafe { libc::kill(-1, libc::SIGTERM) };
    } else {
        processes.for_each(|process| {
            let _ = process.signal(Signal::TERM);
        });
    }
}

/// Ends everything now. Without a namespace of our own: all descendants, level by level.
pub(crate) fn kill_everything() {
    if rustix::process::getpid().is_init() {
        // SAFETY: as above.
        unsafe { libc::kill(-1, libc::SIGKILL) };
        return;
    }
    // Children of what dies become ours, so that a few rounds reach all.
    for _ in 0..64 {
        let path = format!("/proc/self/task/{}/children", rustix::process::getpid().as_raw_nonzero());
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let mut any = false;
        for child in children.split_ascii_whitespace().filter_map(|child| child.parse::<i32>().ok()) {
            any = true;
            // SAFETY: plain kill(2) and waitpid(2) on a child of ours, which is not reaped before.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
        }
        if !any {
            return;
        }
    }
}

/// Whether anything is left: our children, or orphans, which are ours as well.
pub(crate) fn has_children() -> bool {
    // SAFETY: an all-zero siginfo is a valid one; waitid(2) only looks.
    unsafe {
        let mut information: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_ALL, 0, &raw mut information, flags) == 0
    }
}

impl Supervisor {
    /// Signals came: children ended, or we shall.
    pub(super) fn signalled(&mut self) {
        let is_init = rustix::process::getpid().is_init();
        let is_root = rustix::process::getuid().is_root();
        let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>() * 4];
        while let Ok(count) = rustix::io::read(&self.signals, &mut buffer[..]) {
            for information in buffer[..count].chunks_exact(size_of::<libc::signalfd_siginfo>()) {
                // Number of the signal, error, code, sender, the sender's user. One outside of our namespace has no
                // number here. Who sends information of its own choice says that it has none either, but not that
                // this is a plain kill(2): the kernel takes that code from nobody. What descriptors send (F_SETSIG)
                // has others. Where our user's queue is full, which root inside can see to in a jail, the kernel
                // drops such information without a word and leaves zeros: that user is root. Whoever sends from
                // outside of a jail is not its root.
                let word = |index: usize| {
                    let bytes = information[index * 4..].first_chunk();
                    bytes.map_or(0, |bytes| i32::from_ne_bytes(*bytes))
                };
                let from_outside = word(2) == libc::SI_USER && word(3) == 0 && (word(4) != 0 || !is_root);
                let from_outside = from_outside || !is_init;
                if matches!(word(0), libc::SIGTERM | libc::SIGINT) && from_outside {
                    self.shut_down();
                }
            }
            if count < buffer.len() {
                break;
            }
        }
        self.reap();
    }

    pub(super) fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: an all-zero rusage is a valid one, and wait4(2) fills it.
            let (pid, usage) = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                (libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
            };
            if pid <= 0 {
                return;
            }
            if let Some(serial) = self.running.remove(&pid) {
                let oom_kills = self.oom_kills();
                if let Some(process) = self.processes.get_mut(&serial) {
                    if process.timed_out {
                        // Others of the group had their SIGTERM too; this is the last moment its number is sure.
                        // SAFETY: plain kill(2).
                        unsafe { libc::kill(-pid, libc::SIGKILL) };
                    }
                    let exit = describe(process, status, &usage, oom_kills);
                    self.ended(serial, exit);
                }
            }
        }
    }

    /// Out-of-memory kills in the sandbox so far.
    pub(super) fn oom_kills(&self) -> u64 {
        let Some(counter) = &self.oom_counter else { return 0 };
        let mut buffer = [0; 1024];
        let count = rustix::io::pread(counter, &mut buffer[..], 0).unwrap_or(0);
        parse_oom_kills(&buffer[..count])
    }
}

fn parse_oom_kills(text: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(text);
    let number = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

fn describe(process: &Process, status: i32, usage: &libc::rusage, oom_kills: u64) -> Exit {
    let oom_kills = oom_kills.saturating_sub(process.oom_before);
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    let reason = if process.timed_out {
        ExitReason::TimedOut
    } else if signal == Some(libc::SIGKILL) && !process.killed && oom_kills > 0 {
        ExitReason::OutOfMemory
    } else if signal.is_some() {
        ExitReason::Signaled
    } else {
        ExitReason::Exited
    };
    let microseconds = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    Exit {
        reason: reason.into(),
        code,
        signal,
        oom_kills,
        cpu_us: microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        time_ns: now_ns(),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_oom_kills;

    #[test]
    fn both_counters_are_understood() {
        assert_eq!(parse_oom_kills(b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(parse_oom_kills(b"low 0\nhigh 0\nmax 9\noom 4\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(parse_oom_kills(b""), 0);
        assert_eq!(parse_oom_kills(b"oom_kill x\n"), 0);
    }
}
