//! Connections: accepting, reading, answering, closing.

use super::Supervisor;
use super::connection::{Connection, Flushed, Mode};
use super::event_loop::{EventFlags, Key, Timer};
use hostel_guest_protocol::{Decoder, Frame, Hello, StreamId, VERSION, Welcome};
use prost::Message;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{SocketFlags, accept_with};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// More are closed at once.
const MOST_CONNECTIONS: usize = 256;
/// Time to say hello.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the answer to an `Exec` without input waits for what the process has to say.
const FIRST_WORDS: Duration = Duration::from_millis(2);
/// How long not to accept after descriptors ran out.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);
/// Bytes read at once.
const READ: usize = 16 << 10;
/// Reads before others have their turn.
const READS: usize = 32;
const SEND_BUFFER: usize = 1 << 20;

impl Supervisor {
    pub(super) fn accept(&mut self) {
        for _ in 0..16 {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
                Err(_) => {
                    // No descriptors: it would stay ready and keep us from everything else.
                    self.poll.remove(&self.listener);
                    return self.timers.add(Instant::now() + NO_DESCRIPTORS, Timer::Listen);
                }
            };
            if self.connections.len() >= MOST_CONNECTIONS {
                continue;
            }
            if let Some(serial) = self.add_connection(socket, Mode::Handshake) {
                let until = Instant::now() + HANDSHAKE;
                self.timers.add(until, Timer::Handshake(serial));
                if let Some(connection) = self.connections.get_mut(&serial) {
                    connection.handshake_until = Some(until);
                }
            }
        }
    }

    pub(super) fn add_connection(&mut self, socket: OwnedFd, mode: Mode) -> Option<u64> {
        rustix::io::ioctl_fionbio(&socket, true).ok()?;
        let _ = set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let serial = self.next_serial();
        let events = EventFlags::IN | EventFlags::RDHUP;
        self.poll.add(&socket, Key::Connection(serial), events).ok()?;
        self.connections.insert(serial, Connection::new(socket, mode, events));
        Some(serial)
    }

    pub(super) fn welcome(&mut self, serial: u64) {
        let weaknesses = self.weaknesses.clone();
        let welcome = Welcome { version: VERSION, failure: String::new(), weaknesses, returns: true };
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.send(&welcome, None);
        }
    }

    pub(super) fn handshake_expired(&mut self, serial: u64) {
        if self.connections.get(&serial).is_some_and(|it| matches!(it.mode, Mode::Handshake)) {
            self.close(serial);
        }
    }

    pub(super) fn connection_ready(&mut self, serial: u64, events: EventFlags) {
        let asks = |it: &Connection| matches!(it.mode, Mode::Idle | Mode::Handshake);
        if events.intersects(EventFlags::HUP | EventFlags::ERR)
            && self.connections.get(&serial).is_some_and(asks)
        {
            // A question that its asker gave up, while we were frozen say, and was told so: it is not acted on.
            return self.close(serial);
        }
        if events.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            self.read_connection(serial);
        }
        // Both directions are gone: what it sent last has been read.
        if events.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.close(serial);
        } else {
            self.pump(serial);
        }
    }

    /// Reads what came and handles it, as far as the connection's state allows.
    fn read_connection(&mut self, serial: u64) {
        let mut buffer = [const { MaybeUninit::uninit() }; READ];
        for _ in 0..READS {
            if !self.handle_frames(serial) {
                return;
            }
            let listening = self.is_listening(serial);
            let Some(connection) = self.connections.get_mut(&serial) else { return };
            if !listening || connection.input_ended {
                return;
            }
            match rustix::io::read(&connection.socket, &mut buffer[..]) {
                Ok(([], _)) => connection.input_ended = true,
                Ok((bytes, rest)) => {
                    connection.decoder.extend(bytes);
                    if !rest.is_empty() {
                        self.handle_frames(serial);
                        return;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.close(serial),
            }
        }
        self.handle_frames(serial);
    }

    /// Whether input may be taken: the connection wants to, and the process it writes to has room.
    fn is_listening(&self, serial: u64) -> bool {
        let Some(connection) = self.connections.get(&serial) else { return false };
        let has_room = match &connection.mode {
            Mode::Attached(attached) => {
                self.processes.get(&attached.process).is_none_or(|process| process.input.has_room())
            }
            _ => true,
        };
        has_room && connection.is_listening()
    }

    /// Handles whole frames. → whether the connection is still there.
    pub(super) fn handle_frames(&mut self, serial: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&serial) else { return false };
        let mut decoder = std::mem::take(&mut connection.decoder);
        let fine = self.handle_decoded(serial, &mut decoder);
        if let Some(connection) = self.connections.get_mut(&serial) {
            decoder.release();
            connection.decoder = decoder;
            if fine {
                return true;
            }
            self.close(serial);
        }
        false
    }

    /// → whether the host keeps to the rules.
    fn handle_decoded(&mut self, serial: u64, decoder: &mut Decoder) -> bool {
        while self.is_listening(serial) {
            match decoder.next_frame() {
                Ok(None) => return true,
                Ok(Some((frame, payload))) => {
                    if !self.handle_frame(serial, frame, payload) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        // What a worker is to read must not be here already.
        !(decoder.pending() > 0 && self.connections.get(&serial).is_some_and(|it| it.is_fed()))
    }

    fn handle_frame(&mut self, serial: u64, frame: Frame, payload: &[u8]) -> bool {
        let Some(connection) = self.connections.get(&serial) else { return false };
        match (&connection.mode, frame) {
            (Mode::Handshake, Frame::Message { .. }) => self.hello(serial, payload),
            (Mode::Idle, Frame::Message { .. }) => self.request(serial, payload),
            (Mode::Attached(_), Frame::Message { .. }) => self.host_event(serial, payload),
            (Mode::Attached(_), Frame::Data { stream: StreamId::Stdin, offset, .. }) => {
                self.take_input(serial, offset, payload);
                true
            }
            _ => false,
        }
    }

    fn hello(&mut self, serial: u64, payload: &[u8]) -> bool {
        let known = Hello::decode(payload).is_ok_and(|hello| {
            hello.version != 0 && !self.config.token.is_empty() && is_equal(&hello.token, &self.config.token)
        });
        if known {
            if let Some(connection) = self.connections.get_mut(&serial) {
                connection.mode = Mode::Idle;
                if let Some(until) = connection.handshake_until.take() {
                    self.timers.remove(until, Timer::Handshake(serial));
                }
            }
            self.welcome(serial);
        }
        known
    }

    /// Goes on with a connection whose way was barred until now.
    pub(super) fn proceed(&mut self, serial: u64) {
        if self.handle_frames(serial) {
            self.pump(serial);
        }
    }

    /// Lets what there is to say wait a moment: most programs have output, or have ended, within it, and then all of
    /// it goes as one, which wakes the host once instead of two or three times.
    pub(super) fn hold(&mut self, serial: u64) {
        let until = Instant::now() + FIRST_WORDS;
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.held_until = Some(until);
            self.timers.add(until, Timer::Release(serial));
        }
    }

    pub(super) fn release(&mut self, serial: u64) {
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.held_until = None;
            self.pump(serial);
        }
    }

    /// Sends what there is and sets what to wait for.
    pub(super) fn pump(&mut self, serial: u64) {
        let Some(mut flushed) = self.flush(serial) else { return };
        // What had to wait for room to answer can be handled now.
        while flushed == Flushed::All && self.is_listening(serial) {
            let before = self.pending(serial);
            if before == 0 || !self.handle_frames(serial) || self.pending(serial) == before {
                break;
            }
            let Some(again) = self.flush(serial) else { return };
            flushed = again;
        }
        self.settle(serial, flushed == Flushed::All);
    }

    fn pending(&self, serial: u64) -> usize {
        self.connections.get(&serial).map_or(0, |connection| connection.decoder.pending())
    }

    /// `None`: the connection is gone.
    pub(super) fn flush(&mut self, serial: u64) -> Option<Flushed> {
        let connection = self.connections.get_mut(&serial)?;
        let process = match &connection.mode {
            Mode::Attached(attached) => self.processes.get_mut(&attached.process),
            _ => None,
        };
        if let Some(until) = connection.held_until {
            if !connection.has_news(process.as_deref()) {
                return Some(Flushed::All);
            }
            connection.held_until = None;
            self.timers.remove(until, Timer::Release(serial));
        }
        let flushed = connection.flush(process, &mut self.spill);
        if flushed.is_err() {
            // A host that hangs up with output unread breaks our sending first; what it said last, that it
            // leaves for good, is still there to be read.
            if !std::mem::replace(&mut connection.broken, true) {
                self.read_connection(serial);
            }
            self.close(serial);
        }
        flushed.ok()
    }

    /// Sets what to wait for, or closes what is at its end.
    fn settle(&mut self, serial: u64, all_sent: bool) {
        let listening = self.is_listening(serial);
        let Some(connection) = self.connections.get(&serial) else { return };
        let at_end = match &connection.mode {
            Mode::Idle | Mode::Handshake => connection.input_ended,
            Mode::Attached(attached) => attached.exited && connection.input_ended,
            _ => false,
        };
        let left = matches!(&connection.mode, Mode::Attached(attached) if attached.exited);
        if all_sent && (connection.closing || at_end) {
            return self.close(serial);
        }
        if all_sent && left {
            self.leave(serial);
        }
        let Some(connection) = self.connections.get_mut(&serial) else { return };
        if let Mode::Watching(watch) = &mut connection.mode
            && all_sent
            && watch.paused
        {
            watch.paused = self.poll.add(watch.descriptor(), Key::Watch(serial), EventFlags::IN).is_err();
        }
        let mut events = EventFlags::empty();
        if listening && !connection.input_ended {
            events |= EventFlags::IN | EventFlags::RDHUP;
        }
        if !all_sent {
            events |= EventFlags::OUT;
        }
        if events != connection.events {
            connection.events = events;
            let _ = self.poll.modify(&connection.socket, Key::Connection(serial), events);
        }
    }

    /// Ends a connection and everything that depends on it.
    pub(super) fn close(&mut self, serial: u64) {
        let Some(connection) = self.connections.get(&serial) else { return };
        self.poll.remove(&connection.socket);
        if matches!(connection.mode, Mode::Attached(_)) {
            self.detach(serial, true);
        }
        let Some(connection) = self.connections.remove(&serial) else { return };
        if let Some(until) = connection.handshake_until {
            self.timers.remove(until, Timer::Handshake(serial));
        }
        if let Some(until) = connection.held_until {
            self.timers.remove(until, Timer::Release(serial));
        }
        match connection.mode {
            Mode::Waiting(process) => {
                if let Some(process) = self.processes.get_mut(&process) {
                    process.waiting.retain(|waiting| *waiting != serial);
                }
            }
            Mode::Working(worker) => {
                self.poll.remove(&worker.status);
                self.tidying.retain(|worker| worker.running().is_some());
                if worker.is_tidy() {
                    self.tidying.push(worker);
                }
            }
            Mode::Watching(watch) => self.poll.remove(watch.descriptor()),
            Mode::Handshake | Mode::Idle | Mode::Attached(_) => {}
        }
    }

    pub(super) fn everything_sent(&self) -> bool {
        self.connections.values().all(Connection::has_nothing_waiting)
    }
}

/// Compares in a time that does not depend on where they differ.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::is_equal;

    #[test]
    fn tokens_are_equal_only_to_themselves() {
        assert!(is_equal(&[1; 32], &[1; 32]));
        assert!(!is_equal(&[1; 32], &[1; 31]));
        assert!(!is_equal(&[1; 32], &[2; 32]));
    }
}
