//! Bodies: of requests, with limits, and of answers, with the pace and the end that a step asks for.

use crate::api_error::ApiError;
use crate::reply::Events;
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use std::convert::Infallible;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How long a request's body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(60);
/// So much beyond the limit is read and thrown away, so that the client gets to read why.
const DISCARDED: usize = 64 << 20;
/// How long silence lasts at most.
const MAX_HANG: Duration = Duration::from_secs(3600);
/// What was written gets out before the connection is cut.
const BEFORE_CUT: Duration = Duration::from_millis(10);

/// How a stream ends. Numbers are of events.
#[derive(Debug)]
pub(crate) enum End {
    Complete,
    Cut(u64),
    Hang(u64),
    /// With this event in place of the rest.
    Error(u64, Bytes),
}

/// The connection that an answer goes to.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Cuts it.
    pub(crate) cut: CancellationToken,
    /// Says that the endpoint stops.
    pub(crate) stopping: CancellationToken,
}

impl Line {
    /// Waits, shorter when the endpoint stops.
    pub(crate) async fn wait(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stopping.cancelled() => {}
        }
    }

    /// Cuts the connection. Never returns: with the connection goes whoever waits here.
    pub(crate) async fn cut(&self) -> Infallible {
        tokio::time::sleep(BEFORE_CUT).await;
        self.cut.cancel();
        std::future::pending().await
    }

    /// Says nothing more for a long time.
    pub(crate) async fn hang(&self) -> Infallible {
        self.wait(MAX_HANG).await;
        self.cut().await
    }
}

/// A body in one piece.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body of events, one frame each, with `delay` before every delta.
pub(crate) fn stream(events: Events, end: End, delay: Duration, line: Line) -> Body {
    let player = Player { events, end, delay, line, sent: 0, done: false };
    let frames = futures::stream::unfold(player, |mut player| async {
        let frame = player.next().await?;
        Some((Ok(Frame::data(frame)), player))
    });
    StreamBody::new(frames).boxed_unsync()
}

struct Player {
    events: Events,
    end: End,
    delay: Duration,
    line: Line,
    sent: u64,
    done: bool,
}

impl Player {
    async fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let event = self.events.next()?;
        // A fault comes before the answer is complete, however late it was asked for.
        let due = |after: u64| self.sent >= after || event.is_last;
        match &self.end {
            End::Cut(after) if due(*after) => match self.line.cut().await {},
            End::Hang(after) if due(*after) => match self.line.hang().await {},
            End::Error(after, frame) if due(*after) => {
                self.done = true;
                return Some(frame.clone());
            }
            _ => {}
        }
        if event.is_delta && !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        self.sent += 1;
        Some(event.frame)
    }
}

/// Reads a request's body of at most `limit` bytes.
///
/// # Errors
/// 413 when it is longer; 400 when it breaks off or takes too long.
pub(crate) async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, ApiError> {
    let reading = async {
        let (mut read, mut total) = (BytesMut::new(), 0_usize);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::invalid(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            total = total.saturating_add(data.len());
            if total <= limit {
                read.extend_from_slice(&data);
            } else if total - limit > DISCARDED {
                break;
            } else {
                read = BytesMut::new();
            }
        }
        if total > limit { Err(ApiError::of_status(413, None)) } else { Ok(read.freeze()) }
    };
    let late = || Err(ApiError::invalid("the body did not arrive in time"));
    tokio::time::timeout(BODY_DEADLINE, reading).await.unwrap_or_else(|_| late())
}
