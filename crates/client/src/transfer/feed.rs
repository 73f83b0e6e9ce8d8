//! Sending a local source of bytes as a stream of messages.

use crate::convert;
use crate::error::{Error, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Response, Status};

/// Bytes in one message.
const CHUNK: usize = 256 << 10;
/// Messages under way between the source and the connection.
const QUEUE: usize = 4;

/// How the messages of an upload look.
pub(crate) struct Feed<M> {
    /// The first one, which says what follows.
    pub(crate) open: M,
    /// One with bytes.
    pub(crate) data: fn(Bytes) -> M,
}

/// The messages of an upload: their end is one that was sent, too. Who gives up just drops the other half, and nobody may
/// take that for the end: there is none then, and the call is reset.
pub(crate) struct Messages<M>(mpsc::Receiver<Option<M>>);

impl<M> Stream for Messages<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<M>> {
        match ready!(self.0.poll_recv(cx)) {
            Some(message) => Poll::Ready(message),
            None => Poll::Pending,
        }
    }
}

/// Sends all that `source` yields. To the daemon the end of the stream means that everything was sent, so when the
/// source fails half way the stream must not just end: a second `open` is sent, which the daemon has to refuse, and
/// nothing is kept.
pub(crate) async fn feed<M, A, F>(
    mut source: impl AsyncRead + Send + Unpin,
    frames: Feed<M>,
    call: impl FnOnce(Messages<M>) -> F,
) -> Result<A>
where
    M: Clone,
    F: Future<Output = Result<Response<A>, Status>>,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    let call = call(Messages(receiver));
    let Feed { open, data } = frames;
    let pump = async move {
        // A send that fails means that the call is over; its answer says why.
        let _ = sender.send(Some(open.clone())).await;
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            match source.read_buf(&mut (&mut buffer).limit(CHUNK)).await {
                Ok(0) => break,
                Ok(_) if sender.send(Some(data(buffer.split().freeze()))).await.is_ok() => {}
                Ok(_) => return None,
                Err(error) => {
                    let _ = sender.send(Some(open)).await;
                    let _ = sender.send(None).await;
                    return Some(error);
                }
            }
        }
        let _ = sender.send(None).await;
        None
    };
    tokio::pin!(call, pump);
    let failed = tokio::select! {
        answer = &mut call => return answer.map(Response::into_inner).map_err(convert::error),
        failed = &mut pump => failed,
    };
    let answer = call.await;
    if let Some(source) = failed {
        return Err(Error::Local { operation: "read", path: "the source".into(), source });
    }
    answer.map(Response::into_inner).map_err(convert::error)
}
