//! The body of a response on its way through. A task reads it for its usage and gathers what is there together; the
//! client's connection gets it in large pieces. So an upstream that sends each event in a chunk of its own costs one
//! write for many, and the task that writes is woken once for them. On the way out the upstream's key is masked.

use crate::forward::Answer;
use crate::scrub::Scrubber;
use crate::store::End;
use crate::ticket::Ticket;
use crate::usage::Meter;
use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, Sleep};

/// From so much on a piece goes out as it is; smaller ones that are there together go out together.
const PIECE: usize = 64 << 10;
/// Room for what is gathered: the last that makes it a piece fits too, mostly.
const ROOM: usize = PIECE + (16 << 10);
/// Pieces that may wait for a client.
const WAITING: usize = 2;

/// What a client gets.
pub(crate) enum Reply {
    /// Something of ours.
    Local(Full<Bytes>),
    /// An upstream's response.
    Upstream(Passed),
}

/// Why a response broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the upstream broke off: {0}")]
    Upstream(#[from] reqwest::Error),
    #[error("the upstream was silent for {0:?}")]
    Silent(Duration),
    #[error("the gateway ended")]
    Ended,
}

/// A piece, or nothing at the proper end.
type Step = Result<Option<Bytes>, Broken>;

/// What comes of a response's body to its client. Dropping it tells the task that the client went away.
pub(crate) struct Passed {
    steps: mpsc::Receiver<Step>,
    over: bool,
}

impl Passed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // A task that ended without a word was ended in the middle: that is no proper end.
        let step = ready!(self.steps.poll_recv(context)).unwrap_or(Err(Broken::Ended));
        self.over = !matches!(step, Ok(Some(_)));
        Poll::Ready(step.map(|piece| piece.map(Frame::data)).transpose())
    }
}

/// What comes next from an upstream.
enum Next {
    Piece(Bytes),
    End,
    Broken(Broken),
}

impl Next {
    /// `None` for what is passed over: trailers, which no client of models reads, and pieces with nothing in them.
    fn of(frame: Option<Result<Frame<Bytes>, reqwest::Error>>) -> Option<Self> {
        match frame {
            Some(Ok(frame)) => frame.into_data().ok().filter(|data| !data.is_empty()).map(Self::Piece),
            Some(Err(error)) => Some(Self::Broken(error.into())),
            None => Some(Self::End),
        }
    }
}

/// Reads a response's body. Dropped before the end, it records that the client went away.
pub(crate) struct Pump {
    inner: reqwest::Body,
    meter: Meter,
    scrubber: Scrubber,
    /// Until the end is recorded.
    ticket: Option<Ticket>,
    /// Whether the body is a stream of events, which says itself when it is complete.
    says_end: bool,
    succeeded: bool,
    /// What `content-length` leaves.
    left: Option<u64>,
    idle: Duration,
    /// Fires no later than the upstream was silent for too long; looks then whether it was.
    silence: Pin<Box<Sleep>>,
    /// Where small pieces are gathered.
    room: BytesMut,
    /// Until the upstream has sent all.
    place: Option<OwnedSemaphorePermit>,
    steps: mpsc::Sender<Step>,
}

impl Pump {
    /// Takes over a response whose head was passed on. There is nothing to do for an empty one.
    pub(crate) fn new(
        answer: Answer,
        content_type: &str,
        length: Option<u64>,
        succeeded: bool,
    ) -> (Reply, Option<Self>) {
        let inner: reqwest::Body = answer.response.into();
        let empty = inner.is_end_stream();
        let (steps, received) = mpsc::channel(WAITING);
        let mut pump = Self {
            meter: if succeeded { Meter::new(content_type) } else { Meter::none() },
            scrubber: Scrubber::new(answer.pattern),
            succeeded,
            inner,
            ticket: answer.ticket,
            says_end: succeeded && content_type.starts_with("text/event-stream"),
            left: length,
            idle: answer.idle,
            silence: Box::pin(tokio::time::sleep(answer.idle)),
            room: BytesMut::new(),
            place: answer.place,
            steps,
        };
        if empty {
            pump.finish(End::Done);
            return (Reply::Local(Full::default()), None);
        }
        (Reply::Upstream(Passed { steps: received, over: false }), Some(pump))
    }

