//! Bytes from a backend to a client, in pieces that are small enough, without copying.

use crate::error::Error;
use crate::sandboxes::Lease;
use bytes::Bytes;
use futures::Stream;
use hostel_sandbox::file::ByteStream;
use hostel_sandbox::process::MAX_CHUNK;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// Pieces of at most [`MAX_CHUNK`] bytes, until the end, an error, or the daemon's shutdown.
pub(super) struct Pieces {
    source: ByteStream,
    rest: Bytes,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
    _lease: Lease,
}

impl Pieces {
    pub(super) fn new(source: ByteStream, lease: Lease, stop: CancellationToken) -> Self {
        let stop = Box::pin(stop.cancelled_owned());
        Self { source, rest: Bytes::new(), stop, ended: false, _lease: lease }
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        while this.rest.is_empty() {
            match this.source.poll_recv(cx) {
                Poll::Ready(Some(Ok(bytes))) => this.rest = bytes,
                Poll::Ready(Some(Err(error))) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(Error::from(error).into())));
                }
                Poll::Ready(None) => {
                    this.ended = true;
                    return Poll::Ready(None);
                }
                Poll::Pending if this.stop.as_mut().poll(cx).is_ready() => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(Error::Draining.into())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let length = this.rest.len().min(MAX_CHUNK);
        Poll::Ready(Some(Ok(this.rest.split_to(length))))
    }
}
