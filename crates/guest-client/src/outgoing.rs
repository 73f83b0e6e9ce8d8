//! What goes to a guest on an attached connection.

use crate::convert::{size, stream_number};
use bytes::{Buf, Bytes};
use hostel_guest_protocol::{
    Ack, Empty, Frame, HostEvent, MAX_DATA, STDIN_WINDOW, StreamId, ToGuest, frame::encode_message,
};
use hostel_sandbox::process::{Input, OutputStream};
use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// More than this waiting here holds the sender back.
const MOST_WAITING: usize = 1 << 20;
/// Frames and parts of frames given to the kernel at once.
const MOST_SLICES: usize = 16;

/// Input that has its place in the order of standard input.
#[derive(Debug)]
enum Held {
    Data { offset: u64, data: Bytes },
    Close,
}

/// A queue in two parts: what may go, and standard input that the guest has no room for yet. Were that sent
/// nevertheless, it would hold up the acknowledgements behind it, and with them the output that the process has to
/// get rid of before it reads on.
#[derive(Debug)]
pub(crate) struct Outgoing {
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// End of the standard input that was sent.
    sent: u64,
    /// The guest passed standard input on up to here.
    accepted: u64,
    broken: bool,
}

impl Outgoing {
    pub(crate) fn new(stdin_offset: u64) -> Self {
        Self {
            ready: VecDeque::new(),
            ready_bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            sent: stdin_offset,
            accepted: stdin_offset,
            broken: false,
        }
    }

    pub(crate) fn push(&mut self, input: Input) {
        match input {
            Input::Stdin { data, .. } if data.is_empty() => {}
            Input::Stdin { offset, data } => {
                self.held_bytes += data.len();
                self.held.push_back(Held::Data { offset, data });
            }
            Input::CloseStdin => self.held.push_back(Held::Close),
            Input::Resize(new) => self.push_event(HostEvent::Resize(size(new))),
            Input::Signal(signal) => self.push_event(HostEvent::Signal(signal)),
            Input::Ack { stream, offset } => self.push_ack(stream, offset),
        }
        self.release();
    }

    pub(crate) fn push_ack(&mut self, stream: OutputStream, offset: u64) {
        self.push_event(HostEvent::Ack(Ack { stream: stream_number(stream), offset }));
    }

    pub(crate) fn push_detach(&mut self) {
        self.push_event(HostEvent::Detach(Empty {}));
    }

    pub(crate) fn push_return(&mut self) {
        self.push_event(HostEvent::Return(Empty {}));
    }

    fn push_event(&mut self, event: HostEvent) {
        self.push_ready(encode_message(&ToGuest { event: Some(event) }).into());
    }

    fn push_ready(&mut self, bytes: Bytes) {
        if !self.broken {
            self.ready_bytes += bytes.len();
            self.ready.push_back(bytes);
        }
    }

    /// The guest has standard input up to there.
    pub(crate) fn accepted(&mut self, offset: u64) {
        self.accepted = offset;
        self.release();
    }

    /// Lets standard input go as far as the window reaches. Input after a hole goes at once: to refuse it is for
    /// the guest.
    fn release(&mut self) {
        while let Some(held) = self.held.front_mut() {
            let Held::Data { offset, data } = held else {
                self.held.pop_front();
                self.push_event(HostEvent::CloseStdin(Empty {}));
                continue;
            };
            let is_hole = *offset > self.sent.max(self.accepted);
            let window = self.accepted.saturating_add(STDIN_WINDOW).saturating_sub(*offset);
            let room = if is_hole { MAX_DATA } else { usize::try_from(window).unwrap_or(MAX_DATA) };
            let length = data.len().min(room).min(MAX_DATA);
            if length == 0 {
                return;
            }
            let header = Frame::Data { stream: StreamId::Stdin, offset: *offset, length }.encode();
            let part = data.split_to(length);
            *offset = offset.saturating_add(length as u64);
            self.sent = self.sent.max(*offset);
            if data.is_empty() {
                self.held.pop_front();
            }
            self.held_bytes -= length;
            self.push_ready(Bytes::copy_from_slice(&header));
            self.push_ready(part);
        }
    }

