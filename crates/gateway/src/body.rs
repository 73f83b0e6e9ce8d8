//! The body of a response on its way through: passed on piece by piece, and read for its usage as it goes.

use crate::forward::Answer;
use crate::store::End;
use crate::ticket::Ticket;
use crate::usage::Meter;
use bytes::Bytes;
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
            tracing::warn!("a response told no usage; it counts as a request and nothing more");
        }
        ticket.seen(self.meter.model(), tokens);
        ticket.end(end);
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Broken> {
        if !self.waiting {
            self.waiting = true;
            let idle = self.idle;
            self.silence.as_mut().reset(Instant::now() + idle);
        }
        self.silence.as_mut().poll(context).map(|()| Broken::Silent(self.idle))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
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
            Self::Upstream(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(body) => body.size_hint(),
            Self::Upstream(body) => body.inner.size_hint(),
        }
    }
}
