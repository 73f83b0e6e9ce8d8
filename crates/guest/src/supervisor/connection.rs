//! One connection of the host: what came in, what has to go out.

use super::files::write::PendingWrite;
use super::output::Place;
use super::process::Process;
use super::spill::SpillSpace;
use super::watch::Watch;
use super::worker::Worker;
use hostel_guest_protocol::{
    Decoder, Empty, Frame, FromGuest, Gap, GuestEvent, HEADER_LEN, MAX_DATA, StreamId, frame,
};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Most bytes written to one connection before others have their turn.
const TURN: usize = 1 << 20;
/// More than this waiting to be sent stops whatever produces it.
pub(crate) const MOST_WAITING: usize = 256 << 10;

/// What a connection is for at the moment.
#[derive(Debug)]
pub(crate) enum Mode {
    /// It has to say hello.
    Handshake,
    /// It may ask.
    Idle,
    /// It waits for the end of a process.
    Waiting(u64),
    /// Something is done for it in a process of its own.
    Working(Worker),
    /// It is attached to a process.
    Attached(Attached),
    /// It is told about files.
    Watching(Box<Watch>),
}

/// A connection's side of an attachment.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) process: u64,
    /// Next byte to send of each stream that it reads.
    pub(crate) next: [u64; 2],
    /// The process dies with the connection.
    pub(crate) kill: bool,
    /// Input accepted but not yet said so.
    pub(crate) accepted: Option<u64>,
    /// Everything was said, the end included.
    pub(crate) exited: bool,
    /// A frame of which the header, or some data, is still to go.
    partial: Option<Partial>,
}

impl Attached {
    pub(crate) fn new(process: u64, next: [u64; 2], kill: bool) -> Self {
        Self { process, next, kill, accepted: None, exited: false, partial: None }
    }
}

