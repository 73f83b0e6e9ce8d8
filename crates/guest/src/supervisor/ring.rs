//! The newest bytes of a stream, in memory that grows as it is needed.

use std::io::{IoSlice, IoSliceMut};

const FIRST_CAPACITY: usize = 4 << 10;

/// Bytes `start..end` of a stream.
#[derive(Debug)]
pub(crate) struct Ring {
    buffer: Vec<u8>,
    /// Where byte `start` is.
    head: usize,
    start: u64,
    length: usize,
    limit: usize,
}

impl Ring {
    /// An empty one of at most `limit` bytes, without memory of its own yet.
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), head: 0, start: 0, length: 0, limit: limit.max(FIRST_CAPACITY) }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.length as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Memory taken, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that can be added now.
    pub(crate) fn free(&self) -> usize {
        self.buffer.len() - self.length
    }

    /// Makes room for `more` bytes, as far as the limit allows, dropping none.
    pub(crate) fn grow(&mut self, more: usize) {
        if self.free() < more && self.buffer.len() < self.limit {
            let wanted = self.length.saturating_add(more).max(FIRST_CAPACITY);
            self.resize(wanted.checked_next_power_of_two().unwrap_or(wanted).min(self.limit));
        }
    }

    /// Gives back memory that holds nothing.
    pub(crate) fn shrink(&mut self) {
        if self.length < self.buffer.len() {
            self.resize(self.length);
        }
    }

    fn resize(&mut self, capacity: usize) {
        // Zeroed memory of that size comes straight from the kernel; nothing is touched that is not used.
        let mut buffer = vec![0; capacity];
        let (first, second) = self.range(self.start, self.length);
        buffer[..first.len()].copy_from_slice(first);
        buffer[first.len()..first.len() + second.len()].copy_from_slice(second);
        self.buffer = buffer;
        self.head = 0;
    }

    /// Up to `most` bytes from `offset` on, in two pieces. `offset` must be within `start..=end`.
    pub(crate) fn range(&self, offset: u64, most: usize) -> (&[u8], &[u8]) {
        let skip = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.length);
        let length = most.min(self.length - skip);
        if length == 0 {
            return (&[], &[]);
        }
        let from = (self.head + skip) % self.buffer.len();
        let first = length.min(self.buffer.len() - from);
        (&self.buffer[from..from + first], &self.buffer[..length - first])
    }

    /// The same, for writev(2).
    pub(crate) fn slices(&self, offset: u64, most: usize) -> [IoSlice<'_>; 2] {
        let (first, second) = self.range(offset, most);
        [IoSlice::new(first), IoSlice::new(second)]
    }

    /// Up to `most` free bytes to be filled, for readv(2). [`Self::filled`] says how many were.
    pub(crate) fn space(&mut self, most: usize) -> [IoSliceMut<'_>; 2] {
        let length = most.min(self.free());
        if length == 0 {
            return [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])];
        }
        let tail = (self.head + self.length) % self.buffer.len();
        let first = length.min(self.buffer.len() - tail);
        let (before, after) = self.buffer.split_at_mut(tail);
        [IoSliceMut::new(&mut after[..first]), IoSliceMut::new(&mut before[..length - first])]
    }

    /// So many bytes of [`Self::space`] are filled.
    pub(crate) fn filled(&mut self, count: usize) {
        self.length = (self.length + count).min(self.buffer.len());
    }

    /// Forgets the oldest `count` bytes.
    pub(crate) fn drop_oldest(&mut self, count: usize) {
        let count = count.min(self.length);
        self.length -= count;
        self.start += count as u64;
        self.head = if self.length == 0 { 0 } else { (self.head + count) % self.buffer.len() };
    }
}
