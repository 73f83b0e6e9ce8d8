//! One output stream of a process: what of it is held, where, and for whom.
//!
//! The newest bytes are in a [`Ring`]. Bytes that leave it go to a spill file if nobody ever had them. A reader
//! holds what it has not acknowledged: then nothing is dropped and the process has to wait.

use super::ring::Ring;
use super::spill::{SpillSlot, SpillSpace};
use std::time::Instant;

/// Least number of bytes worth a write to the spill file, or worth waking a process for.
const QUANTUM: usize = 64 << 10;

/// A connection that reads, by its serial number.
#[derive(Debug)]
struct Reader {
    connection: u64,
    acknowledged: u64,
}

/// What a reader that was lost without a word may come back for.
#[derive(Debug)]
struct Claim {
    acknowledged: u64,
    /// As far as it can have read: it comes back for nothing beyond.
    sent: u64,
    until: Instant,
}

/// Most claims at a time; more are as good as fewer that reach as far back.
const MOST_CLAIMS: usize = 16;

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
    /// Of lost readers.
    lost: Vec<Claim>,
}

impl Stream {
    pub(crate) fn new(ring_bytes: usize) -> Self {
        let ring = Ring::new(ring_bytes);
        Self { ring, spill: SpillSlot::default(), acknowledged: 0, readers: Vec::new(), lost: Vec::new() }
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
        let readers = self.readers.iter().map(|reader| reader.acknowledged);
        readers.chain(self.lost.iter().map(|claim| claim.acknowledged)).min()
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

    /// A reader that wants everything from `from` on, or from now on. → where it begins. One that names where it was may
    /// be a lost one that is back; one that does not is another one.
    pub(crate) fn attach(&mut self, connection: u64, from: Option<u64>) -> u64 {
        if let Some(from) = from {
            self.satisfy_claim(from);
        }
        let from = from.map_or(self.end(), |from| from.min(self.end()));
        self.readers.push(Reader { connection, acknowledged: from });
        from
    }

    /// Drops the claim of whoever has come back for everything from `from` on. Where it may be one of several the one
    /// that reaches back least goes, which leaves enough for the others whoever it was.
    fn satisfy_claim(&mut self, from: u64) {
        let may_be = |claim: &Claim| (claim.acknowledged..=claim.sent).contains(&from);
        let nearest = self.lost.iter().filter(|claim| may_be(claim)).map(|claim| claim.acknowledged).max();
        let Some(index) = self.lost.iter().position(|it| Some(it.acknowledged) == nearest && may_be(it))
        else {
            return;
        };
        let satisfied = self.lost.swap_remove(index);
        for other in self.lost.iter_mut().filter(|claim| may_be(claim)) {
            other.sent = other.sent.max(satisfied.sent);
            other.until = other.until.max(satisfied.until);
        }
    }

    /// The reader has everything before `offset`.
    pub(crate) fn acknowledge(&mut self, connection: u64, offset: u64, sent: u64) {
        let offset = offset.min(sent);
        if let Some(reader) = self.readers.iter_mut().find(|reader| reader.connection == connection) {
            reader.acknowledged = reader.acknowledged.max(offset);
            self.acknowledged = self.acknowledged.max(offset);
        }
    }

    /// The reader is gone, which was sent everything before `sent`. If it may come back, what it has not acknowledged is
    /// kept for it until then or [`Self::forget_lost`].
    pub(crate) fn detach(&mut self, connection: u64, sent: u64, may_return: Option<Instant>) {
        let Some(index) = self.readers.iter().position(|reader| reader.connection == connection) else {
            return;
        };
        let Reader { acknowledged, .. } = self.readers.swap_remove(index);
        let Some(until) = may_return else { return };
        self.lost.push(Claim { acknowledged, sent: sent.max(acknowledged), until });
        if self.lost.len() > MOST_CLAIMS {
            // The one that reaches back least: the others hold what it needs.
            let least = self.lost.iter().map(|claim| claim.acknowledged).max();
            if let Some(index) = self.lost.iter().position(|claim| Some(claim.acknowledged) == least) {
                self.lost.swap_remove(index);
            }
        }
    }

    /// Gives up what nobody came back for in time.
    pub(crate) fn forget_lost(&mut self, now: Instant) {
        self.lost.retain(|claim| claim.until > now);
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
        Attach {
            reader: usize,
            from: Option<u64>,
        },
        /// The reader that was lost last, or first, comes back.
        Return {
            reader: usize,
            last: bool,
        },
        Read {
            reader: usize,
            most: usize,
        },
        Acknowledge {
            reader: usize,
        },
        Detach {
            reader: usize,
            may_return: bool,
        },
        Forget,
        ReleaseMemory,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => proptest::collection::vec(any::<u8>(), 0..9000).prop_map(Step::Write),
            2 => (0..2usize, proptest::option::of(0u64..40_000))
                .prop_map(|(reader, from)| Step::Attach { reader, from }),
            2 => (0..2usize, any::<bool>()).prop_map(|(reader, last)| Step::Return { reader, last }),
            4 => (0..2usize, 1usize..9000).prop_map(|(reader, most)| Step::Read { reader, most }),
            3 => (0..2usize).prop_map(|reader| Step::Acknowledge { reader }),
            3 => (0..2usize, any::<bool>()).prop_map(|(reader, may_return)| Step::Detach { reader, may_return }),
            1 => Just(Step::Forget),
            1 => Just(Step::ReleaseMemory),
        ];
        proptest::collection::vec(step, 1..80)
    }

