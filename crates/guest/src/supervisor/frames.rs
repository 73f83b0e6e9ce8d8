//! Contents of files and archives as frames on the connection itself, for hosts that cannot be handed descriptors.
//!
//! A worker has the connection to itself meanwhile: the supervisor has sent everything before, and neither reads nor
//! writes until the worker is over.

use super::Supervisor;
use super::archive::{pack, unpack};
use super::failure::{Outcome, failure, invalid, refused};
use super::files::{self, write};
use super::serve::worker_root;
use super::worker::{self, Worker};
use hostel_guest_protocol::{
    Answer, Empty, Failure, FailureKind, File, Frame, HEADER_LEN, MAX_DATA, ReadFile, Reply, StreamId,
    WriteFile, frame,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fstat};
use rustix::io::Errno;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;

/// Bytes of a file moved at once.
const PIECE: usize = 128 << 10;

impl Supervisor {
    /// Sends a part of a file.
    pub(super) fn read_file(&mut self, serial: u64, ask: &ReadFile) -> Outcome<Worker> {
        files::check(&ask.path)?;
        let refused = |errno| refused(errno, &ask.path);
        let file = self.root.open_regular(&ask.path, OFlags::RDONLY).map_err(refused)?;
        let stat = fstat(&file).map_err(refused)?;
        let described = files::describe(ask.path.clone(), &stat, || None);
        let (offset, length) = (ask.offset, ask.length.unwrap_or(u64::MAX));
        worker::start(vec![self.quiet_socket(serial)?, file], move |kept| {
            let [socket, file] = two(kept)?;
            let mut writer = FrameWriter::new(socket);
            writer.answer(Answer::File(described)).map_err(|error| gone(&error))?;
            send_range(&file, offset, length, &mut writer)?;
            Ok(Answer::Done(Empty {}))
        })
    }

    /// Receives a file's content. → who does, and the file as it is now.
    pub(super) fn write_file(&mut self, serial: u64, ask: &WriteFile) -> Outcome<(Worker, File)> {
        let open = ask.open.as_ref().ok_or_else(|| invalid("open", "say what to write"))?;
        let socket = self.quiet_socket(serial)?;
        let (pending, described, file) = write::open(&self.root, open, self.owner())?;
        let offset = ask.offset;
        let worker = worker::start(vec![socket, file], move |kept| {
            let [socket, file] = two(kept)?;
            receive(FrameReader::new(socket), &file, offset)?;
            Ok(Answer::Done(Empty {}))
        })?;
        if let Some(connection) = self.connections.get_mut(&serial) {
            connection.write = Some(pending);
        }
        Ok((worker, described))
    }

    /// Unpacks an archive.
    pub(super) fn import_frames(&mut self, serial: u64, path: &str) -> Outcome<Worker> {
        files::check(path)?;
        let (owner, refused) = (self.owner(), |errno| refused(errno, path));
        self.root.make_directories(path, Mode::from_raw_mode(0o755), owner).map_err(refused)?;
        self.root.open_directory(path, OFlags::PATH).map_err(refused)?;
        let worker = worker::start(vec![self.quiet_socket(serial)?], |kept| {
            let archive = FrameReader::new(one(kept)?);
            unpack::unpack(&worker_root()?, path, Box::new(archive), owner).map(Answer::Imported)
        })?;
        Ok(worker.tidy())
    }

    /// Packs a file or directory.
    pub(super) fn export_frames(&mut self, serial: u64, path: &str) -> Outcome<Worker> {
        files::check(path)?;
        self.root.stat(path, false)?;
        worker::start(vec![self.quiet_socket(serial)?], |kept| {
            let mut writer = FrameWriter::new(one(kept)?);
            writer.answer(Answer::Done(Empty {})).map_err(|error| gone(&error))?;
            pack::pack(&worker_root()?, path, Box::new(BufWriter::with_capacity(PIECE, writer)))?;
            Ok(Answer::Done(Empty {}))
        })
    }

    /// The connection's socket for a worker, once everything that was said before is with the kernel.
    fn quiet_socket(&mut self, serial: u64) -> Outcome<OwnedFd> {
        let _ = self.flush(serial);
        let connection = self.connections.get(&serial).filter(|connection| connection.has_nothing_waiting());
        let connection = connection
            .ok_or_else(|| failure(FailureKind::Internal, "earlier answers were not taken yet", ""))?;
        rustix::io::fcntl_dupfd_cloexec(&connection.socket, 3).map_err(|errno| refused(errno, "connection"))
    }
}

