//! Stdin on its way: kept until the daemon says that the sandbox has it.

use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes that may be on their way at a time.
const ROOM: u64 = 1 << 20;
/// Largest piece sent, in bytes.
const PIECE: usize = 256 << 10;

/// What was given to us and is not yet accepted, by absolute offset.
#[derive(Debug, Default)]
pub(super) struct PendingStdin {
    pieces: VecDeque<Bytes>,
    /// Offset of the first byte in `pieces`: all before is accepted.
    start: u64,
    /// Offset after the last byte in `pieces`.
    end: u64,
    /// Offset of the next byte to send on this connection.
    sent: u64,
    closed: bool,
    close_sent: bool,
}

impl PendingStdin {
    /// Begins at the offset that the daemon told, when nothing was given yet.
    pub(super) fn start_at(&mut self, offset: u64) {
        (self.start, self.end, self.sent) = (offset, offset, offset);
    }

    /// Whether more may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.end - self.start < ROOM
    }

    /// Takes more. What comes after the end is dropped.
    pub(super) fn push(&mut self, mut data: Bytes) {
        while !data.is_empty() && !self.closed {
            let piece = data.split_to(data.len().min(PIECE));
            self.end += length(&piece);
            self.pieces.push_back(piece);
        }
    }

    /// Notes the end.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether there is something to send.
    pub(super) fn wants_to_send(&self) -> bool {
        self.sent < self.end || (self.closed && !self.close_sent)
    }

    /// The next bytes to send, with their offset.
    pub(super) fn next(&mut self) -> Option<(u64, Bytes)> {
        let mut position = self.start;
        for piece in &self.pieces {
            let next = position + length(piece);
            if self.sent < next {
                let skip = usize::try_from(self.sent - position).unwrap_or(piece.len());
                let sending = (self.sent, piece.slice(skip..));
                self.sent = next;
                return Some(sending);
            }
            position = next;
        }
        None
    }

    /// Whether the end is to be sent now, after everything else. True once for each connection.
    pub(super) fn take_close(&mut self) -> bool {
        let due = self.closed && !self.close_sent && self.sent == self.end;
        self.close_sent |= due;
        due
    }

    /// Everything before `offset` is accepted, which may be more than this connection sent: the one before it may
    /// have sent it. `false` when it is more than there ever was.
    #[must_use]
    pub(super) fn accepted(&mut self, offset: u64) -> bool {
        if offset > self.end {
            return false;
        }
        self.sent = self.sent.max(offset);
        while let Some(piece) = self.pieces.front_mut() {
            if self.start >= offset {
                break;
            }
            let done = length(piece).min(offset - self.start);
            self.start += done;
            let _ = piece.split_to(usize::try_from(done).unwrap_or(piece.len()));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        true
    }

    /// A new connection, which says that the sandbox has everything before `offset`: send again from there, and
    /// where it knows of less than we were told before, from what we were told. What comes twice is dropped there.
    /// `false` when it claims more than there ever was.
    #[must_use]
    pub(super) fn rewind(&mut self, offset: u64) -> bool {
        let possible = self.accepted(offset);
        self.sent = self.start;
        self.close_sent = false;
        possible
    }
}

fn length(piece: &Bytes) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(stdin: &mut PendingStdin) -> Vec<u8> {
        std::iter::from_fn(|| stdin.next()).flat_map(|(_, data)| data.to_vec()).collect()
    }

    #[test]
    fn after_a_break_exactly_what_is_missing_is_sent_again() {
        let mut stdin = PendingStdin::default();
        stdin.push(Bytes::from_static(b"hello "));
        stdin.push(Bytes::from_static(b"world"));
        stdin.close();
        assert!(!stdin.take_close(), "the end comes after the bytes");
        assert_eq!(drain(&mut stdin), b"hello world");
        assert!(stdin.take_close() && !stdin.take_close());
        assert!(stdin.accepted(3));
        assert!(stdin.rewind(8), "it had more than it had told");
        assert_eq!(stdin.next(), Some((8, Bytes::from_static(b"rld"))));
        assert!(stdin.take_close());
        assert!(stdin.rewind(2), "it may have forgotten what it had told");
        assert_eq!(stdin.next(), Some((8, Bytes::from_static(b"rld"))));
        assert!(!stdin.rewind(12) && !stdin.accepted(12), "more than there ever was");
        assert!(stdin.rewind(8) && stdin.accepted(11), "a connection before this one had sent it");
        assert_eq!((stdin.next(), stdin.take_close()), (None, true));
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let mut stdin = PendingStdin::default();
        stdin.start_at(100);
        stdin.push(vec![0; 1 << 20].into());
        assert!(!stdin.has_room());
        assert_eq!(drain(&mut stdin).len(), 1 << 20);
        assert!(stdin.accepted(100 + (1 << 19)) && stdin.has_room());
    }
}
