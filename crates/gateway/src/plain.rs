//! A unix connection of a program in a sandbox, of which bytes alone are taken.
//!
//! Programs may send descriptors along (unix(7)). Whoever gets one, or throws it away unseen, may be the last who has
//! it, and closing it then takes as long as its owner wished (`SO_LINGER`, socket(7)): that must not be the thread that
//! serves everybody.

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, Shutdown, recvmsg, shutdown, sockopt,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Most descriptors in one message, as the kernel has it (`SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;

/// A connection whose descriptors go nowhere.
#[derive(Debug)]
pub(crate) struct Plain(Option<UnixStream>);

impl Plain {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(Some(stream))
    }

    fn stream(&mut self) -> io::Result<&mut UnixStream> {
        self.0.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let Some(Ok(stream)) = self.0.take().map(UnixStream::into_std) else { return };
        close_elsewhere(move || {
            // Nothing more can be sent then, and what was sent and not read is not closed with its owner's wishes.
            let _ = shutdown(&stream, Shutdown::Both);
            let mut unread = [0; 4096];
            while receive(&stream, &mut unread).is_ok_and(|(bytes, _)| bytes > 0) {}
        });
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.stream()?;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let room = into.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || receive(&*stream, room)) {
                Ok((bytes, descriptors)) => {
                    if !descriptors.is_empty() {
                        close_elsewhere(move || drop(descriptors));
                    }
                    into.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.stream()?).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.stream()?).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_shutdown(cx)
    }
}

/// Closes where that may take time.
fn close_elsewhere(close: impl FnOnce() + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn_blocking(close);
    }
}

/// Reads what is there, and takes what came along, which nobody waits for when it is closed.
fn receive(stream: impl AsFd, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut storage = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut storage);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received =
        retry_on_intr(|| recvmsg(&stream, &mut [IoSliceMut::new(&mut *into)], &mut control, flags))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    for descriptor in &descriptors {
        // Its owner may be setting it again: that is why it is closed elsewhere all the same.
        let _ = sockopt::set_socket_linger(descriptor, None);
    }
    Ok((received.bytes, descriptors))
}
