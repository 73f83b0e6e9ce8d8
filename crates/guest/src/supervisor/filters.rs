//! Whether a process may install another filter of system calls for itself (seccomp(2)).
//!
//! The kernel compiles a filter, into some 35 KiB at most, in memory of which all of the host have so much together
//! (`net.core.bpf_jit_limit`). It is there as long as one process has it, and a child has those of its parent. How many
//! there are nobody tells; but how many a process has (`Seccomp_filters` in proc_pid_status(5), Linux 5.9), and we know
//! how many each made. Both together are never less than there are.

use std::collections::BTreeMap;
use std::fs;

/// Most filters in the sandbox.
const MOST: u32 = 256;

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// Processes that made some, by their number.
    makers: BTreeMap<u32, Maker>,
    /// There are no more than so many: as we counted last, and those that were made since.
    count: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Maker {
    /// No less than it had from its parent.
    inherited: u32,
    made: u32,
}

impl Maker {
    /// It makes another one, beside so many that its first thread has.
    fn make(&mut self, has: u32) {
        // Its number may have been another's before.
        self.inherited = self.inherited.max(has.saturating_sub(self.made));
        self.made = self.made.saturating_add(1);
    }

    /// How many it has at most, all threads together, when the first of them has so many.
    fn most(self, has: u32) -> u32 {
        has.max(self.inherited.saturating_add(self.made))
    }
}

impl Filters {
    /// Whether a thread may make another one, which is counted then.
    pub(crate) fn take(&mut self, thread: u32) -> bool {
        // Older kernels do not tell. What everybody has is not the programs' own.
        let Some(all) = Status::read("self").and_then(|own| own.filters) else { return true };
        if self.count >= MOST {
            self.count = self.look(all);
        }
        if self.count >= MOST {
            return false;
        }
        // Without one: it is gone, and makes nothing.
        if let Some(process) = Status::read(&thread.to_string()) {
            let has = process.filters.unwrap_or_default().saturating_sub(all);
            self.makers.entry(process.number).or_default().make(has);
            self.count += 1;
        }
        true
    }

    /// Counts those of all processes, and forgets who is no more.
    fn look(&mut self, all: u32) -> u32 {
        let Ok(entries) = fs::read_dir("/proc") else { return u32::MAX };
        let mut makers = BTreeMap::new();
        let mut count = 0_u32;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            else {
                continue;
            };
            let Some(process) = Status::read(name) else { continue };
            let has = process.filters.unwrap_or_default().saturating_sub(all);
            let maker = self.makers.get(&process.number);
            count = count.saturating_add(maker.map_or(has, |maker| maker.most(has)));
            makers.extend(maker.map(|maker| (process.number, *maker)));
        }
        self.makers = makers;
        count
    }
}

/// What /proc says of a process, or of one of its threads.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    /// The process's.
    number: u32,
    filters: Option<u32>,
}

impl Status {
    fn read(name: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{name}/status")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name| {
            let line = text.lines().find_map(|line: &str| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Some(Self { number: field("Tgid:")?, filters: field("Seccomp_filters:") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_is_read() {
        let text = "Name:\tTgid: 9\nTgid:\t7\nPid:\t8\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        assert_eq!(Status::parse(text), Some(Status { number: 7, filters: Some(3) }));
        assert_eq!(Status::parse("Tgid:\t7\n"), Some(Status { number: 7, filters: None }));
        assert_eq!(Status::parse(""), None);
        assert!(Status::read("self").is_some_and(|own| own.number == std::process::id()));
    }

    proptest! {
        /// Processes one after the other have the same number, unknown to us; each has some of its parent and makes
        /// some, which its first thread has or not.
        #[test]
        fn nobody_has_more_than_is_counted(
            lives in prop::collection::vec((0u32..9, prop::collection::vec(any::<bool>(), 0..9)), 1..5),
        ) {
            let mut maker = Maker::default();
            for (inherited, makes) in lives {
                let (mut first, mut all) = (inherited, inherited);
                for is_first in makes {
                    maker.make(first);
                    all += 1;
                    first += u32::from(is_first);
                    prop_assert!(maker.most(first) >= all);
                }
                prop_assert!(maker.most(first) >= all);
            }
        }
    }
}
