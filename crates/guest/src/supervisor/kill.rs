//! The end of everything that runs in a sandbox, which itself stays.

use super::Supervisor;
use super::connection::{Connection, Mode};
use super::failure::{Outcome, refused};
use super::worker::Worker;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashSet;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

/// Everything in our namespace that we may signal, but ourselves; see kill(2).
const EVERYTHING: libc::pid_t = -1;
/// How often it is looked who is left, until those are not spared either that work for the host.
const ROUNDS: usize = 64;

impl Supervisor {
    /// Kills every process, whoever started it, but what works for the host: workers, and the relays of a host that is
    /// far away.
    pub(super) fn kill_all(&mut self) -> Outcome<()> {
        // What has ended was not killed, whatever it ended of.
        self.reap();
        if !rustix::process::getpid().is_init() {
            // A supervisor of tests, with other people's processes around it.
            for process in self.processes.values_mut() {
                let _ = process.signal(Signal::KILL);
            }
            return Ok(());
        }
        let serving = self.connections.values().flat_map(serve_the_host).flatten();
        let spared: Vec<Pid> = serving.chain(self.tidying.iter().filter_map(Worker::running)).collect();
        if spared.is_empty() || !kill_all_but(&spared) {
            everything(Signal::KILL)?;
        }
        for process in self.processes.values_mut().filter(|process| process.is_running()) {
            process.killed = true;
        }
        Ok(())
    }
}

/// Kills everything but these, and says whether it could.
///
/// A process with a SIGKILL waiting starts no other: fork(2) looks for it under the lock under which signals are sent. So
/// all is over when everybody listed had it before the list was begun. Those who multiply are stopped first, or that
/// would never be; some of them may go on (a fork under way, orphaned groups) and are found the next time.
fn kill_all_but(spared: &[Pid]) -> bool {
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS {
        if everything(Signal::STOP).is_err() {
            return false;
        }
        let Ok(found) = processes() else { return false };
        let mut found_more = false;
        for pid in found.into_iter().filter(|pid| !pid.is_init() && !spared.contains(pid)) {
            // Also who was killed: his number may be somebody else's by now.
            let _ = kill_process(pid, Signal::KILL);
            found_more |= killed.insert(pid);
        }
        if !found_more {
            for pid in spared {
                let _ = kill_process(*pid, Signal::CONT);
            }
            return true;
        }
    }
    false
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
        Mode::Working(worker) => [worker.running(), peer(connection.socket.as_fd())],
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
