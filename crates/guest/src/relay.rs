//! `hostel-guest relay`: carries many connections to a guest's socket over its own standard input and output, for a
//! host that can start programs beside the guest but not reach its socket. See [`hostel_guest_protocol::relay`].
//!
//! One thread, one poll(2): threads would count as processes of the sandbox.

use hostel_guest_protocol::relay::{
    GREETING, MAX_CHANNELS, MAX_PIECE, PIECE_HEADER, Piece, SILENCE_SECONDS, WINDOW,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How to call it.
pub const USAGE: &str = "       hostel-guest relay --socket PATH\n";

/// More than this waiting for the host stops what produces it.
const MOST_WAITING: usize = 256 << 10;
/// Bytes read from the host at once.
const READ: usize = 128 << 10;
/// How long the guest may take until it listens.
const BIRTH: Duration = Duration::from_secs(20);
const BIRTH_PAUSE: Duration = Duration::from_millis(2);
/// How often to look whether the host is silent, where nothing happens.
const LOOK: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Does it, until the host hangs up or says nothing for a long time.
#[must_use]
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (option, path) = (arguments.next(), arguments.next());
    let Some(path) = path.filter(|_| option.is_some_and(|option| option == "--socket")) else {
        let _ = io::stderr().write_all(USAGE.as_bytes());
        return ExitCode::from(2);
    };
    match prepare().and_then(|()| Relay::new(PathBuf::from(path)).run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "hostel-guest relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> io::Result<()> {
    rustix::io::ioctl_fionbio(io::stdin(), true)?;
    rustix::io::ioctl_fionbio(io::stdout(), true)?;
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}

/// One connection to the guest.
struct Channel {
    socket: OwnedFd,
    /// From the host, not yet with the guest; at most [`WINDOW`].
    to_guest: Buffer,
    /// What may still be sent to the host.
    room: usize,
    /// The host closed: once `to_guest` is empty it is over.
    closing: bool,
}

/// Bytes that are taken from the front.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn advance(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

struct Relay {
    path: PathBuf,
    born: Instant,
    channels: BTreeMap<u32, Channel>,
    from_host: Buffer,
    to_host: Buffer,
    heard: Instant,
}

impl Relay {
    fn new(path: PathBuf) -> Self {
        let mut to_host = Buffer::default();
        to_host.push(&GREETING);
        let now = Instant::now();
        let (channels, from_host) = (BTreeMap::new(), Buffer::default());
        Self { path, born: now, channels, from_host, to_host, heard: now }
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            // First: a host that spoke while we were frozen was not silent.
            if ready.host && !self.hear()? {
                return Ok(());
            }
            if self.heard.elapsed() > Duration::from_secs(SILENCE_SECONDS) {
                return Ok(());
            }
            for (channel, flags) in ready.channels {
                if flags.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP) {
                    self.feed(channel);
                }
                if flags.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP) {
                    self.take(channel);
                }
            }
            self.say()?;
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let (input, output) = (io::stdin(), io::stdout());
        let full = self.to_host.waiting().len() >= MOST_WAITING;
        let mut polled = Vec::with_capacity(2 + self.channels.len());
        polled.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN));
        let talking = if self.to_host.waiting().is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        polled.push(PollFd::from_borrowed_fd(output.as_fd(), talking));
        let mut numbers = Vec::with_capacity(self.channels.len());
        for (number, channel) in &self.channels {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !full && channel.room > 0);
            flags.set(PollFlags::OUT, !channel.to_guest.waiting().is_empty());
            if !flags.is_empty() {
                numbers.push(*number);
                polled.push(PollFd::from_borrowed_fd(channel.socket.as_fd(), flags));
            }
        }
        match poll(&mut polled, Some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        if flags[1].intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let ready = numbers.into_iter().zip(flags[2..].iter().copied());
        Ok(Ready { host: !flags[0].is_empty(), channels: ready.filter(|(_, it)| !it.is_empty()).collect() })
    }

    /// Takes what the host sent. → whether it is still there.
    fn hear(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; READ];
        match rustix::io::read(io::stdin(), &mut buffer[..]) {
            Ok(0) => return Ok(false),
            Ok(count) => self.from_host.push(&buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
        self.heard = Instant::now();
        let mut input = std::mem::take(&mut self.from_host);
        while let Some((header, rest)) = input.waiting().split_first_chunk::<PIECE_HEADER>() {
            let (channel, piece) = Piece::decode(header).map_err(io::Error::other)?;
            let Some(data) = rest.get(..piece.length()) else { break };
            self.handle(channel, piece, data)?;
            input.advance(PIECE_HEADER + piece.length());
        }
        self.from_host = input;
        Ok(true)
    }

    fn handle(&mut self, number: u32, piece: Piece, data: &[u8]) -> io::Result<()> {
        let broken = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        match piece {
            Piece::Open if self.channels.contains_key(&number) => return broken("a channel opened twice"),
            Piece::Open if self.channels.len() >= MAX_CHANNELS => self.close(number),
            Piece::Open => self.open(number),
            Piece::Ping => self.to_host.push(&Piece::Pong.encode(0)),
            Piece::Pong => return broken("an answer to nothing"),
            // The guest has closed it meanwhile.
            Piece::Data(_) | Piece::Room(_) | Piece::Close if !self.channels.contains_key(&number) => {}
            Piece::Data(_) => {
                let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
                if channel.to_guest.waiting().len() + data.len() > WINDOW {
                    return broken("more data than there is room for");
                }
                channel.to_guest.push(data);
                self.feed(number);
            }
            Piece::Room(bytes) => {
                let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
                channel.room += bytes;
                if channel.room > WINDOW {
                    return broken("more room than there can be");
                }
            }
            Piece::Close => {
                let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
                channel.closing = true;
                self.feed(number);
            }
        }
        Ok(())
    }

    fn open(&mut self, number: u32) {
        match self.connect() {
            Ok(socket) => {
                let (to_guest, room) = (Buffer::default(), WINDOW);
                self.channels.insert(number, Channel { socket, to_guest, room, closing: false });
            }
            Err(_) => self.close(number),
        }
    }

    /// Connects, and waits for a guest that is only being born.
    #[expect(clippy::disallowed_methods, reason = "there is no executor, and nothing else to do")]
    fn connect(&self) -> io::Result<OwnedFd> {
        loop {
            match UnixStream::connect(&self.path) {
                Ok(stream) => {
                    stream.set_nonblocking(true)?;
                    return Ok(stream.into());
                }
                Err(error) if self.born.elapsed() > BIRTH => return Err(error),
                Err(_) => std::thread::sleep(BIRTH_PAUSE),
            }
        }
    }

    /// Tells the host that a channel is over.
    fn close(&mut self, number: u32) {
        self.channels.remove(&number);
        self.to_host.push(&Piece::Close.encode(number));
    }

    /// Gives the guest what it takes.
    fn feed(&mut self, number: u32) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let mut given = 0;
        while !channel.to_guest.waiting().is_empty() {
            match rustix::io::write(&channel.socket, channel.to_guest.waiting()) {
                Ok(count) => {
                    channel.to_guest.advance(count);
                    given += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // It reads no more; what it still has to say is taken before the channel ends.
                Err(_) => {
                    given += channel.to_guest.waiting().len();
                    channel.to_guest = Buffer::default();
                }
            }
        }
        if channel.closing && channel.to_guest.waiting().is_empty() {
            return self.close(number);
        }
        if given > 0 {
            self.to_host.push(&Piece::Room(given).encode(number));
        }
    }

    /// Takes what the guest says.
    fn take(&mut self, number: u32) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let mut buffer = [0; MAX_PIECE];
        let most = channel.room.min(MAX_PIECE);
        if most == 0 {
            return;
        }
        match rustix::io::read(&channel.socket, &mut buffer[..most]) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => self.close(number),
            Ok(count) => {
                channel.room -= count;
                self.to_host.push(&Piece::Data(count).encode(number));
                self.to_host.push(&buffer[..count]);
            }
        }
    }

    /// Gives the host what it takes.
    fn say(&mut self) -> io::Result<()> {
        while !self.to_host.waiting().is_empty() {
            match rustix::io::write(io::stdout(), self.to_host.waiting()) {
                Ok(count) => self.to_host.advance(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// What happened.
struct Ready {
    host: bool,
    channels: Vec<(u32, PollFlags)>,
}
