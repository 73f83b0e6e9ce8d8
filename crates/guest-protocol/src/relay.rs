//! Many connections to a guest over one pair of pipes, where its socket cannot be reached: what `hostel-guest relay`,
//! started beside the guest, and the host say to each other.
//!
//! The relay starts with [`GREETING`], so that the host knows whom it talks to. Then both sides send pieces: a
//! 12-byte header and, for [`Piece::Data`], that many bytes.
//!
//! ```text
//! 0      1..4   4..8      8..12
//! kind   zero   channel   number     all little-endian
//! ```
//! The host opens channels, each with a number that it never uses twice; each becomes a connection to the guest's
//! socket. A side sends at most [`WINDOW`] bytes of data on a channel beyond what the other one gave room for with
//! [`Piece::Room`]. [`Piece::Close`] from either side ends a channel once what came before is delivered; what still
//! comes for a closed channel is dropped. The bytes themselves are the protocol of this crate, proof of the host
//! included: a relay is trusted with nothing.

/// First bytes that a relay sends.
pub const GREETING: [u8; 8] = *b"hostel\x001";
/// Length of a piece's header, in bytes.
pub const PIECE_HEADER: usize = 12;
/// Most data in one piece, in bytes.
pub const MAX_PIECE: usize = 32 << 10;
/// Data that may be under way on a channel in one direction, in bytes.
pub const WINDOW: usize = 512 << 10;
/// Most channels at a time.
pub const MAX_CHANNELS: usize = 200;
/// A host that is there sends something at least this often, in seconds, if only [`Piece::Ping`].
pub const PING_SECONDS: u64 = 15;
/// A side from which nothing came for so many seconds is taken for gone.
pub const SILENCE_SECONDS: u64 = 60;

/// What is sent; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// From the host: a new channel.
    Open,
    /// That many bytes of a channel follow, 1 to [`MAX_PIECE`].
    Data(usize),
    /// There is room for so many bytes more on a channel, 1 to [`WINDOW`].
    Room(usize),
    /// The channel ends.
    Close,
    /// From the host, without a channel: are you there?
    Ping,
    /// The relay's answer to that.
    Pong,
}

/// A header that breaks the rules: nobody knows where the next one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a relay's header")]
pub struct PieceError;

impl Piece {
    /// Bytes that follow the header.
    #[must_use]
    pub fn length(self) -> usize {
        if let Self::Data(length) = self { length } else { 0 }
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(self, channel: u32) -> [u8; PIECE_HEADER] {
        let (kind, number) = match self {
            Self::Open => (1, 0),
            Self::Data(length) => (2, length),
            Self::Room(bytes) => (3, bytes),
            Self::Close => (4, 0),
            Self::Ping => (5, 0),
            Self::Pong => (6, 0),
        };
        let mut header = [0; PIECE_HEADER];
        header[0] = kind;
        header[4..8].copy_from_slice(&channel.to_le_bytes());
        header[8..].copy_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        header
    }

    /// Reads a header. → the channel, and what it is.
    ///
    /// # Errors
    /// [`PieceError`] where it breaks the rules.
    pub fn decode(header: &[u8; PIECE_HEADER]) -> Result<(u32, Self), PieceError> {
        let [kind, 0, 0, 0, c0, c1, c2, c3, n0, n1, n2, n3] = *header else { return Err(PieceError) };
        let channel = u32::from_le_bytes([c0, c1, c2, c3]);
        let number = usize::try_from(u32::from_le_bytes([n0, n1, n2, n3])).map_err(|_| PieceError)?;
        let piece = match (kind, number) {
            (1, 0) => Self::Open,
            (2, 1..=MAX_PIECE) => Self::Data(number),
            (3, 1..=WINDOW) => Self::Room(number),
            (4, 0) => Self::Close,
            (5, 0) if channel == 0 => Self::Ping,
            (6, 0) if channel == 0 => Self::Pong,
            _ => return Err(PieceError),
        };
        Ok((channel, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_header_decodes_to_what_makes_it_or_is_refused(header: [u8; PIECE_HEADER]) {
            if let Ok((channel, piece)) = Piece::decode(&header) {
                prop_assert!(piece.length() <= MAX_PIECE);
                prop_assert_eq!(piece.encode(channel), header);
            }
        }

        #[test]
        fn headers_survive(kind in 1u8..=6, channel: u32, number in 0u32..1 << 20) {
            let mut header = [0; PIECE_HEADER];
            header[0] = kind;
            header[4..8].copy_from_slice(&channel.to_le_bytes());
            header[8..].copy_from_slice(&number.to_le_bytes());
            if let Ok((channel, piece)) = Piece::decode(&header) {
                prop_assert_eq!(piece.encode(channel), header);
            }
        }
    }
}