fn one(kept: Vec<OwnedFd>) -> Outcome<OwnedFd> {
    let [socket] = <[OwnedFd; 1]>::try_from(kept).map_err(|_| lost())?;
    Ok(socket)
}

fn two(kept: Vec<OwnedFd>) -> Outcome<[OwnedFd; 2]> {
    <[OwnedFd; 2]>::try_from(kept).map_err(|_| lost())
}

fn lost() -> Failure {
    failure(FailureKind::Internal, "a descriptor was lost", "worker")
}

fn gone(error: &io::Error) -> Failure {
    failure(FailureKind::Internal, format!("send to the host: {error}"), "")
}

fn send_range(file: &OwnedFd, offset: u64, length: u64, writer: &mut FrameWriter) -> Outcome<()> {
    let (mut offset, mut left, mut buffer) = (offset, length, vec![0; PIECE]);
    // The kernel refuses a range that ends beyond the largest offset, even of an empty file.
    let end = i64::MAX.unsigned_abs();
    loop {
        let most = left.min(PIECE as u64).min(end.saturating_sub(offset));
        let most = usize::try_from(most).unwrap_or(PIECE);
        if most == 0 {
            return Ok(());
        }
        match rustix::io::pread(file, &mut buffer[..most], offset) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                writer.write_all(&buffer[..count]).map_err(|error| gone(&error))?;
                offset += count as u64;
                left -= count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(refused(errno, "read")),
        }
    }
}

fn receive(mut content: FrameReader, file: &OwnedFd, mut offset: u64) -> Outcome<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = content
            .read(&mut buffer)
            .map_err(|error| failure(FailureKind::Invalid, error.to_string(), "content"))?;
        let mut left = &buffer[..count];
        if left.is_empty() {
            return Ok(());
        }
        if i64::try_from(offset.saturating_add(count as u64)).is_err() {
            return Err(invalid("offset", "beyond the end of every file"));
        }
        while !left.is_empty() {
            match rustix::io::pwrite(file, left, offset) {
                Ok(0) => return Err(failure(FailureKind::Internal, "nothing was written", "")),
                Ok(written) => {
                    offset += written as u64;
                    left = &left[written..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(refused(errno, "write")),
            }
        }
    }
}

fn wait(socket: &OwnedFd, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(socket, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What is written becomes data frames.
struct FrameWriter {
    socket: OwnedFd,
    offset: u64,
}

impl FrameWriter {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, offset: 0 }
    }

    fn answer(&mut self, answer: Answer) -> io::Result<()> {
        self.send(&frame::encode_message(&Reply { answer: Some(answer) }))
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.socket, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN) => wait(&self.socket, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl Write for FrameWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(MAX_DATA);
        if length > 0 {
            let header = Frame::Data { stream: StreamId::Stdout, offset: self.offset, length }.encode();
            self.send(&header)?;
            self.send(&bytes[..length])?;
            self.offset += length as u64;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What data frames bring can be read, up to the empty one. Not a byte after that is taken.
struct FrameReader {
    socket: OwnedFd,
    offset: u64,
    /// Of the frame that was begun.
    left: usize,
    ended: bool,
}

impl FrameReader {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, offset: 0, left: 0, ended: false }
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.socket, &mut *bytes) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the host is gone")),
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => wait(&self.socket, PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut header = [0; HEADER_LEN];
        let mut filled = 0;
        while filled < HEADER_LEN {
            filled += self.receive(&mut header[filled..])?;
        }
        match Frame::decode(&header) {
            Ok(Frame::Data { stream: StreamId::Stdin, offset, length }) if offset == self.offset => {
                (self.left, self.ended) = (length, length == 0);
                Ok(())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not the next data of the content")),
        }
    }
}

impl Read for FrameReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended && !bytes.is_empty() {
            self.begin()?;
        }
        let most = bytes.len().min(self.left);
        if most == 0 {
            return Ok(0);
        }
        let count = self.receive(&mut bytes[..most])?;
        self.left -= count;
        self.offset += count as u64;
        Ok(count)
    }
}
