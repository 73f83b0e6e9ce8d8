//! Bodies on their way through: bounded in length and in pauses, and cleaned where an answer may hold a secret.

use super::scrub::{Patterns, Scrubber};
use super::upstream::Lease;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// A body that is passed on frame by frame.
pub(super) struct Relay {
    inner: Incoming,
    left: u64,
    idle: Duration,
    pause: Pin<Box<Sleep>>,
    trailers: bool,
    patterns: Option<Arc<Patterns>>,
    scrubber: Option<Scrubber>,
    /// Frames that come behind the last data: what was held back goes before the trailers.
    kept: Option<Frame<Bytes>>,
    ended: bool,
    /// The connection that the body comes from: given back at the body's end, closed if it is not reached.
    lease: Option<Lease>,
}

impl Relay {
    /// A request's body. Its trailers are dropped: nothing decides about them.
    pub(super) fn request(inner: Incoming, most: u64, idle: Duration) -> Self {
        Self {
            inner,
            left: most,
            idle,
            pause: Box::pin(sleep(idle)),
            trailers: false,
            patterns: None,
            scrubber: None,
            kept: None,
            ended: false,
            lease: None,
        }
    }

    /// An answer's body, with the secrets taken out.
    pub(super) fn answer(
        inner: Incoming,
        most: u64,
        idle: Duration,
        patterns: Option<Arc<Patterns>>,
        lease: Lease,
    ) -> Self {
        let scrubber = patterns.clone().map(Scrubber::new);
        let mut relay = Self { patterns, scrubber, trailers: true, ..Self::request(inner, most, idle) };
        if relay.is_end_stream() {
            lease.give_back();
        } else {
            relay.lease = Some(lease);
        }
        relay
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// What a frame becomes; `None` where nothing of it can be passed on yet.
    fn pass(&mut self, frame: Frame<Bytes>) -> io::Result<Option<Frame<Bytes>>> {
        let frame = match frame.into_data() {
            Ok(data) => {
                self.left = self.left.checked_sub(data.len() as u64).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::FileTooLarge, "a body is longer than the limit")
                })?;
                let data = match &mut self.scrubber {
                    Some(scrubber) => scrubber.push(data, false),
                    None => data,
                };
                return Ok((!data.is_empty()).then(|| Frame::data(data)));
            }
            Err(frame) => frame,
        };
        let Ok(mut trailers) = frame.into_trailers() else { return Ok(None) };
        if !self.trailers {
            return Ok(None);
        }
        if let Some(patterns) = &self.patterns {
            clean(&mut trailers, patterns);
        }
        let trailers = Frame::trailers(trailers);
        match self.rest() {
            Some(rest) => {
                self.kept = Some(trailers);
                Ok(Some(rest))
            }
            None => Ok(Some(trailers)),
        }
    }

    /// What was held back and is no secret after all.
    fn rest(&mut self) -> Option<Frame<Bytes>> {
        let rest = self.scrubber.take()?.push(Bytes::new(), true);
        (!rest.is_empty()).then(|| Frame::data(rest))
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(frame) = this.kept.take() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
                ready!(this.pause.as_mut().poll(cx));
                let error = io::Error::new(io::ErrorKind::TimedOut, "a body paused for too long");
                return Poll::Ready(Some(Err(error)));
            };
            this.pause.as_mut().reset(Instant::now() + this.idle);
            match frame {
                None => {
                    this.end();
                    if let Some(rest) = this.rest() {
                        return Poll::Ready(Some(Ok(rest)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                Some(Ok(frame)) => match this.pass(frame) {
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let all_read = self.scrubber.is_none() && self.inner.is_end_stream();
        self.kept.is_none() && (self.ended || all_read)
    }

    fn size_hint(&self) -> SizeHint {
        // Taking secrets out changes the length.
        if self.scrubber.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}

/// Takes secrets out of headers.
pub(super) fn clean(headers: &mut HeaderMap, patterns: &Arc<Patterns>) {
    for value in headers.values_mut() {
        if let Some(cleaned) = patterns.clean(value.as_bytes())
            && let Ok(cleaned) = http::HeaderValue::from_bytes(&cleaned)
        {
            *value = cleaned;
        }
    }
}
