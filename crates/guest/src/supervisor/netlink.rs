//! Whether a process may open another netlink socket (netlink(7)).
//!
//! What the kernel answers waits in such a socket until it is read, up to `net.core.rmem_default` (some 200 KiB), and is
//! charged to nobody. Programs need one for a moment, to learn of addresses.

use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Most sockets in the sandbox that may be netlink's.
const MOST: u64 = 1024;

/// What the kernel counts in our network namespace (proc_pid_net(5)), in IPv4 and IPv6.
const COUNTS: [&str; 2] = ["/proc/self/net/sockstat", "/proc/self/net/sockstat6"];

/// The sockets that are known to be others, by the kernel's names.
const OTHERS: [&str; 4] = ["TCP:", "UDP:", "TCP6:", "UDP6:"];

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Opened when somebody asks first; the second is not there without IPv6.
    counts: Option<(File, Option<File>)>,
}

impl Sockets {
    /// Whether another one may be. Where that cannot be known it may not.
    pub(crate) fn is_room(&mut self) -> bool {
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
