//! Long work for the host is done in a copy of the supervisor, so that the supervisor itself never waits.

use super::failure::{Outcome, failure, refused};
use hostel_guest_protocol::{Answer, FailureKind, Reply};
use prost::Message;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::os::fd::{AsFd as _, AsRawFd, FromRawFd, OwnedFd};

/// Most bytes of a worker's answer.
const MOST_ANSWER: usize = 64 << 10;

/// A worker, from outside.
#[derive(Debug)]
pub(crate) struct Worker {
    pid: Pid,
    process: OwnedFd,
    /// Where its answer comes from.
    pub(crate) status: OwnedFd,
    answer: Vec<u8>,
    /// It ends by itself when the host leaves, and removes first what it has half done.
    tidy: bool,
}

impl Drop for Worker {
    /// Whoever drops a worker no longer wants its work. It is reaped like every other child.
    fn drop(&mut self) {
        if !self.tidy {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
        }
    }
}

/// Starts `work` in a copy of this process that has no other descriptors than standard ones and `kept`.
///
/// # Errors
/// `Limit` where there can be no more processes or descriptors.
pub(crate) fn start(
    kept: Vec<OwnedFd>,
    work: impl FnOnce(Vec<OwnedFd>) -> Outcome<Answer>,
) -> Outcome<Worker> {
    let (status, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| refused(errno, "make a pipe"))?;
    rustix::io::ioctl_fionbio(&status, true).map_err(|errno| refused(errno, "make a pipe"))?;
    // SAFETY: this process has one thread, so its copy may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(failure(FailureKind::Limit, "no more processes", "processes")),
        0 => be_worker(&theirs, &kept, work),
        pid => {
            let pid = Pid::from_raw(pid).ok_or_else(|| failure(FailureKind::Internal, "fork", ""))?;
            let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| refused(errno, "fork"))?;
            Ok(Worker { pid, process, status, answer: Vec::new(), tidy: false })
        }
    }
}

fn be_worker(status: &OwnedFd, kept: &[OwnedFd], work: impl FnOnce(Vec<OwnedFd>) -> Outcome<Answer>) -> ! {
    // SAFETY: system calls on this process alone, which nobody else's code runs in any more. Descriptors
    // are moved to 3 and following by way of numbers above all of them, and all others closed.
    let (status, kept) = unsafe {
        let end = 4 + libc::c_int::try_from(kept.len()).unwrap_or(0);
        let above = |fd: &OwnedFd| libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, end);
        let (status, kept) = (above(status), kept.iter().map(above).collect::<Vec<_>>());
        libc::dup2(status, 3);
        let kept: Vec<_> = (4..).zip(kept).map(|(to, from)| libc::dup2(from, to)).collect();
        libc::syscall(libc::SYS_close_range, end, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"hostel-worker".as_ptr());
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        (OwnedFd::from_raw_fd(3), kept.into_iter().map(|fd| OwnedFd::from_raw_fd(fd)).collect())
    };
    let answer = work(kept).unwrap_or_else(Answer::Failed);
    let bytes = Reply { answer: Some(answer) }.encode_to_vec();
    let mut left = &bytes[..];
    while let Ok(written) = rustix::io::write(&status, left) {
        left = &left[written..];
        if left.is_empty() {
            break;
        }
    }
    // SAFETY: ends this copy, running nothing of the original's.
    unsafe { libc::_exit(0) }
}

impl Worker {
    /// Says that its work ends with what the host sends.
    pub(crate) fn tidy(mut self) -> Self {
        self.tidy = true;
        self
    }

    /// Whether it goes on when it is dropped, for a moment.
    pub(crate) fn is_tidy(&self) -> bool {
        self.tidy
    }

    /// Its number, unless it has ended: then that may be another's.
    pub(crate) fn running(&self) -> Option<Pid> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::PidFd(self.process.as_fd()), options);
        matches!(ended, Ok(None)).then_some(self.pid)
    }

    /// Reads what there is of the answer. `Some` once it is over.
    pub(crate) fn read(&mut self) -> Option<Answer> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.status, &mut buffer) {
                Ok(0) => return Some(self.over()),
                Ok(count) if self.answer.len() + count <= MOST_ANSWER => {
                    self.answer.extend_from_slice(&buffer[..count]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Ok(_) | Err(_) => return Some(self.over()),
            }
        }
    }

    fn over(&self) -> Answer {
        let reply = Reply::decode(&self.answer[..]).ok().and_then(|reply| reply.answer);
        reply.unwrap_or_else(|| {
            Answer::Failed(failure(FailureKind::Internal, "the work was interrupted", "worker"))
        })
    }
}
