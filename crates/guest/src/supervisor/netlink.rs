//! Whether a process may open another netlink socket (netlink(7)): the kernel asks, by seccomp_unotify(2).
//!
//! What the kernel answers waits in such a socket until it is read, up to `net.core.rmem_default` (some 200 KiB), and is
//! charged to nobody. Programs need one for a moment, to learn of addresses; so there is a most, beyond which
//! opening one fails as it does where memory is short.

use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// Most sockets in the sandbox that may be netlink's.
const MOST: u64 = 1024;

/// What the kernel counts in our network namespace (proc_pid_net(5)), in IPv4 and IPv6.
const COUNTS: [&str; 2] = ["/proc/self/net/sockstat", "/proc/self/net/sockstat6"];

/// The sockets that are known to be others, by the kernel's names.
const OTHERS: [&str; 4] = ["TCP:", "UDP:", "TCP6:", "UDP6:"];

/// Time for the kernel to forget those that were closed, which it does in batches.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Answers for the sandbox.
#[derive(Debug)]
pub(crate) struct Netlink {
    calls: OwnedFd,
    /// The question that waits for [`PAUSE`].
    waiting: Option<u64>,
    /// Opened when somebody asks first; the second is not there without IPv6.
    counts: Option<(File, Option<File>)>,
}

impl Netlink {
    pub(crate) fn new(calls: OwnedFd) -> Self {
        Self { calls, waiting: None, counts: None }
    }

    /// Takes one question, for there is one: else this waits for it. → whether it is answered. If not, nothing more is
    /// to be taken before [`Self::answer_late`].
    ///
    /// Only numbers were handed to the call, so nobody can change them once we have looked.
    pub(crate) fn answer(&mut self) -> bool {
        // SAFETY: numbers only, for which zero is a value, as which the kernel wants them all.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes what it was made for, and the structure lives across the call.
        let received = unsafe {
            libc::ioctl(self.calls.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut asked)
        };
        if received != 0 {
            // Who asked was killed meanwhile.
            return true;
        }
        if !self.is_room() {
            self.waiting = Some(asked.id);
            return false;
        }
        self.send(asked.id, true);
        true
    }

    /// Answers what had to wait, one way or the other.
    pub(crate) fn answer_late(&mut self) {
        if let Some(id) = self.waiting.take() {
            let room = self.is_room();
            self.send(id, room);
        }
    }

    fn send(&self, id: u64, go_on: bool) {
        let go_on_flag = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let (error, flags) = if go_on { (0, go_on_flag) } else { (-libc::ENOBUFS, 0) };
        let mut answer = libc::seccomp_notif_resp { id, val: 0, error, flags };
        // SAFETY: a structure of the kernel's layout that lives across the call. Where who asked is gone nobody needs
        // an answer.
        unsafe { libc::ioctl(self.calls.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut answer) };
    }

    /// Whether another one may be. Where that cannot be known it may not.
    fn is_room(&mut self) -> bool {
        self.count().is_ok_and(|count| count < MOST)
    }

    /// How many sockets there are at most that may be netlink's. A list would leave out those that have no address yet.
    fn count(&mut self) -> Result<u64, Errno> {
        let (first, second) = match &self.counts {
            Some(counts) => counts,
            None => {
                let [first, second] = COUNTS.map(File::open);
                let first = first.map_err(|_| Errno::NFILE)?;
                self.counts.insert((first, second.ok()))
            }
        };
        let mut text = String::new();
        for file in [Some(first), second.as_ref()].into_iter().flatten() {
            let mut buffer = [0; 1024];
            let length = file.read_at(&mut buffer, 0).map_err(|_| Errno::IO)?;
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        unknown(&text).ok_or(Errno::IO)
    }
}

impl AsFd for Netlink {
    /// Readable when there is a question.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.calls.as_fd()
    }
}

/// All sockets but those that the kernel knows by an address as TCP's or UDP's. Ours that are none count, too, and
/// what such programs have that only unix sockets connect: few.
fn unknown(text: &str) -> Option<u64> {
    let count = |line: &str, key: &str| -> Option<u64> {
        let mut words = line.split_ascii_whitespace().skip_while(|word| *word != key);
        words.nth(1)?.parse().ok()
    };
    let used = text.lines().find_map(|line| line.starts_with("sockets:").then(|| count(line, "used"))?)?;
    let others = text.lines().filter(|line| OTHERS.iter().any(|name| line.starts_with(name)));
    Some(used.saturating_sub(others.filter_map(|line| count(line, "inuse")).sum()))
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn sockets_of_the_internet_are_not_counted() {
        let text = "sockets: used 40\nTCP: inuse 7 orphan 0 tw 3 alloc 900 mem 1\nUDP: inuse 2 mem 0\n\
                    UDPLITE: inuse 5\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n\
                    TCP6: inuse 4\nUDP6: inuse 1\nUDPLITE6: inuse 0\n";
        assert_eq!(unknown(text), Some(26));
        assert_eq!(unknown("sockets: used 3\nTCP: inuse 9\n"), Some(0));
        assert_eq!(unknown(""), None);
        assert_eq!(unknown("sockets: used\n"), None);
    }
}
