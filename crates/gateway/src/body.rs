//! The body of a response on its way through: passed on piece by piece, and read for its usage as it goes.

use crate::forward::Answer;
use crate::store::End;
use crate::ticket::Ticket;
use crate::usage::Meter;
use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

/// What a client gets.
pub(crate) enum Reply {
    /// Something of ours.
    Local(Full<Bytes>),
    /// An upstream's response.
    Upstream(Box<Metered>),
}

/// Why a response broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the upstream broke off: {0}")]
    Upstream(#[from] reqwest::Error),
    #[error("the upstream was silent for {0:?}")]
    Silent(Duration),
}

/// From so much on a piece goes out as it is; smaller ones that are there together go out together.
const PIECE: usize = 16 << 10;

type Next = Option<Result<Frame<Bytes>, Broken>>;

pub(crate) struct Metered {
    inner: reqwest::Body,
    meter: Meter,
    /// Until the end is recorded.
    ticket: Option<Ticket>,
    /// Whether the body is a stream of events, which says itself when it is complete.
    says_end: bool,
    succeeded: bool,
    /// What `content-length` leaves.
    left: Option<u64>,
    idle: Duration,
    silence: Pin<Box<Sleep>>,
    waiting: bool,
    /// Small pieces that go out next.
    gathered: BytesMut,
    /// Whether to look once more for another before they do.
    looks: bool,
    /// What came behind them.
    behind: Option<Next>,
    _place: OwnedSemaphorePermit,
}

impl Metered {
    /// Takes over a response whose head was passed on.
    pub(crate) fn new(answer: Answer, content_type: &str, length: Option<u64>, succeeded: bool) -> Self {
        let inner: reqwest::Body = answer.response.into();
        let empty = inner.is_end_stream();
        let mut body = Self {
            meter: if succeeded { Meter::new(content_type) } else { Meter::none() },
            succeeded,
            inner,
            ticket: answer.ticket,
            says_end: succeeded && content_type.starts_with("text/event-stream"),
            left: length,
            idle: answer.idle,
            silence: Box::pin(tokio::time::sleep(answer.idle)),
            waiting: false,
            gathered: BytesMut::new(),
            looks: false,
            behind: None,
            _place: answer.place,
        };
        if empty {
            body.finish(End::Done);
        }
        body
    }

    fn piece(&mut self, piece: &[u8]) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        }
        let Some(ticket) = &mut self.ticket else { return };
        if self.meter.feed(piece) {
            ticket.seen(self.meter.model(), self.meter.tokens());
        } else {
            ticket.going_on(|| self.meter.so_far());
        }
        // Before the last piece goes out: its receiver may ask again at once, and must then find this counted.
        if self.meter.is_complete() || self.left == Some(0) || self.inner.is_end_stream() {
            self.finish(End::Done);
        }
    }

    fn finish(&mut self, end: End) {
        let Some(mut ticket) = self.ticket.take() else { return };
        self.meter.end();
        let tokens = self.meter.tokens();
        if end == End::Done && self.succeeded && tokens.total() == 0 {
            tracing::warn!("a response told no usage; its prompt is estimated");
        }
        ticket.seen(self.meter.model(), tokens);
        ticket.end(end, self.meter.guessed());
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Broken> {
        if !self.waiting {
            self.waiting = true;
            let idle = self.idle;
            self.silence.as_mut().reset(Instant::now() + idle);
        }
        self.silence.as_mut().poll(context).map(|()| Broken::Silent(self.idle))
    }

    /// Gathers small pieces: an upstream that sends each event in a chunk of its own would cost a write for each. The
    /// next is not there at once, for the upstream's connection is read by another task; that one gets a turn.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        if let Some(next) = self.behind.take() {
            return Poll::Ready(next);
        }
        loop {
            match self.poll_piece(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    let Ok(data) = frame.into_data() else { continue };
                    if self.gathered.is_empty() && data.len() >= PIECE {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    self.gathered.extend_from_slice(&data);
                    if self.gathered.len() >= PIECE {
                        return Poll::Ready(self.gathered());
                    }
                    self.looks = true;
                }
                Poll::Pending if self.gathered.is_empty() => return Poll::Pending,
                Poll::Pending if std::mem::take(&mut self.looks) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Ready(self.gathered()),
                Poll::Ready(next) if self.gathered.is_empty() => return Poll::Ready(next),
                Poll::Ready(next) => {
                    self.behind = Some(next);
                    return Poll::Ready(self.gathered());
                }
            }
        }
    }

    fn gathered(&mut self) -> Next {
        self.looks = false;
        Some(Ok(Frame::data(self.gathered.split().freeze())))
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let Poll::Ready(next) = Pin::new(&mut self.inner).poll_frame(context) else {
            return self.poll_silence(context).map(|broken| {
                self.finish(End::UpstreamCut);
                Some(Err(broken))
            });
        };
        self.waiting = false;
        match next {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    let piece = piece.clone();
                    self.piece(&piece);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.finish(End::UpstreamCut);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.finish(if self.says_end { End::UpstreamCut } else { End::Done });
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Metered {
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
            Self::Upstream(body) => {
                body.gathered.is_empty() && body.behind.is_none() && body.inner.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(body) => body.size_hint(),
            // What is gathered here still counts.
            Self::Upstream(body) if body.gathered.is_empty() => body.inner.size_hint(),
            Self::Upstream(_) => SizeHint::default(),
        }
    }
}
