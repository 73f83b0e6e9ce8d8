//! Lets clients of gRPC's C core (Python, C++, Ruby, PHP) in on the unix socket.
//!
//! They name the server by the socket's path, percent-encoded (`:authority: %2Frun%2F…`), which RFC 3986 allows
//! and the `http` crate does not: such a request would be reset before any code of ours sees it. On a unix socket
//! the name means nothing, so it is replaced while it goes by: whole frames are looked at, header blocks are
//! walked (RFC 7541 §6) without decoding them, and everything else passes untouched. The replacement is never
//! longer than what it replaces, so that the receiver's table of headers never drops what the sender still uses.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;

const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Longest header block that is held back to be looked at.
const MOST_BLOCK: usize = 64 << 10;
/// Index of `:authority` in the static table (RFC 7541 appendix A).
const AUTHORITY: usize = 1;
/// Marks a string that is not plain text (RFC 7541 §5.2).
const HUFFMAN: u8 = 0x80;
const NAME: &[u8] = b"localhost";

/// Where in the client's bytes we are.
#[derive(Debug)]
enum Place {
    /// So many bytes pass untouched.
    Passing(usize),
    /// In a frame's header.
    Header,
    /// In a header block of that length.
    Block(usize),
}

/// Rewrites what one client sends.
#[derive(Debug)]
pub(crate) struct Rewriter {
    place: Place,
    held: Vec<u8>,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self { place: Place::Passing(PREFACE), held: Vec::new() }
    }
}

impl Rewriter {
    /// How many of these bytes, at their beginning, pass as they are; they are taken.
    fn passing(&mut self, bytes: &[u8]) -> usize {
        match self.place {
            Place::Passing(left) if left > bytes.len() => {
                self.place = Place::Passing(left - bytes.len());
                bytes.len()
            }
            Place::Passing(left) => {
                self.place = Place::Header;
                left
            }
            Place::Header | Place::Block(_) => 0,
        }
    }

    /// Takes what arrived and adds what may go on.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let wanted = match self.place {
                Place::Passing(left) => {
                    let (pass, rest) = bytes.split_at(left.min(bytes.len()));
                    out.extend_from_slice(pass);
                    bytes = rest;
                    self.place =
                        if pass.len() == left { Place::Header } else { Place::Passing(left - pass.len()) };
                    continue;
                }
                Place::Header => FRAME_HEADER,
                Place::Block(length) => FRAME_HEADER + length,
            };
            let (take, rest) = bytes.split_at((wanted - self.held.len()).min(bytes.len()));
            self.held.extend_from_slice(take);
            bytes = rest;
            if self.held.len() == wanted {
                self.held_enough(out);
            }
        }
    }

    /// A whole frame header, or a whole frame with headers, is held.
    fn held_enough(&mut self, out: &mut Vec<u8>) {
        let length =
            usize::from(self.held[0]) << 16 | usize::from(self.held[1]) << 8 | usize::from(self.held[2]);
        let (kind, flags) = (self.held[3], self.held[4]);
        let whole = self.held.len() > FRAME_HEADER;
        if kind == HEADERS && flags & END_HEADERS != 0 && length > 0 && length <= MOST_BLOCK && !whole {
            self.place = Place::Block(length);
            return;
        }
        if whole {
            let block = &self.held[FRAME_HEADER..];
            if let Some(block) = rewrite(block, flags) {
                let length = u32::try_from(block.len()).unwrap_or(0).to_be_bytes();
                out.extend_from_slice(&length[1..]);
                out.extend_from_slice(&self.held[3..FRAME_HEADER]);
                out.extend_from_slice(&block);
            } else {
                out.extend_from_slice(&self.held);
            }
            self.place = Place::Header;
        } else {
            out.extend_from_slice(&self.held);
            self.place = if length == 0 { Place::Header } else { Place::Passing(length) };
        }
        self.held.clear();
    }
}

/// A client's connection whose authority is rewritten while it is read.
#[derive(Debug)]
pub(crate) struct NamedStream {
    stream: UnixStream,
    rewriter: Rewriter,
    ready: Vec<u8>,
    taken: usize,
}

impl NamedStream {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, rewriter: Rewriter::default(), ready: Vec::new(), taken: 0 }
    }

    /// The connection itself, for writing.
    pub(crate) fn stream(&mut self) -> Pin<&mut UnixStream> {
        Pin::new(&mut self.stream)
    }
}

impl AsyncRead for NamedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.taken == this.ready.len() {
            this.ready.clear();
            this.taken = 0;
            // Straight to where it is wanted: most of what comes is content, which passes as it is.
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let arrived = &buffer.filled()[before..];
            let passing = this.rewriter.passing(arrived);
            if passing == arrived.len() {
                return Poll::Ready(Ok(()));
            }
            this.rewriter.push(&arrived[passing..], &mut this.ready);
            buffer.set_filled(before + passing);
            if passing > 0 {
                break;
            }
        }
        let waiting = &this.ready[this.taken..];
        let count = waiting.len().min(buffer.remaining());
        buffer.put_slice(&waiting[..count]);
        this.taken += count;
        Poll::Ready(Ok(()))
    }
}

