//! One output stream of a process: what of it is held, where, and for whom.
//!
//! The newest bytes are in a [`Ring`]. Bytes that leave it go to a spill file if nobody ever had them. A reader
//! holds what it has not acknowledged: then nothing is dropped and the process has to wait.

use super::ring::Ring;
use super::spill::{SpillSlot, SpillSpace};

/// Least number of bytes worth a write to the spill file, or worth waking a process for.
const QUANTUM: usize = 64 << 10;

/// A connection that reads, by its serial number.
#[derive(Debug)]
struct Reader {
    connection: u64,
    acknowledged: u64,
}

/// Where bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not held any more; the first held offset.
    Gone(u64),
    /// In the file.
    Spilled,
    /// In memory, so many of them.
    Memory(usize),
    /// Nowhere yet.
    None,
}

/// An output stream.
#[derive(Debug)]
pub(crate) struct Stream {
    ring: Ring,
    spill: SpillSlot,
    /// First offset that nobody has had.
    acknowledged: u64,
    readers: Vec<Reader>,
    /// A reader was lost without a word: it may come back for everything from here.
    lost: Option<u64>,
}

impl Stream {
    pub(crate) fn new(ring_bytes: usize) -> Self {
        let ring = Ring::new(ring_bytes);
        Self { ring, spill: SpillSlot::default(), acknowledged: 0, readers: Vec::new(), lost: None }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(crate) fn ring_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// First offset held.
    pub(crate) fn start(&self) -> u64 {
        self.spill.start().unwrap_or_else(|| self.ring.start())
    }

    /// Offset of the next byte that the process will write.
    pub(crate) fn end(&self) -> u64 {
        self.ring.end()
    }

    /// From where on somebody needs everything.
    fn hold(&self) -> Option<u64> {
        self.readers.iter().map(|reader| reader.acknowledged).chain(self.lost).min()
    }

    fn droppable(&self) -> usize {
        let hold = self.hold().unwrap_or(u64::MAX);
        usize::try_from(hold.saturating_sub(self.ring.start())).unwrap_or(usize::MAX).min(self.ring.len())
    }

    /// Makes room for `wanted` more bytes and says for how many there is; 0 means that the process has to
    /// wait for its readers.
    pub(crate) fn prepare(&mut self, wanted: usize, space: &mut SpillSpace) -> usize {
        self.ring.grow(wanted);
        let missing = wanted.min(self.ring.limit()).saturating_sub(self.ring.free());
        if missing > 0 {
            let unread = self.acknowledged <= self.ring.start();
            let count = if unread { missing.max(QUANTUM.min(self.ring.limit() / 4)) } else { missing };
            self.drop_oldest(count.min(self.droppable()), space);
        }
        wanted.min(self.ring.free())
    }

    /// Whether there is, or could be made, enough room to let a waiting process go on.
    pub(crate) fn has_room(&self) -> bool {
        let could_be_free = self.ring.limit() - self.ring.len() + self.droppable();
        could_be_free >= QUANTUM.min(self.ring.limit() / 4)
    }

    fn drop_oldest(&mut self, count: usize, space: &mut SpillSpace) {
        if count == 0 {
            // Also where a reader began in the file again, before what another one had.
            return;
        }
        let (from, to) = (self.ring.start(), self.ring.start() + count as u64);
        let unread_from = self.acknowledged.max(from);
        if unread_from > from {
            // Somebody had the beginning of this, and so all that is older.
            self.spill.clear(space);
        }
        if unread_from < to {
            let unread = usize::try_from(to - unread_from).unwrap_or(count);
            self.spill.append(unread_from, self.ring.range(unread_from, unread), space);
        }
        self.ring.drop_oldest(count);
    }

    /// The process writes no more.
    pub(crate) fn settle(&mut self, space: &mut SpillSpace) {
        self.ring.shrink();
        self.spill.settle(space);
    }

    /// Whether somebody needs what is held.
    pub(crate) fn is_held(&self) -> bool {
        self.hold().is_some_and(|hold| hold < self.end())
    }

    /// Gives up the memory; what nobody had goes to the spill file while there is room.
    pub(crate) fn release_memory(&mut self, space: &mut SpillSpace) {
        self.drop_oldest(self.ring.len(), space);
        self.settle(space);
    }

    /// Gives up the spill file.
    pub(crate) fn release_spill(&mut self, space: &mut SpillSpace) {
        self.spill.clear(space);
    }

    /// Whether memory is full of bytes that nobody has had, and there is no file for them yet.
    pub(crate) fn is_about_to_spill(&self) -> bool {
        !self.has_spill() && self.ring.len() == self.ring.limit() && self.acknowledged <= self.ring.start()
    }

    /// Whether some of it is in a file.
    pub(crate) fn has_spill(&self) -> bool {
        self.spill.start().is_some()
    }

    /// A reader that wants everything from `from` on, or from now on. → where it begins.
    pub(crate) fn attach(&mut self, connection: u64, from: Option<u64>) -> u64 {
        let from = from.map_or(self.end(), |from| from.min(self.end()));
        if self.lost.is_some_and(|lost| from >= lost) {
            self.lost = None;
        }
        self.readers.push(Reader { connection, acknowledged: from });
        from
    }

    /// The reader has everything before `offset`.
    pub(crate) fn acknowledge(&mut self, connection: u64, offset: u64, sent: u64) {
        let offset = offset.min(sent);
        if let Some(reader) = self.readers.iter_mut().find(|reader| reader.connection == connection) {
            reader.acknowledged = reader.acknowledged.max(offset);
            self.acknowledged = self.acknowledged.max(offset);
        }
    }

    /// The reader is gone. If it may come back, nothing is dropped until [`Self::forget_lost`].
    pub(crate) fn detach(&mut self, connection: u64, may_return: bool) {
        if let Some(index) = self.readers.iter().position(|reader| reader.connection == connection) {
            let reader = self.readers.swap_remove(index);
            if may_return {
                self.lost = Some(self.lost.unwrap_or(u64::MAX).min(reader.acknowledged));
            }
        }
    }

    /// Nobody came back.
    pub(crate) fn forget_lost(&mut self) {
        self.lost = None;
    }

    /// Where the bytes from `offset` on are.
    pub(crate) fn locate(&self, offset: u64) -> Place {
        if offset >= self.end() {
            Place::None
        } else if offset >= self.ring.start() {
            Place::Memory(usize::try_from(self.end() - offset).unwrap_or(usize::MAX))
        } else if self.spill.start().is_some_and(|start| offset >= start) {
            Place::Spilled
        } else {
            Place::Gone(self.start())
        }
    }

    /// Reads spilled bytes, at most `most`. Where the file cannot be read they count as gone.
    pub(crate) fn read_spilled(&mut self, offset: u64, most: usize, space: &mut SpillSpace) -> Vec<u8> {
        let left = usize::try_from(self.ring.start().saturating_sub(offset)).unwrap_or(usize::MAX);
        match self.spill.read(offset, most.min(left)) {
            Ok(bytes) if !bytes.is_empty() => bytes,
            _ => {
                self.spill.clear(space);
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(Vec<u8>),
        Attach { from: Option<u64> },
        Read { most: usize },
        Acknowledge,
        Detach { may_return: bool },
        Forget,
        ReleaseMemory,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => proptest::collection::vec(any::<u8>(), 0..9000).prop_map(Step::Write),
            1 => proptest::option::of(0u64..40_000).prop_map(|from| Step::Attach { from }),
            3 => (1usize..9000).prop_map(|most| Step::Read { most }),
            2 => Just(Step::Acknowledge),
            1 => any::<bool>().prop_map(|may_return| Step::Detach { may_return }),
            1 => Just(Step::Forget),
            1 => Just(Step::ReleaseMemory),
        ];
        proptest::collection::vec(step, 1..60)
    }

    fn spill_space(per_stream: u64) -> SpillSpace {
        let directory = std::fs::File::open(std::env::temp_dir()).unwrap();
        let mut space = SpillSpace::new(Some(directory.into()));
        (space.per_stream, space.total) = (per_stream, per_stream * 2);
        space
    }

    fn write(stream: &mut Stream, bytes: &[u8], space: &mut SpillSpace) -> usize {
        let room = stream.prepare(bytes.len(), space);
        let mut written = 0;
        for piece in stream.ring_mut().space(room) {
            let mut piece = piece;
            let length = piece.len();
            piece.copy_from_slice(&bytes[written..written + length]);
            written += length;
        }
        stream.ring_mut().filled(written);
        assert_eq!(written, room);
        written
    }

    fn read(stream: &mut Stream, offset: u64, most: usize, space: &mut SpillSpace) -> Vec<u8> {
        match stream.locate(offset) {
            Place::Gone(_) | Place::None => Vec::new(),
            Place::Spilled => stream.read_spilled(offset, most, space),
            Place::Memory(length) => {
                let (first, second) = stream.ring().range(offset, most.min(length));
                [first, second].concat()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        /// Whatever happens, what is held is what was written, and what a reader needs is held.
        #[test]
        fn a_stream_holds_what_it_says(steps in steps(), ring in 4096usize..20_000) {
            let mut space = spill_space(64 << 10);
            let (mut stream, mut all) = (Stream::new(ring), Vec::new());
            let mut reader: Option<u64> = None;
            let mut claimed: Option<u64> = None;
            for step in steps {
                match step {
                    Step::Write(bytes) => {
                        let written = write(&mut stream, &bytes, &mut space);
                        all.extend_from_slice(&bytes[..written]);
                        if claimed.is_none() { prop_assert_eq!(written, bytes.len().min(ring)); }
                    }
                    Step::Attach { from } if reader.is_none() => {
                        let next = stream.attach(1, from).max(stream.start());
                        stream.acknowledge(1, next, next);
                        reader = Some(next);
                        claimed = stream.hold();
                    }
                    Step::Read { most } => if let Some(next) = &mut reader {
                        let bytes = read(&mut stream, *next, most, &mut space);
                        let from = usize::try_from(*next).unwrap();
                        prop_assert_eq!(&all[from..from + bytes.len()], &bytes[..]);
                        prop_assert!(!bytes.is_empty() || *next == all.len() as u64);
                        *next += bytes.len() as u64;
                    },
                    Step::Acknowledge => if let Some(next) = reader {
                        stream.acknowledge(1, next, next);
                        claimed = stream.hold();
                    },
                    Step::Detach { may_return } if reader.take().is_some() => {
                        stream.detach(1, may_return);
                        claimed = stream.hold();
                    }
                    Step::Forget => { stream.forget_lost(); claimed = stream.hold(); }
                    Step::ReleaseMemory if !stream.is_held() => stream.release_memory(&mut space),
                    _ => {}
                }
                prop_assert_eq!(stream.end(), all.len() as u64);
                prop_assert!(stream.ring().capacity() <= ring);
                if let Some(claimed) = claimed {
                    prop_assert!(stream.start() <= claimed.min(stream.end()));
                }
                let mut offset = stream.start();
                while offset < stream.end() {
                    let bytes = read(&mut stream, offset, 7000, &mut space);
                    let from = usize::try_from(offset).unwrap();
                    prop_assert!(!bytes.is_empty());
                    prop_assert_eq!(&all[from..from + bytes.len()], &bytes[..]);
                    offset += bytes.len() as u64;
                }
            }
        }
    }

    #[test]
    fn without_readers_the_oldest_go_to_the_file_and_then_for_good() {
        let mut space = spill_space(64 << 10);
        let mut stream = Stream::new(4096);
        for _ in 0..50 {
            assert_eq!(write(&mut stream, &[7; 4096], &mut space), 4096);
        }
        assert_eq!(stream.end(), 50 * 4096);
        assert_eq!(stream.start(), 50 * 4096 - 4096 - (64 << 10));
        stream.release_spill(&mut space);
        assert_eq!(stream.start(), 49 * 4096);
    }

    #[test]
    fn a_reader_may_begin_again_before_what_another_had() {
        let mut space = spill_space(64 << 10);
        let mut stream = Stream::new(4096);
        for _ in 0..5 {
            write(&mut stream, &[7; 4096], &mut space);
        }
        let end = stream.attach(1, None);
        stream.acknowledge(1, end, end);
        stream.detach(1, false);
        stream.attach(2, Some(5000));
        assert_eq!(write(&mut stream, &[8; 100], &mut space), 0);
        assert_eq!(read(&mut stream, 5000, 10, &mut space), [7; 10]);
    }

    #[test]
    fn a_reader_that_does_not_acknowledge_stops_the_process() {
        let mut space = spill_space(0);
        let mut stream = Stream::new(8192);
        stream.attach(1, Some(0));
        assert_eq!(write(&mut stream, &[1; 10_000], &mut space), 8192);
        assert_eq!(stream.prepare(1, &mut space), 0);
        assert!(!stream.has_room());
        stream.acknowledge(1, 8192, 8192);
        assert!(stream.has_room());
        assert_eq!(stream.prepare(100, &mut space), 100);
    }
}