    /// Whether more may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        self.ready_bytes + self.held_bytes < MOST_WAITING && self.held.len() + self.ready.len() < 1024
    }

    /// Whether what can be sent now is little.
    pub(crate) fn is_short(&self) -> bool {
        self.ready.len() < 64
    }

    /// Whether nothing can be sent now.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether nothing waits at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.held.is_empty()
    }

    /// Nobody takes standard input any more.
    pub(crate) fn drop_input(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    /// Takes what may go away from here.
    pub(crate) fn take_ready(&mut self) -> VecDeque<Bytes> {
        self.ready_bytes = 0;
        std::mem::take(&mut self.ready)
    }

    /// The other end reads no more: forgets everything, now and later. What it still has to say can be read.
    pub(crate) fn give_up(&mut self) {
        self.broken = true;
        self.ready.clear();
        self.ready_bytes = 0;
    }

    /// Whether the other end reads no more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Sends what may go. Cancellation loses nothing and repeats nothing.
    pub(crate) async fn flush(&mut self, stream: &UnixStream) -> io::Result<()> {
        while !self.ready.is_empty() {
            let ready = &self.ready;
            let sent = stream.async_io(Interest::WRITABLE, || send(stream, ready)).await?;
            self.advance(sent);
        }
        Ok(())
    }

    fn advance(&mut self, sent: usize) {
        self.ready_bytes = self.ready_bytes.saturating_sub(sent);
        let mut left = sent;
        while let Some(front) = self.ready.front_mut() {
            let part = left.min(front.len());
            front.advance(part);
            left -= part;
            if !front.is_empty() {
                break;
            }
            self.ready.pop_front();
        }
    }
}

fn send(stream: &UnixStream, ready: &VecDeque<Bytes>) -> io::Result<usize> {
    let slices: Vec<IoSlice<'_>> = ready.iter().take(MOST_SLICES).map(|bytes| IoSlice::new(bytes)).collect();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(retry_on_intr(|| sendmsg(stream, &slices, &mut SendAncillaryBuffer::default(), flags))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdin(offset: u64, length: usize) -> Input {
        Input::Stdin { offset, data: vec![7; length].into() }
    }

    #[test]
    fn no_more_input_is_under_way_than_a_guest_has_room_for() {
        let mut outgoing = Outgoing::new(100);
        outgoing.push(stdin(100, 1 << 20));
        outgoing.push(Input::CloseStdin);
        assert_eq!(outgoing.sent, 100 + STDIN_WINDOW);
        assert!(!outgoing.has_room());
        outgoing.push(Input::Signal(2));
        let last = outgoing.ready.back().unwrap();
        assert_eq!(
            last,
            &encode_message(&ToGuest { event: Some(HostEvent::Signal(2)) }),
            "signals go past it"
        );
        for _ in 0..10 {
            outgoing.accepted(outgoing.sent);
        }
        assert_eq!(outgoing.sent, 100 + (1 << 20));
        assert!(outgoing.held.is_empty());
    }

    #[test]
    fn holes_are_left_for_the_guest_to_refuse() {
        let mut outgoing = Outgoing::new(0);
        outgoing.push(stdin(1 << 40, 10));
        outgoing.push(stdin(u64::MAX, 10));
        assert!(outgoing.held.is_empty());
    }

    #[test]
    fn what_was_sent_is_forgotten_byte_by_byte() {
        let mut outgoing = Outgoing::new(0);
        outgoing.push(stdin(0, 100));
        outgoing.push(Input::Signal(9));
        while !outgoing.is_empty() {
            outgoing.advance(1);
        }
        assert_eq!(outgoing.ready_bytes, 0);
    }
}