/// The payload of a HEADERS frame with its authority replaced; `None` where there is nothing to replace.
fn rewrite(payload: &[u8], flags: u8) -> Option<Vec<u8>> {
    let padding = if flags & PADDED != 0 { usize::from(*payload.first()?) } else { 0 };
    let start = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let end = payload.len().checked_sub(padding).filter(|end| *end >= start)?;
    let (value_start, value_end) = authority(payload.get(..end)?, start)?;
    let mut block = payload[..value_start].to_vec();
    block.push(u8::try_from(NAME.len()).ok()?);
    block.extend_from_slice(NAME);
    block.extend_from_slice(&payload[value_end..]);
    Some(block)
}

/// Where the value of `:authority`, with its length, starts and ends, if it stands here as text.
fn authority(block: &[u8], mut at: usize) -> Option<(usize, usize)> {
    while at < block.len() {
        let first = block[at];
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, next) = integer(block, at, prefix)?;
        at = next;
        if literal {
            let mut is_authority = index == AUTHORITY;
            if index == 0 {
                let (length, end) = string(block, at)?;
                is_authority = block[at] & HUFFMAN == 0 && block[end - length..end] == *b":authority";
                at = end;
            }
            let (length, end) = string(block, at)?;
            if is_authority {
                return (length >= NAME.len()).then_some((at, end));
            }
            at = end;
        }
    }
    None
}

/// An integer with a prefix of so many bits (RFC 7541 §5.1), and where it ends.
fn integer(block: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let most = (1usize << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    let mut next = at + 1;
    if value == most {
        for shift in [0, 7, 14, 21] {
            let byte = *block.get(next)?;
            next += 1;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value, next));
            }
        }
        return None;
    }
    Some((value, next))
}

/// A string's length as it stands here, and where it ends.
fn string(block: &[u8], at: usize) -> Option<(usize, usize)> {
    let (length, start) = integer(block, at, 7)?;
    let end = start.checked_add(length).filter(|end| *end <= block.len())?;
    Some((length, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn through(bytes: &[u8], cut: usize) -> Vec<u8> {
        let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
        bytes.chunks(cut).for_each(|piece| rewriter.push(piece, &mut out));
        out
    }

    #[test]
    fn the_path_of_a_socket_becomes_a_name() {
        let path = b"%2Frun%2Fhostel%2Fhosteld.sock";
        let length = u8::try_from(path.len()).unwrap();
        // :method POST, :authority by index and then by name as grpcio has it, and a header by index.
        let named = [&[0x40, 10][..], b":authority"].concat();
        for field in [&[0x41][..], &named] {
            let before = [&[0x83], field, &[length], path, &[0xbf]].concat();
            let after = [&[0x83], field, &[9], NAME, &[0xbf]].concat();
            passes_as(&before, &after);
        }
    }

    fn passes_as(before: &[u8], after: &[u8]) {
        let preface = [b'p'; PREFACE];
        let sent =
            [&preface[..], &frame(4, 0, &[1, 2]), &frame(1, 4, before), &frame(0, 0, b"data")].concat();
        let expected =
            [&preface[..], &frame(4, 0, &[1, 2]), &frame(1, 4, after), &frame(0, 0, b"data")].concat();
        for cut in [1, 2, 7, 1000] {
            assert_eq!(through(&sent, cut), expected);
        }
    }

    #[tokio::test]
    async fn a_connection_reads_what_its_rewriter_makes() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let path = b"%2Frun%2Fhostel%2Fhosteld.sock";
        let block = [&[0x83, 0x41, u8::try_from(path.len()).unwrap()][..], path, &[0xbf]].concat();
        let mut sent = vec![b'p'; PREFACE];
        for length in [0, 1, 5, 100, 70_000] {
            sent.extend([frame(HEADERS, END_HEADERS, &block), frame(0, 0, &vec![7; length])].concat());
        }
        let expected = through(&sent, 1000);
        for (cut, room) in [(1, 1), (10, 3), (1000, 64), (50_000, 30), (200_000, 200_000)] {
            let (mut client, server) = UnixStream::pair().unwrap();
            let (mut server, mut got) = (NamedStream::new(server), Vec::new());
            let write = async {
                for piece in sent.chunks(cut) {
                    client.write_all(piece).await.unwrap();
                }
                drop(client);
            };
            let read = async {
                let mut space = vec![0; room];
                loop {
                    let count = server.read(&mut space).await.unwrap();
                    if count == 0 {
                        break;
                    }
                    got.extend_from_slice(&space[..count]);
                }
            };
            tokio::join!(write, read);
            assert!(got == expected, "cut {cut}, room {room}");
        }
    }

    proptest! {
        #[test]
        fn garbage_passes_and_nothing_panics(bytes: Vec<u8>, cut in 1usize..40) {
            let _ = through(&bytes, cut);
            let _ = rewrite(&bytes, PADDED | PRIORITY);
        }

        #[test]
        fn what_is_not_a_header_block_is_untouched(payloads in proptest::collection::vec(any::<Vec<u8>>(), 0..8), cut in 1usize..40) {
            let mut sent = vec![b'p'; PREFACE];
            payloads.iter().for_each(|payload| sent.extend(frame(0, 0, payload)));
            prop_assert_eq!(through(&sent, cut), sent);
        }
    }
}
