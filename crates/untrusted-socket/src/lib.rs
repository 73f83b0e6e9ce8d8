//! A unix connection whose other end is not trusted.
//!
//! Whoever sends may send descriptors along (unix(7)). Whoever gets one, or throws it away unseen, may be the last who
//! has it, and closing it then takes as long as its owner wished (`SO_LINGER`, socket(7)). That must not be a thread that
//! serves everybody: neither for those that were read, nor for those that lie unread when the connection ends.
#![forbid(unsafe_code)]

mod descriptor;
mod stream;
#[cfg(test)]
mod tests;

pub use descriptor::Descriptor;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown, recvmsg, shutdown,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Deref;
use tokio::net::UnixStream;

/// Most descriptors in one message, as the kernel has it (`SCM_MAX_FD`); with room for all of them none is
/// closed in our name where closing must not take time.
const MOST_DESCRIPTORS: usize = 253;
/// Bytes asked for at a time where nobody wants them any more.
const UNREAD: usize = 4096;

/// What one read brought.
#[derive(Debug)]
pub struct Received {
    /// How many bytes. 0 is the end, where any were asked for.
    pub bytes: usize,
    /// What came beside them, in order.
    pub descriptors: Vec<Descriptor>,
    /// Whether there were more descriptors than fit, or than this process may have.
    pub truncated: bool,
}

/// A stream socket whose other end is not trusted. Must be dropped within a tokio runtime.
///
/// As [`tokio::io::AsyncRead`] it gives bytes alone.
#[derive(Debug)]
pub struct UntrustedSocket(UnixStream);

impl UntrustedSocket {
    /// Takes a connection.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// As recvmsg(2) says; [`io::ErrorKind::WouldBlock`] where nothing is there.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<Received> {
        let mut storage = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut storage);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received =
            retry_on_intr(|| recvmsg(&self.0, &mut [IoSliceMut::new(&mut *into)], &mut control, flags))?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights.map(Descriptor::new));
            }
        }
        let truncated = received.flags.contains(ReturnFlags::CTRUNC);
        Ok(Received { bytes: received.bytes, descriptors, truncated })
    }
}

impl Drop for UntrustedSocket {
    fn drop(&mut self) {
        // Nothing more can be sent then. What was sent and not read goes the way of what is read.
        let _ = shutdown(&self.0, Shutdown::Both);
        let mut unread = [0; UNREAD];
        while self.receive(&mut unread).is_ok_and(|received| received.bytes > 0) {}
    }
}

impl Deref for UntrustedSocket {
    type Target = UnixStream;

    fn deref(&self) -> &UnixStream {
        &self.0
    }
}
