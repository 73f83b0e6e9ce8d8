//! The socket of a connection to a guest, which may send descriptors along with its bytes (unix(7)).
//!
//! Closing the last descriptor of a socket can take as long as its owner wished (`SO_LINGER`, socket(7)). The thread that
//! serves everybody closes none: neither one that was read, nor one that lies unread when the connection ends.

use crate::descriptor::Descriptor;
use bytes::BytesMut;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown, recvmsg, shutdown,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use tokio::net::UnixStream;

/// Most descriptors in one message, as the kernel has it (`SCM_MAX_FD`); with room for all of them none is
/// closed in our name where closing must not take time.
const MOST_DESCRIPTORS: usize = 253;
/// Bytes asked for at a time where nobody wants them any more.
const UNREAD: usize = 4096;

/// What one read brought.
pub(crate) struct Received {
    pub(crate) bytes: usize,
    pub(crate) descriptors: Vec<Descriptor>,
    /// Whether there were more descriptors than fit.
    pub(crate) truncated: bool,
}

/// A stream socket whose other end is a guest.
#[derive(Debug)]
pub(crate) struct Socket(UnixStream);

impl Socket {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Reads at most `size` bytes, and descriptors, without waiting.
    pub(crate) fn receive(&self, into: &mut BytesMut, size: usize) -> io::Result<Received> {
        let start = into.len();
        into.resize(start + size, 0);
        let mut storage = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut storage);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = retry_on_intr(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut into[start..])], &mut control, flags)
        });
        into.truncate(start + received.as_ref().map_or(0, |received| received.bytes));
        let received = received?;
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

impl Drop for Socket {
    fn drop(&mut self) {
        // Nothing more can be sent then. What was sent and not read goes the way of what is read.
        let _ = shutdown(&self.0, Shutdown::Both);
        let mut unread = BytesMut::new();
        while self.receive(&mut unread, UNREAD).is_ok_and(|received| received.bytes > 0) {
            unread.clear();
        }
    }
}

impl Deref for Socket {
    type Target = UnixStream;

    fn deref(&self) -> &UnixStream {
        &self.0
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut UnixStream {
        &mut self.0
    }
}
