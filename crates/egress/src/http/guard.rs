//! A stream that lets only well-formed HTTP/1.1 requests through.
//!
//! It reads along: it checks each head whole before the first byte of it is passed on, and follows bodies to know
//! where the next head begins. In place of a head that is refused, a plain request is passed on, which the service
//! answers with what is noted in [`Watch`].

use super::OpenerSettings;
use super::denied::Denied;
use super::head::{self, Framing};
use http::StatusCode;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at a time.
const READ: usize = 16 * 1024;
/// Most bytes of a chunk's size line: more is no size.
const MAX_SIZE_LINE: usize = 16;
/// Most bytes of trailers.
const MAX_TRAILERS: usize = 8 * 1024;
/// What stands in for a head that was refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";

/// What the guard and the service tell each other.
#[derive(Debug, Default)]
pub(super) struct Watch {
    problem: Mutex<Option<Denied>>,
    refused: AtomicBool,
    upgraded: AtomicBool,
}

impl Watch {
    /// Why the connection is refused, told once; afterwards a general answer.
    pub(super) fn problem(&self) -> Option<Denied> {
        if !self.refused.load(Ordering::Acquire) {
            return None;
        }
        let told = self.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some(told.unwrap_or_else(|| Denied::bad("bad_request", "an earlier request was malformed")))
    }

    /// From now on the stream is not HTTP.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    fn refuse(&self, problem: Denied) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        self.refused.store(true, Ordering::Release);
    }
}

/// The stream.
pub(super) struct Guard<S> {
    inner: S,
    watch: Arc<Watch>,
    max_head: usize,
    max_headers: usize,
    scratch: Box<[u8]>,
    /// Checked, and not yet taken.
    ready: Vec<u8>,
    taken: usize,
    /// What is collected of a head or of a line.
    part: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers(usize),
    /// No HTTP any more.
    Raw,
    /// A head was refused: what follows is thrown away.
    Refused,
}

impl<S> Guard<S> {
    pub(super) fn new(inner: S, watch: Arc<Watch>, settings: &OpenerSettings) -> Self {
        Self {
            inner,
            watch,
            max_head: settings.max_head,
            max_headers: settings.max_headers,
            scratch: vec![0; READ].into_boxed_slice(),
            ready: Vec::new(),
            taken: 0,
            part: Vec::new(),
            state: State::Head,
        }
    }

    /// Takes what was read, of any length.
    fn feed(&mut self, mut input: &[u8]) -> io::Result<()> {
        while !input.is_empty() {
            let used = match self.state {
                State::Head => self.feed_head(input),
                State::Body(left) => self.feed_counted(input, left, State::Head, State::Body),
                State::Chunk(left) => self.feed_counted(input, left, State::ChunkEnd, State::Chunk),
                State::ChunkSize | State::ChunkEnd | State::Trailers(_) => self.feed_line(input)?,
                State::Raw => {
                    self.ready.extend_from_slice(input);
                    input.len()
                }
                State::Refused => input.len(),
            };
            input = &input[used..];
        }
        Ok(())
    }

    fn feed_counted(&mut self, input: &[u8], left: u64, then: State, more: fn(u64) -> State) -> usize {
        let used = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        self.ready.extend_from_slice(&input[..used]);
        let left = left - used as u64;
        self.state = if left == 0 { then } else { more(left) };
        used
    }

    fn feed_head(&mut self, input: &[u8]) -> usize {
        for (index, byte) in input.iter().enumerate() {
            let after_return = self.part.last() == Some(&b'\r');
            if (*byte == b'\n') != after_return || *byte == 0 {
                self.refuse(Denied::bad(
                    "bad_request",
                    "a line does not end in a carriage return and a line feed",
                ));
                return index + 1;
            }
            self.part.push(*byte);
            if self.part == b"\r\n" {
                // An empty line before a request is passed over (RFC 9112 §2.2).
                self.part.clear();
            } else if self.part.ends_with(b"\r\n\r\n") {
                self.end_head();
                return index + 1;
            } else if self.part.len() >= self.max_head {
                let message = format!("the head of the request has more than {} bytes", self.max_head);
                self.refuse(Denied::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "limit", message));
                return index + 1;
            }
        }
        input.len()
    }

    fn end_head(&mut self) {
        match head::check(&self.part, self.max_headers) {
            Ok(framing) => {
                self.ready.append(&mut self.part);
                self.state = match framing {
                    Framing::Length(0) => State::Head,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::ChunkSize,
                };
            }
            Err(problem) => self.refuse(problem),
        }
    }

    fn refuse(&mut self, problem: Denied) {
        self.watch.refuse(problem);
        self.part.clear();
        self.ready.extend_from_slice(STAND_IN);
        self.state = State::Refused;
    }

    /// A line of the framing of chunks: a size, the empty one after a chunk, a trailer.
    fn feed_line(&mut self, input: &[u8]) -> io::Result<usize> {
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
        let most = match self.state {
            State::Trailers(before) => MAX_TRAILERS.saturating_sub(before),
            _ => MAX_SIZE_LINE + 2,
        };
        for (index, byte) in input.iter().enumerate() {
            if (*byte == b'\n') != (self.part.last() == Some(&b'\r')) || self.part.len() >= most {
                return wrong("a chunked body is malformed");
            }
            self.part.push(*byte);
            if *byte != b'\n' {
                continue;
            }
            let line = self.part.strip_suffix(b"\r\n").unwrap_or_default();
            self.state = match (self.state, line) {
                (State::ChunkSize, size) => match parse_size(size) {
                    // Extensions are refused too: no program needs them, and parsers disagree about them.
                    None => return wrong("the size of a chunk is not a number"),
                    Some(0) => State::Trailers(0),
                    Some(size) => State::Chunk(size),
                },
                (State::ChunkEnd, b"") => State::ChunkSize,
                (State::Trailers(_), b"") => State::Head,
                (State::Trailers(before), _) => State::Trailers(before + self.part.len()),
                _ => return wrong("a chunk is longer than its size"),
            };
            self.ready.append(&mut self.part);
            return Ok(index + 1);
        }
        Ok(input.len())
    }
}

fn parse_size(line: &[u8]) -> Option<u64> {
    let digits = (1..=MAX_SIZE_LINE).contains(&line.len()) && line.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(line).ok().filter(|_| digits)?, 16).ok()
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.state == State::Head && this.watch.upgraded.load(Ordering::Acquire) {
                // What came early, before the answer that changed the protocol, is of the new one.
                this.ready.append(&mut this.part);
                this.state = State::Raw;
            }
            if this.taken < this.ready.len() {
                let rest = &this.ready[this.taken..];
                let count = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..count]);
                this.taken += count;
                if this.taken == this.ready.len() {
                    this.ready.clear();
                    this.taken = 0;
                }
                return Poll::Ready(Ok(()));
            }
            let mut scratch = ReadBuf::new(&mut this.scratch);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut scratch))?;
            let count = scratch.filled().len();
            if count == 0 {
                // After a refusal the answer is still to be sent; an end of input would cut it off.
                return if this.state == State::Refused { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            let scratch = std::mem::take(&mut this.scratch);
            let fed = this.feed(&scratch[..count]);
            this.scratch = scratch;
            fed?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
