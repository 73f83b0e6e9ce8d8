//! Output that no longer fits in memory and that nobody has had: a bounded file without a name.

use rustix::fs::{Mode, OFlags, ftruncate, openat};
use rustix::io::{Errno, pread, pwrite};
use std::os::fd::OwnedFd;

/// Less than this is not worth a file.
const LEAST: u64 = 64 << 10;

/// Where spill files go and how much they may take.
#[derive(Debug)]
pub(crate) struct SpillSpace {
    directory: Option<OwnedFd>,
    /// Most bytes of one file; 0 is no spilling.
    pub(crate) per_stream: u64,
    /// Most bytes of all files.
    pub(crate) total: u64,
    taken: u64,
}

impl SpillSpace {
    pub(crate) fn new(directory: Option<OwnedFd>) -> Self {
        Self { directory, per_stream: 0, total: 0, taken: 0 }
    }

    /// Whether a new file would find less room than it may take.
    pub(crate) fn is_short(&self) -> bool {
        self.directory.is_some() && self.total.saturating_sub(self.taken) < self.per_stream
    }

    /// A new file whose first byte is that of `offset`; `None` where there is no room.
    fn open(&mut self, offset: u64) -> Option<Spill> {
        let limit = self.per_stream.min(self.total.saturating_sub(self.taken));
        let directory = self.directory.as_ref().filter(|_| limit >= LEAST)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(directory, c".", flags, Mode::RUSR | Mode::WUSR).ok()?;
        self.taken += limit;
        Some(Spill { file, limit, claim: limit, start: offset, end: offset })
    }
}

/// Bytes `start..end` of a stream, in a file that is written round and round.
#[derive(Debug)]
struct Spill {
    file: OwnedFd,
    limit: u64,
    /// What of the space is taken for it.
    claim: u64,
    start: u64,
    end: u64,
}

impl Spill {
    /// Adds bytes, dropping the oldest.
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let position = self.end % self.limit;
            let most = usize::try_from(self.limit - position).unwrap_or(usize::MAX).min(bytes.len());
            let written = pwrite(&self.file, &bytes[..most], position)?;
            if written == 0 {
                return Err(Errno::NOSPC);
            }
            self.end += written as u64;
            self.start = self.start.max(self.end.saturating_sub(self.limit));
            bytes = &bytes[written..];
        }
        Ok(())
    }

    fn read(&self, offset: u64, most: usize) -> Result<Vec<u8>, Errno> {
        let position = offset % self.limit;
        let whole = (self.end.saturating_sub(offset)).min(self.limit - position).min(most as u64);
        let mut bytes = vec![0; usize::try_from(whole).unwrap_or(0)];
        let read = pread(&self.file, &mut bytes[..], position)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// A place for at most one spill file.
#[derive(Debug, Default)]
pub(crate) struct SpillSlot {
    spill: Option<Spill>,
}

impl SpillSlot {
    /// First offset held.
    pub(crate) fn start(&self) -> Option<u64> {
        self.spill.as_ref().map(|spill| spill.start)
    }

    /// Adds bytes that begin at `offset`, in a new file if need be. Where that is impossible they are lost,
    /// and all before them.
    pub(crate) fn append(&mut self, offset: u64, pieces: (&[u8], &[u8]), space: &mut SpillSpace) {
        if self.spill.is_none() {
            self.spill = space.open(offset);
        }
        let Some(spill) = &mut self.spill else { return };
        // One that was settled gave back what it had not taken.
        let held = spill.end - spill.start + (pieces.0.len() + pieces.1.len()) as u64;
        let more = held.min(spill.limit).saturating_sub(spill.claim);
        if more > space.total.saturating_sub(space.taken) {
            return self.clear(space);
        }
        spill.claim += more;
        space.taken += more;
        if spill.append(pieces.0).and_then(|()| spill.append(pieces.1)).is_err() {
            self.clear(space);
        }
    }

    /// Bytes from `offset` on, at most `most`; fewer at the seam of the file.
    pub(crate) fn read(&self, offset: u64, most: usize) -> Result<Vec<u8>, Errno> {
        self.spill.as_ref().map_or(Ok(Vec::new()), |spill| spill.read(offset, most))
    }

    /// No more will be added: what the file never took is free for others.
    pub(crate) fn settle(&mut self, space: &mut SpillSpace) {
        if let Some(spill) = &mut self.spill {
            let held = spill.end - spill.start;
            space.taken = space.taken.saturating_sub(spill.claim.saturating_sub(held));
            spill.claim = spill.claim.min(held);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, space: &mut SpillSpace) {
        if let Some(spill) = self.spill.take() {
            let _ = ftruncate(&spill.file, 0);
            space.taken = space.taken.saturating_sub(spill.claim);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_to_a_file_that_gave_its_room_back_counts_again() {
        let place = tempfile::tempdir().unwrap();
        let mut space = SpillSpace::new(Some(std::fs::File::open(place.path()).unwrap().into()));
        (space.per_stream, space.total) = (1 << 20, 2 << 20);
        let piece = vec![7; 300 << 10];
        let mut slots: Vec<SpillSlot> = (0..8).map(|_| SpillSlot::default()).collect();
        for slot in &mut slots {
            slot.append(0, (&piece[..1000], &[]), &mut space);
            slot.settle(&mut space);
        }
        assert_eq!(space.taken, 8000);
        let held = |slots: &[SpillSlot]| {
            let spills = slots.iter().filter_map(|slot| slot.spill.as_ref());
            spills.map(|spill| spill.end - spill.start).sum::<u64>()
        };
        for slot in &mut slots {
            slot.append(1000, (&piece, &[]), &mut space);
        }
        assert!(held(&slots) <= space.total && space.taken <= space.total, "{space:?}");
        assert!(held(&slots) > 1 << 20, "what there is room for is kept");
        slots.iter_mut().for_each(|slot| slot.clear(&mut space));
        assert_eq!(space.taken, 0);
    }
}