#[derive(Debug)]
struct Partial {
    header: [u8; HEADER_LEN],
    sent: usize,
    stream: usize,
    left: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    sent: usize,
    descriptor: Option<OwnedFd>,
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing is left to send.
    All,
    /// The host has to read first, or others to be served.
    Blocked,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) decoder: Decoder,
    pub(crate) mode: Mode,
    pub(crate) events: super::event_loop::EventFlags,
    /// When it must have said hello.
    pub(crate) handshake_until: Option<std::time::Instant>,
    /// The host sends no more.
    pub(crate) input_ended: bool,
    /// Close once everything is sent.
    pub(crate) closing: bool,
    /// Sending failed; only what came before may still be read.
    pub(crate) broken: bool,
    pub(crate) write: Option<PendingWrite>,
    /// The worker reads what the host sends.
    pub(crate) fed: bool,
    /// Until when what there is to say waits for the first that the attached process has to say.
    pub(crate) held_until: Option<std::time::Instant>,
    waiting: VecDeque<Chunk>,
    waiting_bytes: usize,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd, mode: Mode, events: super::event_loop::EventFlags) -> Self {
        Self {
            socket,
            decoder: Decoder::default(),
            mode,
            events,
            handshake_until: None,
            input_ended: false,
            closing: false,
            broken: false,
            write: None,
            fed: false,
            held_until: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Queues a message, with a descriptor beside it.
    pub(crate) fn send(&mut self, message: &impl prost::Message, descriptor: Option<OwnedFd>) {
        self.send_bytes(frame::encode_message(message), descriptor);
    }

    fn send_bytes(&mut self, bytes: Vec<u8>, descriptor: Option<OwnedFd>) {
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(Chunk { bytes, sent: 0, descriptor });
    }

    /// Queues an event of a stream.
    pub(crate) fn tell(&mut self, event: GuestEvent) {
        self.send(&FromGuest { event: Some(event) }, None);
    }

    /// Whether it should rather be given nothing more at the moment.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting_bytes >= MOST_WAITING
    }

    /// Whether what the host sends is for its worker.
    pub(crate) fn is_fed(&self) -> bool {
        self.fed && matches!(self.mode, Mode::Working(_))
    }

    /// Whether requests or input may be taken from it.
    pub(crate) fn is_listening(&self) -> bool {
        !self.closing && !self.is_full() && !matches!(self.mode, Mode::Waiting(_) | Mode::Working(_))
    }

    /// Whether the attached process has output for it, or has ended.
    pub(crate) fn has_news(&self, process: Option<&Process>) -> bool {
        let Mode::Attached(attached) = &self.mode else { return true };
        process.is_none_or(|process| {
            let mut outputs = process.outputs.iter().zip(attached.next);
            let has_more = outputs.any(|(output, next)| !matches!(output.stream.locate(next), Place::None));
            has_more || process.finished.is_some()
        })
    }

    /// Sends what there is, output of the attached process included.
    pub(crate) fn flush(
        &mut self,
        process: Option<&mut Process>,
        space: &mut SpillSpace,
    ) -> Result<Flushed, Errno> {
        let mut turn = 0;
        let mut process = process;
        while turn < TURN {
            let sent = if let Some(sent) = self.continue_frame(process.as_deref())? {
                sent
            } else if !self.waiting.is_empty() {
                self.send_waiting()?
            } else if !self.take_output(process.as_deref_mut(), space) {
                return Ok(Flushed::All);
            } else {
                continue;
            };
            let Some(sent) = sent else { return Ok(Flushed::Blocked) };
            turn += sent;
        }
        Ok(Flushed::Blocked)
    }

    /// Goes on with a frame that was begun. `None`: there is none; `Some(None)`: the socket is full.
    fn continue_frame(&mut self, process: Option<&Process>) -> Result<Option<Option<usize>>, Errno> {
        let Mode::Attached(attached) = &mut self.mode else { return Ok(None) };
        let (Some(partial), Some(process)) = (&mut attached.partial, process) else { return Ok(None) };
        let ring = process.outputs[partial.stream].stream.ring();
        let [first, second] = ring.slices(attached.next[partial.stream], partial.left);
        let header = IoSlice::new(&partial.header[partial.sent..]);
        let Some(sent) = send(self.socket.as_fd(), &[header, first, second], None)? else {
            return Ok(Some(None));
        };
        let of_header = sent.min(HEADER_LEN - partial.sent);
        let of_data = (sent - of_header).min(partial.left);
        partial.sent += of_header;
        partial.left -= of_data;
        attached.next[partial.stream] += of_data as u64;
        if partial.left == 0 && partial.sent == HEADER_LEN {
            attached.partial = None;
        }
        Ok(Some(Some(sent)))
    }

    fn send_waiting(&mut self) -> Result<Option<usize>, Errno> {
        let Some(chunk) = self.waiting.front_mut() else { return Ok(Some(0)) };
        let bytes = [IoSlice::new(&chunk.bytes[chunk.sent..])];
        let descriptor = chunk.descriptor.as_ref().map(|descriptor| descriptor.as_fd());
        let Some(sent) = send(self.socket.as_fd(), &bytes, descriptor)? else { return Ok(None) };
        chunk.descriptor = None;
        chunk.sent += sent;
        self.waiting_bytes -= sent;
        if chunk.sent == chunk.bytes.len() {
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Ok(Some(sent))
    }

    /// Prepares the next frame of output. → whether there is one.
    fn take_output(&mut self, process: Option<&mut Process>, space: &mut SpillSpace) -> bool {
        let Mode::Attached(attached) = &mut self.mode else { return false };
        let Some(process) = process else { return false };
        if attached.exited {
            // Nothing comes after the end: what did would be taken for an answer once the connection returned.
            return false;
        }
        if let Some(offset) = attached.accepted.take() {
            self.tell(GuestEvent::StdinAccepted(offset));
            return true;
        }
        for (index, id) in [StreamId::Stdout, StreamId::Stderr].into_iter().enumerate() {
            let stream = &mut process.outputs[index].stream;
            let offset = attached.next[index];
            match stream.locate(offset) {
                Place::None => {}
                Place::Memory(length) => {
                    let length = length.min(MAX_DATA);
                    let header = Frame::Data { stream: id, offset, length }.encode();
                    attached.partial = Some(Partial { header, sent: 0, stream: index, left: length });
                    return true;
                }
                Place::Spilled => {
                    let data = stream.read_spilled(offset, MAX_DATA, space);
                    if !data.is_empty() {
                        attached.next[index] += data.len() as u64;
                        let header = Frame::Data { stream: id, offset, length: data.len() }.encode();
                        self.send_bytes([&header[..], &data].concat(), None);
                    }
                    return true;
                }
                Place::Gone(to) => {
                    attached.next[index] = to;
                    self.tell(GuestEvent::Gap(Gap { stream: id as u32, from: offset, to }));
                    return true;
                }
            }
        }
        match process.exit.filter(|_| process.finished.is_some()) {
            Some(exit) => {
                attached.exited = true;
                self.tell(GuestEvent::Exited(exit));
                true
            }
            None => false,
        }
    }

    /// Whether all that was queued is with the kernel.
    pub(crate) fn has_nothing_waiting(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Somebody else writes standard input now.
    pub(crate) fn tell_taken(&mut self) {
        self.tell(GuestEvent::StdinTaken(Empty {}));
    }
}

/// Sends without waiting. `None` where the socket is full.
fn send(
    socket: BorrowedFd<'_>,
    bytes: &[IoSlice<'_>],
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<Option<usize>, Errno> {
    let mut storage = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut storage);
    let descriptors: &[BorrowedFd<'_>] = descriptor.as_slice();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    match sendmsg(socket, bytes, &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(sent) => Ok(Some(sent)),
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(None),
        Err(errno) => Err(errno),
    }
}
