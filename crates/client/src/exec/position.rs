//! How far a stream of output was read, and told so.

use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes after which output is acknowledged at once: a quarter of what a sandbox holds for us, so that it need not wait.
const ACK_BYTES: u64 = 512 << 10;
/// How long an acknowledgement may wait for more to acknowledge.
const ACK_DELAY: Duration = Duration::from_millis(10);

/// Where we are in one stream.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// Offset of the next byte; `None` while we read "from now on" and nothing came yet.
    next: Option<u64>,
    /// Every byte before is acknowledged to the daemon.
    acknowledged: u64,
    /// Every byte before may be acknowledged.
    safe: u64,
    /// When `safe` must be acknowledged at the latest.
    due: Option<Instant>,
}

impl Position {
    pub(super) fn from(offset: Option<u64>) -> Self {
        let start = offset.unwrap_or(0);
        Self { next: offset, acknowledged: start, safe: start, due: None }
    }

    /// Where to read on.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    /// Reads on from here where nothing else is known.
    pub(super) fn default_to(&mut self, offset: u64) {
        self.next.get_or_insert(offset);
    }

    /// Takes bytes that arrived: what of them is new, with its offset, and what is missing before it.
    pub(super) fn take(&mut self, offset: u64, mut data: Bytes) -> (Option<Range<u64>>, u64, Bytes) {
        let expected = self.next.unwrap_or(offset);
        let known = expected.saturating_sub(offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
        let _ = data.split_to(known);
        let offset = expected.max(offset);
        let end = offset + u64::try_from(data.len()).unwrap_or(0);
        self.next = Some(end.max(expected));
        ((offset > expected).then_some(expected..offset), offset, data)
    }

    /// Skips to `offset`, because what is before is no longer held.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.next = Some(self.next.unwrap_or(0).max(offset));
    }

    /// Every byte before `offset` is safe with the reader.
    pub(super) fn safe_to(&mut self, offset: u64) {
        let reached = self.next.unwrap_or(0);
        if offset.min(reached) > self.safe {
            self.safe = offset.min(reached);
            self.due.get_or_insert_with(|| Instant::now() + ACK_DELAY);
        }
    }

    /// A new connection, which knows of no acknowledgement.
    pub(super) fn rewind(&mut self) {
        self.acknowledged = 0;
        if self.safe > 0 {
            self.due.get_or_insert_with(Instant::now);
        }
    }

    /// When something must be acknowledged at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether something is to be acknowledged now.
    pub(super) fn is_due(&self) -> bool {
        self.safe > self.acknowledged
            && (self.safe - self.acknowledged >= ACK_BYTES
                || self.due.is_some_and(|due| due <= Instant::now()))
    }

    /// What to acknowledge now, if anything.
    pub(super) fn acknowledge(&mut self) -> Option<u64> {
        if !self.is_due() {
            return None;
        }
        self.acknowledged = self.safe;
        self.due = None;
        Some(self.safe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_twice_is_taken_once() {
        let mut position = Position::from(Some(0));
        assert_eq!(position.take(0, Bytes::from_static(b"abc")), (None, 0, Bytes::from_static(b"abc")));
        assert_eq!(position.take(1, Bytes::from_static(b"bcde")), (None, 3, Bytes::from_static(b"de")));
        assert_eq!(position.take(0, Bytes::from_static(b"ab")).2, Bytes::new());
        assert_eq!(position.take(7, Bytes::from_static(b"x")).0, Some(5..7));
        assert_eq!(position.next(), Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn acknowledgements_are_bundled() {
        let mut position = Position::from(Some(0));
        let _ = position.take(0, vec![0; 1 << 20].into());
        position.safe_to(10);
        assert_eq!(position.acknowledge(), None);
        tokio::time::advance(ACK_DELAY).await;
        assert_eq!(position.acknowledge(), Some(10));
        position.safe_to(10 + ACK_BYTES);
        assert_eq!(position.acknowledge(), Some(10 + ACK_BYTES));
        position.safe_to(u64::MAX);
        tokio::time::advance(ACK_DELAY).await;
        assert_eq!(position.acknowledge(), Some(1 << 20), "never beyond what was read");
    }
}
