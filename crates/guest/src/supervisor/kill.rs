//! The end of everything that runs in a sandbox, which itself stays.

use super::Supervisor;
use super::connection::{Connection, Mode};
use super::failure::{Outcome, failure, refused};
use hostel_guest_protocol::FailureKind;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

/// Everything in our namespace that we may signal, but ourselves; see kill(2).
const EVERYTHING: libc::pid_t = -1;

impl Supervisor {
    /// Kills every process, whoever started it, but what works for the host: workers, and the relays of a host that is
    /// far away. Nothing escapes by starting others meanwhile: the kernel signals all at once, and what has a signal
    /// waiting starts nothing (fork(2) in the kernel looks under the same lock).
    pub(super) fn kill_all(&mut self) -> Outcome<()> {
        for process in self.processes.values_mut().filter(|process| process.is_running()) {
            process.killed = true;
        }
        if !rustix::process::getpid().is_init() {
            // A supervisor of tests, with other people's processes around it.
            for process in self.processes.values_mut() {
                let _ = process.signal(Signal::KILL);
            }
            return Ok(());
        }
        let spared: Vec<Pid> = self.connections.values().flat_map(serve_the_host).flatten().collect();
        if spared.is_empty() {
            return everything(Signal::KILL);
        }
        everything(Signal::STOP)?;
        let killed = processes().map(|found| {
            for pid in found.into_iter().filter(|pid| !pid.is_init() && !spared.contains(pid)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        for pid in spared {
            let _ = kill_process(pid, Signal::CONT);
        }
        killed.map_err(|_| failure(FailureKind::Internal, "the processes cannot be listed", "/proc"))
    }
}

fn everything(signal: Signal) -> Outcome<()> {
    // SAFETY: plain kill(2).
    match unsafe { libc::kill(EVERYTHING, signal.as_raw()) } {
        0 => Ok(()),
        _ => match Errno::from_io_error(&std::io::Error::last_os_error()) {
            // There is nobody else.
            Some(Errno::SRCH) => Ok(()),
            errno => Err(refused(errno.unwrap_or(Errno::PERM), "processes")),
        },
    }
}

/// Numbers of all processes in our namespace.
fn processes() -> std::io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        found.extend(entry?.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)));
    }
    Ok(found)
}

/// The processes in our namespace that work for a connection.
fn serve_the_host(connection: &Connection) -> [Option<Pid>; 2] {
    match &connection.mode {
        // Whoever did not say the right word yet may be anybody.
        Mode::Handshake => [None, None],
        Mode::Working(worker) => [Some(worker.pid), peer(connection.socket.as_fd())],
        Mode::Idle | Mode::Waiting(_) | Mode::Attached(_) | Mode::Watching(_) => {
            [None, peer(connection.socket.as_fd())]
        }
    }
}

/// Who connected, if that was from within our namespace (SO_PEERCRED, unix(7)): a relay. The host itself shows as 0.
fn peer(socket: BorrowedFd<'_>) -> Option<Pid> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than the structure on our own stack has.
    let told = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if told == 0 { Pid::from_raw(credentials.pid) } else { None }
}
