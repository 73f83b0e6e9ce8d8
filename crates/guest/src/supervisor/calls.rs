//! System calls that the kernel asks about before it does them (seccomp_unotify(2)): those that take memory which no
//! limit counts. What a program needs it gets; beyond that the call fails as it does where memory is short.

use super::filters::Filters;
use super::netlink::Sockets;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Time for the kernel to forget sockets that were closed, which it does in batches, and for us to see who ended.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Answers for the sandbox.
#[derive(Debug)]
pub(crate) struct Calls {
    listener: OwnedFd,
    /// The question that waits for [`PAUSE`].
    waiting: Option<Question>,
    sockets: Sockets,
    filters: Filters,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    id: u64,
    /// The thread that asks.
    thread: u32,
    /// What it asks for.
    wanted: Wanted,
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    NetlinkSocket,
    Filter,
}

impl Wanted {
    /// The filter of system calls has the kernel ask about these only.
    fn of(call: i64) -> Self {
        if call == libc::SYS_seccomp || call == libc::SYS_prctl { Self::Filter } else { Self::NetlinkSocket }
    }

    /// As the kernel says it where there is no memory: netlink(7), seccomp(2).
    fn refusal(self) -> i32 {
        match self {
            Self::NetlinkSocket => libc::ENOBUFS,
            Self::Filter => libc::ENOMEM,
        }
    }
}

impl Calls {
    pub(crate) fn new(listener: OwnedFd) -> Self {
        Self { listener, waiting: None, sockets: Sockets::default(), filters: Filters::default() }
    }

    /// Takes one question, for there is one: else this waits for it. → whether it is answered. If not, nothing more is
    /// to be taken before [`Self::answer_late`].
    ///
    /// What decides is in numbers that were handed to the call, so nobody can change it once we have looked.
    pub(crate) fn answer(&mut self) -> bool {
        // SAFETY: numbers only, for which zero is a value, as which the kernel wants them all.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes what it was made for, and the structure lives across the call.
        let received = unsafe {
            libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut asked)
        };
        if received != 0 {
            // Who asked was killed meanwhile.
            return true;
        }
        let wanted = Wanted::of(asked.data.nr.into());
        let question = Question { id: asked.id, thread: asked.pid, wanted };
        if !self.is_room(question) {
            self.waiting = Some(question);
            return false;
        }
        self.send(question, true);
        true
    }

    /// Answers what had to wait, one way or the other.
    pub(crate) fn answer_late(&mut self) {
        if let Some(question) = self.waiting.take() {
            let room = self.is_room(question);
            self.send(question, room);
        }
    }

    fn is_room(&mut self, question: Question) -> bool {
        match question.wanted {
            Wanted::NetlinkSocket => self.sockets.is_room(),
            Wanted::Filter => self.filters.take(question.thread),
        }
    }

    fn send(&self, question: Question, go_on: bool) {
        let go_on_flag = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let (error, flags) = if go_on { (0, go_on_flag) } else { (-question.wanted.refusal(), 0) };
        let mut answer = libc::seccomp_notif_resp { id: question.id, val: 0, error, flags };
        // SAFETY: a structure of the kernel's layout that lives across the call. Where who asked is gone nobody needs
        // an answer.
        unsafe {
            libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut answer)
        };
    }
}

impl AsFd for Calls {
    /// Readable when there is a question.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