    /// What a reader has.
    #[derive(Debug, Clone, Copy)]
    struct Has {
        read: u64,
        acknowledged: u64,
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
        /// Whatever happens, what is held is what was written, and what a reader needs is held, also for one that is
        /// lost and whatever others do meanwhile.
        #[test]
        fn a_stream_holds_what_it_says(steps in steps(), ring in 4096usize..20_000) {
            let mut space = spill_space(64 << 10);
            let (mut stream, mut all) = (Stream::new(ring), Vec::new());
            let mut readers: [Option<Has>; 2] = [None; 2];
            let mut lost: Vec<Has> = Vec::new();
            let now = Instant::now();
            for step in steps {
                match step {
                    Step::Write(bytes) => {
                        let written = write(&mut stream, &bytes, &mut space);
                        all.extend_from_slice(&bytes[..written]);
                        if lost.is_empty() && readers.iter().all(Option::is_none) {
                            prop_assert_eq!(written, bytes.len().min(ring));
                        }
                    }
                    // One that names an offset while others are lost may be taken for one of these.
                    Step::Attach { reader, from } if readers[reader].is_none() => {
                        let from = from.filter(|_| lost.is_empty());
                        let at = stream.attach(reader as u64, from).max(stream.start());
                        stream.acknowledge(reader as u64, at, at);
                        readers[reader] = Some(Has { read: at, acknowledged: at });
                    }
                    Step::Return { reader, last } if readers[reader].is_none() && !lost.is_empty() => {
                        let back = if last { lost.pop().unwrap() } else { lost.remove(0) };
                        prop_assert_eq!(stream.attach(reader as u64, Some(back.read)), back.read);
                        prop_assert!(stream.start() <= back.read, "a gap");
                        readers[reader] = Some(Has { acknowledged: back.read, ..back });
                    }
                    Step::Read { reader, most } => if let Some(has) = &mut readers[reader] {
                        let bytes = read(&mut stream, has.read, most, &mut space);
                        let from = usize::try_from(has.read).unwrap();
                        prop_assert_eq!(&all[from..from + bytes.len()], &bytes[..]);
                        prop_assert!(!bytes.is_empty() || has.read == all.len() as u64);
                        has.read += bytes.len() as u64;
                    },
                    Step::Acknowledge { reader } => if let Some(has) = &mut readers[reader] {
                        has.acknowledged = has.read;
                        stream.acknowledge(reader as u64, has.read, has.read);
                    },
                    Step::Detach { reader, may_return } => if let Some(has) = readers[reader].take() {
                        let may_return = may_return && lost.len() < MOST_CLAIMS;
                        stream.detach(reader as u64, has.read, may_return.then_some(now));
                        lost.extend(may_return.then_some(has));
                    },
                    Step::Forget => {
                        stream.forget_lost(now);
                        lost.clear();
                    }
                    Step::ReleaseMemory if !stream.is_held() => stream.release_memory(&mut space),
                    _ => {}
                }
                prop_assert_eq!(stream.end(), all.len() as u64);
                prop_assert!(stream.ring().capacity() <= ring);
                for has in readers.iter().flatten().chain(&lost) {
                    prop_assert!(stream.start() <= has.acknowledged, "{:?} is gone", has);
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
    fn whoever_reads_from_now_on_takes_nothing_from_a_lost_reader() {
        let (mut space, now) = (spill_space(0), Instant::now());
        let mut stream = Stream::new(4096);
        stream.attach(1, Some(0));
        write(&mut stream, &[7; 4096], &mut space);
        stream.detach(1, 1000, Some(now));
        let end = stream.attach(2, None);
        stream.acknowledge(2, end, end);
        stream.detach(2, end, None);
        assert_eq!(write(&mut stream, &[8; 100], &mut space), 0);
        // Nor one for whom it was too far behind.
        stream.attach(3, Some(4000));
        stream.detach(3, 4000, None);
        assert_eq!(write(&mut stream, &[8; 100], &mut space), 0);
        stream.attach(1, Some(900));
        assert_eq!(read(&mut stream, 900, 10, &mut space), [7; 10]);
        assert_eq!(write(&mut stream, &[8; 1000], &mut space), 900);
        // In time only.
        stream.detach(1, 900, Some(now));
        assert_eq!(write(&mut stream, &[8; 1000], &mut space), 0);
        stream.forget_lost(now);
        assert_eq!(write(&mut stream, &[8; 1000], &mut space), 1000);
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
        stream.detach(1, end, None);
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
