//! What arrives on a connection: bytes cut into messages and data, and descriptors.

use crate::failure::Fault;
use bytes::{Buf, Bytes, BytesMut};
use hostel_guest_protocol::{Frame, HEADER_LEN, StreamId};
use hostel_untrusted_socket::{Descriptor, Received, UntrustedSocket};
use std::io;
use tokio::io::Interest;

/// Bytes asked for at first, and of connections where little comes.
const LEAST_READ: usize = 16 << 10;
/// Bytes asked for where much comes.
const MOST_READ: usize = 512 << 10;

/// One thing out of what arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A whole message.
    Message(Bytes),
    /// Data, a whole frame or the next part of one.
    Data {
        /// Whose.
        stream: StreamId,
        /// Position of the first byte.
        offset: u64,
        /// At least one byte.
        data: Bytes,
    },
}

/// The part of a data frame that is still to come.
#[derive(Debug)]
struct Rest {
    stream: StreamId,
    offset: u64,
    left: usize,
}

/// What arrived and was not taken yet. It holds at most one message and what one read brought.
#[derive(Debug)]
pub(crate) struct Inbox {
    arrived: BytesMut,
    read_size: usize,
    rest: Option<Rest>,
    descriptor: Option<Descriptor>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { arrived: BytesMut::new(), read_size: LEAST_READ, rest: None, descriptor: None }
    }
}

impl Inbox {
    /// Waits until something arrived. Cancellation loses nothing.
    pub(crate) async fn fill(&mut self, socket: &UntrustedSocket) -> Result<(), Fault> {
        let (arrived, size) = (&mut self.arrived, self.read_size);
        let received = socket.async_io(Interest::READABLE, || receive(socket, arrived, size)).await;
        self.note(received.map_err(|error| Fault::Gone(format!("the connection broke: {error}")))?)
    }

    /// The same for a connection that carries nothing but streams: much may come, and no descriptors. Those that do
    /// come are taken all the same, and closed elsewhere: the kernel would close them in this thread, which can take as
    /// long as their owner wished.
    pub(crate) async fn fill_with_data(&mut self, socket: &UntrustedSocket) -> Result<(), Fault> {
        let (arrived, size) = (&mut self.arrived, self.read_size);
        let received = socket.async_io(Interest::READABLE, || receive(socket, arrived, size)).await;
        let received = received.map_err(|error| Fault::Gone(format!("the connection broke: {error}")))?;
        self.note(Received { bytes: received.bytes, descriptors: Vec::new(), truncated: false })
    }

    /// Whether nothing arrived although nothing was asked, and the other end is still there.
    pub(crate) fn is_quiet(&mut self, socket: &UntrustedSocket) -> bool {
        let arrived = &mut self.arrived;
        // One byte is enough to know.
        let received = socket.try_io(Interest::READABLE, || receive(socket, arrived, 1));
        self.is_empty() && received.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn note(&mut self, received: Received) -> Result<(), Fault> {
        let mut descriptors = received.descriptors;
        if received.truncated || descriptors.len() + usize::from(self.descriptor.is_some()) > 1 {
            return Err(Fault::Rule("more descriptors than one".to_owned()));
        }
        self.descriptor = self.descriptor.take().or_else(|| descriptors.pop());
        if received.bytes == 0 {
            return Err(Fault::Gone("it closed the connection".to_owned()));
        }
        if received.bytes >= self.read_size {
            self.read_size = (self.read_size * 2).min(MOST_READ);
        } else if received.bytes < self.read_size / 8 {
            self.read_size = (self.read_size / 2).max(LEAST_READ);
        }
        Ok(())
    }

    /// Whether everything that arrived was taken, descriptors included.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.rest.is_none() && self.descriptor.is_none()
    }

    /// The descriptor that came, if one did.
    pub(crate) fn take_descriptor(&mut self) -> Option<Descriptor> {
        self.descriptor.take()
    }

    /// Gives memory back where it is more than is likely to be needed soon.
    pub(crate) fn release(&mut self) {
        if self.arrived.is_empty() && self.arrived.capacity() > 2 * self.read_size {
            self.arrived = BytesMut::new();
        }
    }

    /// Gives all memory back, if nothing is in it.
    pub(crate) fn release_all(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// The next piece, if it is there. Messages longer than `most_message` bytes break the rules.
    pub(crate) fn next_piece(&mut self, most_message: usize) -> Result<Option<Piece>, Fault> {
        if let Some(rest) = &mut self.rest {
            let count = rest.left.min(self.arrived.len());
            if count == 0 {
                return Ok(None);
            }
            let data = self.arrived.split_to(count).freeze();
            let piece = Piece::Data { stream: rest.stream, offset: rest.offset, data };
            rest.offset += count as u64;
            rest.left -= count;
            if rest.left == 0 {
                self.rest = None;
            }
            return Ok(Some(piece));
        }
        let Some(header) = self.arrived.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        match Frame::decode(header).map_err(|error| Fault::Rule(error.to_string()))? {
            Frame::Message { length } if length > most_message => {
                Err(Fault::Rule(format!("a message of {length} bytes, at most {most_message} belong here")))
            }
            Frame::Message { length } if self.arrived.len() - HEADER_LEN < length => Ok(None),
            Frame::Message { length } => {
                self.arrived.advance(HEADER_LEN);
                Ok(Some(Piece::Message(self.arrived.split_to(length).freeze())))
            }
            Frame::Data { length: 0, .. } => Err(Fault::Rule("data without a byte".to_owned())),
            Frame::Data { stream, offset, length } => {
                self.arrived.advance(HEADER_LEN);
                self.rest = Some(Rest { stream, offset, left: length });
                self.next_piece(most_message)
            }
        }
    }
}

/// Reads at most `size` bytes behind those that arrived, and descriptors, without waiting.
fn receive(socket: &UntrustedSocket, arrived: &mut BytesMut, size: usize) -> io::Result<Received> {
    let start = arrived.len();
    arrived.resize(start + size, 0);
    let received = socket.receive(&mut arrived[start..]);
    arrived.truncate(start + received.as_ref().map_or(0, |received| received.bytes));
    received
}