    /// Passes on until the end of either side.
    pub(crate) async fn run(mut self) {
        let mut behind = None;
        loop {
            let next = match behind.take() {
                Some(next) => next,
                None => match self.next().await {
                    Some(next) => next,
                    None => return,
                },
            };
            let last = match next {
                Next::Piece(first) => {
                    let (piece, after) = self.gather(first).await;
                    self.read(&piece, after.as_ref());
                    let clean = self.scrubber.push(piece);
                    if !clean.is_empty() && self.steps.send(Ok(Some(clean))).await.is_err() {
                        return;
                    }
                    behind = after;
                    self.tell().await;
                    continue;
                }
                Next::End => Ok(None),
                Next::Broken(broken) => Err(broken),
            };
            self.end(last.is_err());
            let (steps, rest) = (self.steps.clone(), self.scrubber.rest());
            drop(self);
            // What broke off in what may be the key ends before it.
            if last.is_ok() && !rest.is_empty() && steps.send(Ok(Some(rest))).await.is_err() {
                return;
            }
            // A client that is gone by now misses nothing.
            let _ = steps.send(last).await;
            return;
        }
    }

    /// Waits for the next piece or the end; `None` where the client is gone.
    async fn next(&mut self) -> Option<Next> {
        let since = Instant::now();
        loop {
            tokio::select! {
                biased;
                frame = poll_fn(|context| Pin::new(&mut self.inner).poll_frame(context)) => {
                    if let Some(next) = Next::of(frame) {
                        return Some(next);
                    }
                }
                () = self.steps.closed() => return None,
                () = self.silence.as_mut() => {
                    // Setting it anew for each piece would cost more than looking now.
                    let until = since + self.idle;
                    if Instant::now() >= until {
                        return Some(Next::Broken(Broken::Silent(self.idle)));
                    }
                    self.silence.as_mut().reset(until);
                }
            }
        }
    }

    /// Gathers small pieces; with what came behind them. The next is not there at once, for the upstream's connection is
    /// read by another task: that one gets a turn after each, and nothing is waited for.
    async fn gather(&mut self, first: Bytes) -> (Bytes, Option<Next>) {
        let (mut length, mut single, mut looked) = (first.len(), Some(first), false);
        let mut behind = None;
        while length < PIECE && !self.inner.is_end_stream() {
            match poll_fn(|context| Poll::Ready(Pin::new(&mut self.inner).poll_frame(context))).await {
                Poll::Pending if looked => break,
                Poll::Pending => {
                    looked = true;
                    tokio::task::yield_now().await;
                }
                Poll::Ready(frame) => match Next::of(frame) {
                    Some(Next::Piece(data)) => {
                        length += data.len();
                        if self.room.capacity() < length {
                            self.room.reserve(ROOM);
                        }
                        if let Some(first) = single.take() {
                            self.room.extend_from_slice(&first);
                        }
                        self.room.extend_from_slice(&data);
                        looked = false;
                    }
                    Some(end) => {
                        behind = Some(end);
                        break;
                    }
                    None => {}
                },
            }
        }
        (single.unwrap_or_else(|| self.room.split().freeze()), behind)
    }

    /// Reads a piece before it goes out: its receiver may ask again at once, and must then find this counted.
    fn read(&mut self, piece: &[u8], behind: Option<&Next>) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        }
        if let Some(ticket) = &mut self.ticket {
            if self.meter.feed(piece) {
                ticket.seen(self.meter.model(), self.meter.used().clone());
            } else {
                ticket.going_on(|| self.meter.so_far());
            }
        }
        let has_all = self.left == Some(0) || self.inner.is_end_stream();
        if self.meter.is_complete() || has_all {
            self.finish(End::Done);
        }
        if has_all {
            self.place = None;
        }
        if let Some(next) = behind {
            self.end(matches!(next, Next::Broken(_)));
        }
    }

    /// Has what was seen first written, once the client's connection had its turn to write.
    async fn tell(&mut self) {
        if self.ticket.as_ref().is_some_and(Ticket::has_news) {
            tokio::task::yield_now().await;
            if let Some(ticket) = &mut self.ticket {
                ticket.tell();
            }
        }
    }

    /// Nothing more comes from the upstream.
    fn end(&mut self, broken: bool) {
        self.finish(if broken || self.says_end { End::UpstreamCut } else { End::Done });
        self.place = None;
    }

    /// Only the first counts.
    fn finish(&mut self, end: End) {
        let Some(mut ticket) = self.ticket.take() else { return };
        self.meter.end();
        let used = self.meter.used().clone();
        if end == End::Done && self.succeeded && used.tokens.total() == 0 {
            tracing::warn!("a response told no usage; its prompt is estimated");
        }
        ticket.seen(self.meter.model(), used);
        ticket.end(end, self.meter.guessed());
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.finish(End::ClientGone);
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Local(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Upstream(body) => body.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(body) => body.is_end_stream(),
            Self::Upstream(body) => body.over,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(body) => body.size_hint(),
            // Where the upstream told a length, its header does.
            Self::Upstream(_) => SizeHint::default(),
        }
    }
}
