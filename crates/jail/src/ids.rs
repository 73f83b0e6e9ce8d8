//! Ranges of user ids. Each jail has 65,536 ids of the host that no other jail of any daemon on this host has.
//!
//! They are taken from 0x70000000–0x7fffffff, which systemd's documentation of uid ranges leaves unused. A file
//! per range in one directory for the whole host says whose it is; it goes with the reboot, as jails do. All files of
//! one daemon are links to one that holds its name, so that none is ever there without.

use hostel_sandbox::{Error, Result};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST_ID: u32 = 0x7000_0000;
const IDS_PER_RANGE: u32 = 65_536;
const RANGES: u32 = 4096;

/// Hands ranges out.
#[derive(Debug)]
pub(crate) struct Ranges {
    directory: PathBuf,
    instance: String,
    next: AtomicU32,
}

/// A range that is ours until it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Range(u32);

impl Range {
    /// The host's id for root inside.
    pub(crate) fn first_id(self) -> u32 {
        FIRST_ID + self.0 * IDS_PER_RANGE
    }

    /// Its number, 0 to 4095.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The range of that number.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        (number < RANGES).then_some(Self(number))
    }
}

impl Ranges {
    /// Opens the host's book of ranges.
    ///
    /// # Errors
    /// `Internal` where its directory cannot be made.
    pub(crate) fn open(directory: PathBuf, instance: String) -> Result<Self> {
        fs::create_dir_all(&directory)
            .map_err(|error| Error::internal(format!("make {}", directory.display()), error))?;
        // Daemons side by side start looking at different places.
        let start =
            instance.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let ranges = Self { directory, instance, next: AtomicU32::new(start) };
        ranges.sign().map_err(|error| Error::internal("sign the book of user ids", error))?;
        Ok(ranges)
    }

    /// The file with our name in it, to which those of our ranges are links.
    fn signature(&self) -> PathBuf {
        self.directory.join(format!("of-{}", self.instance))
    }

    /// Makes it, and the directory where that has gone.
    fn sign(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let unfinished = self.directory.join(format!("new-{}", self.instance));
        fs::write(&unfinished, &self.instance)?;
        match fs::rename(&unfinished, self.signature()) {
            // Another one of our threads was first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
    }

    fn file(&self, range: Range) -> PathBuf {
        self.directory.join(range.0.to_string())
    }

    /// Takes a free range.
    ///
    /// # Errors
    /// `LimitReached` when all 4096 are taken.
    pub(crate) fn take(&self) -> Result<Range> {
        for _ in 0..RANGES {
            let range = Range(self.next.fetch_add(1, Ordering::Relaxed) % RANGES);
            match fs::hard_link(self.signature(), self.file(range)) {
                Ok(()) => return Ok(range),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // Somebody took the book away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.sign().map_err(|error| Error::internal("make the book of user ids", error))?;
                }
                Err(error) => return Err(Error::internal("take a range of user ids", error)),
            }
        }
        Err(Error::LimitReached {
            what: "sandboxes",
            detail: format!("all {RANGES} ranges of user ids are taken"),
        })
    }

    /// Gives a range back.
    pub(crate) fn give_back(&self, range: Range) {
        let _ = fs::remove_file(self.file(range));
    }

    /// The ranges that this instance has, also from before a restart.
    pub(crate) fn ours(&self) -> Vec<Range> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        entries
            .flatten()
            .filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|owner| owner == self.instance))
            .filter_map(|entry| Range::from_number(entry.file_name().to_str()?.parse().ok()?))
            .collect()
    }

    /// Leaves the book; the last daemon of the host takes it along.
    pub(crate) fn close(&self) {
        let _ = fs::remove_file(self.signature());
        let _ = fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_daemons_never_share_a_range() {
        let directory = tempfile::tempdir().unwrap();
        let open = |name: &str| Ranges::open(directory.path().to_owned(), name.to_owned()).unwrap();
        let (one, other) = (open("one"), open("eno"));
        let mut taken: Vec<u32> =
            (0..50).flat_map(|_| [one.take().unwrap().number(), other.take().unwrap().number()]).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 100);
        assert_eq!((one.ours().len(), other.ours().len()), (50, 50));
        for ranges in [&one, &other] {
            ranges.ours().into_iter().for_each(|range| ranges.give_back(range));
        }
        assert!(one.ours().is_empty());
        assert!(Range(RANGES - 1).first_id() <= 0x7fff_0000);
        one.close();
        other.close();
        assert!(!directory.path().exists());
        // A range is never there without its owner, whenever the daemon is killed: its name was there before.
        let range = one.take().unwrap();
        assert_eq!(fs::read_to_string(one.file(range)).unwrap(), "one");
        assert_eq!(one.ours(), [range]);
    }
}
