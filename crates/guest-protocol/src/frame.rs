//! Frames on a stream socket: a 16-byte header and a payload.
//!
//! ```text
//! 0      1        2..4      4..8     8..16
//! kind   stream   zero      length   offset     then `length` bytes
//! ```
//! All numbers are little-endian. Kind 1 is a protobuf message (stream and offset are zero), kind 2 is data
//! of a process's stream starting at `offset`.

/// Length of a frame's header, in bytes.
pub const HEADER_LEN: usize = 16;
/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Longest piece of data, in bytes.
pub const MAX_DATA: usize = 256 << 10;

/// Capacity that an empty [`Decoder`] keeps, in bytes.
const KEPT_CAPACITY: usize = 32 << 10;

const KIND_MESSAGE: u8 = 1;
const KIND_DATA: u8 = 2;

/// Which stream of a process data belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamId {
    /// To the process.
    Stdin = 0,
    /// From it; everything where it has a terminal.
    Stdout = 1,
    /// From it.
    Stderr = 2,
}

impl StreamId {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Stdin, Self::Stdout, Self::Stderr].into_iter().find(|id| *id as u8 == byte)
    }
}

/// A frame's header, understood and within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A message of that many bytes follows.
    Message {
        /// Bytes of payload.
        length: usize,
    },
    /// Data follows.
    Data {
        /// Whose.
        stream: StreamId,
        /// Position of its first byte in the stream.
        offset: u64,
        /// Bytes of payload.
        length: usize,
    },
}

/// A header that breaks the rules. The connection is beyond repair: nobody knows where the next frame starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such kind or stream, or bytes that should be zero are not.
    #[error("not a frame header")]
    Malformed,
    /// More than [`MAX_MESSAGE`] or [`MAX_DATA`].
    #[error("a frame of {0} bytes is over the limit")]
    TooLong(usize),
}

impl Frame {
    /// Bytes of payload.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::Message { length } | Self::Data { length, .. } => *length,
        }
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let (kind, stream, offset) = match self {
            Self::Message { .. } => (KIND_MESSAGE, 0, 0),
            Self::Data { stream, offset, .. } => (KIND_DATA, *stream as u8, *offset),
        };
        let mut header = [0; HEADER_LEN];
        header[0] = kind;
        header[1] = stream;
        header[4..8].copy_from_slice(&u32::try_from(self.length()).unwrap_or(u32::MAX).to_le_bytes());
        header[8..].copy_from_slice(&offset.to_le_bytes());
        header
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`] where it breaks the rules above.
    pub fn decode(header: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [kind, stream, zero_a, zero_b, l0, l1, l2, l3, offset @ ..] = *header;
        let length =
            usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).map_err(|_| FrameError::Malformed)?;
        let offset = u64::from_le_bytes(offset);
        if zero_a != 0 || zero_b != 0 {
            return Err(FrameError::Malformed);
        }
        match kind {
            KIND_MESSAGE if stream == 0 && offset == 0 => {
                if length > MAX_MESSAGE {
                    Err(FrameError::TooLong(length))
                } else {
                    Ok(Self::Message { length })
                }
            }
            KIND_DATA => {
                let stream = StreamId::from_byte(stream).ok_or(FrameError::Malformed)?;
                let end = offset.checked_add(u64::from(u32::from_le_bytes([l0, l1, l2, l3])));
                match (length > MAX_DATA, end) {
                    (true, _) => Err(FrameError::TooLong(length)),
                    (false, None) => Err(FrameError::Malformed),
                    (false, Some(_)) => Ok(Self::Data { stream, offset, length }),
                }
            }
            _ => Err(FrameError::Malformed),
        }
    }
}

/// Encodes a message with its header.
#[must_use]
pub fn encode_message(message: &impl prost::Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(HEADER_LEN + length);
    bytes.extend_from_slice(&Frame::Message { length }.encode());
    message.encode_raw(&mut bytes);
    bytes
}

/// Cuts bytes as they arrive into frames. It never holds more than one frame and what one read brought.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.release();
        } else if self.start > MAX_DATA {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame and its payload, if it is there.
    ///
    /// # Errors
    /// [`FrameError`]; the connection must be closed then.
    pub fn next_frame(&mut self) -> Result<Option<(Frame, &[u8])>, FrameError> {
        let waiting = &self.buffer[self.start..];
        let Some((header, rest)) = waiting.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let frame = Frame::decode(header)?;
        if rest.len() < frame.length() {
            return Ok(None);
        }
        let payload = self.start + HEADER_LEN;
        self.start = payload + frame.length();
        Ok(Some((frame, &self.buffer[payload..self.start])))
    }

    /// Forgets what was handed out already, and gives a large empty buffer back to the system.
    pub fn release(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = Vec::new();
        }
    }

    /// Bytes held that are not yet a whole frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = (Frame, Vec<u8>)> {
        let payload = proptest::collection::vec(any::<u8>(), 0..600);
        (any::<bool>(), 0u8..3, 0..u64::MAX / 2, payload).prop_map(|(message, stream, offset, payload)| {
            let length = payload.len();
            let frame = match StreamId::from_byte(stream) {
                Some(stream) if !message => Frame::Data { stream, offset, length },
                _ => Frame::Message { length },
            };
            (frame, payload)
        })
    }

    proptest! {
        #[test]
        fn any_header_decodes_or_is_refused_and_never_panics(header: [u8; HEADER_LEN]) {
            if let Ok(frame) = Frame::decode(&header) {
                prop_assert!(frame.length() <= MAX_MESSAGE);
                prop_assert_eq!(frame.encode(), header);
            }
        }

        #[test]
        fn frames_survive_any_cutting(frames in proptest::collection::vec(frames(), 1..20), cut in 1usize..700) {
            let wire: Vec<u8> = frames.iter().flat_map(|(frame, payload)| {
                frame.encode().into_iter().chain(payload.iter().copied())
            }).collect();
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in wire.chunks(cut) {
                decoder.extend(piece);
                while let Some((frame, payload)) = decoder.next_frame().unwrap() {
                    seen.push((frame, payload.to_vec()));
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert_eq!(decoder.pending(), 0);
        }

        #[test]
        fn garbage_never_panics(garbage: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.extend(&garbage);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
