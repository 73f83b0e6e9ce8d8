//! A guest played by a test.

use crate::{Endpoint, Guest};
use hostel_guest_protocol::{
    Answer, Ask, Decoder, Exit, Failure, FailureKind, File, Frame, FromGuest, GuestEvent, Hello, HostEvent,
    Process, Reply, Request, StreamId, ToGuest, VERSION, Welcome, frame::encode_message,
};
use hostel_sandbox::process::{ProcessInfo, ProcessSpec};
use hostel_sandbox::{Error, ProcessId};
use prost::Message;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

pub(crate) const TOKEN: [u8; 32] = [9; 32];

/// The guest's side.
pub(crate) struct Script {
    listener: UnixListener,
    pub(crate) directory: tempfile::TempDir,
}

/// A client, and who answers it.
pub(crate) fn guest() -> (Guest, Script) {
    let directory = tempfile::tempdir().unwrap();
    // Longer than a socket's address may be.
    let deep = directory.path().join("d".repeat(200));
    std::fs::create_dir(&deep).unwrap();
    let here = rustix::fs::open(&deep, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let short = format!("/proc/self/fd/{}/guest.sock", std::os::fd::AsRawFd::as_raw_fd(&here));
    let listener = UnixListener::bind(short).unwrap();
    let endpoint = Endpoint::open(&deep, "guest.sock", TOKEN).unwrap();
    (Guest::new(endpoint), Script { listener, directory })
}

impl Script {
    /// Takes the next connection and greets it.
    pub(crate) async fn accept(&self) -> Peer {
        let mut peer = self.accept_silently().await;
        let hello = Hello::decode(&peer.message().await.unwrap()[..]).unwrap();
        assert_eq!((hello.version, &hello.token[..]), (VERSION, &TOKEN[..]));
        peer.send(&Welcome { version: VERSION, ..Welcome::default() }).await;
        peer
    }

    pub(crate) async fn accept_silently(&self) -> Peer {
        Peer::new(self.listener.accept().await.unwrap().0)
    }
}

/// What the host sent.
#[derive(Debug, PartialEq)]
pub(crate) enum Sent {
    Message(Vec<u8>),
    Stdin(u64, Vec<u8>),
}

/// One connection, from the guest's side.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// The next frame. `None` once the host closed.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((frame, payload)) = self.decoder.next_frame().unwrap() {
                return Some(match frame {
                    Frame::Message { .. } => Sent::Message(payload.to_vec()),
                    Frame::Data { stream, offset, .. } => {
                        assert_eq!(stream, StreamId::Stdin);
                        Sent::Stdin(offset, payload.to_vec())
                    }
                });
            }
            let mut buffer = vec![0; 64 << 10];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.extend(&buffer[..count]),
            }
        }
    }

    pub(crate) async fn message(&mut self) -> Option<Vec<u8>> {
        match self.next().await? {
            Sent::Message(message) => Some(message),
            Sent::Stdin(..) => panic!("input where a message should be"),
        }
    }

    pub(crate) async fn ask(&mut self) -> Ask {
        Request::decode(&self.message().await.unwrap()[..]).unwrap().ask.unwrap()
    }

    /// The next event of an attached host; `None` once it closed.
    pub(crate) async fn event(&mut self) -> Option<HostEvent> {
        let message = self.message().await?;
        Some(ToGuest::decode(&message[..]).unwrap().event.unwrap())
    }

    pub(crate) async fn closed(&mut self) {
        assert_eq!(self.next().await, None);
    }

    /// Sends bytes; the host may have closed already.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn send(&mut self, message: &impl Message) {
        self.raw(&encode_message(message)).await;
    }

    pub(crate) async fn reply(&mut self, answer: Answer) {
        self.send(&Reply { answer: Some(answer) }).await;
    }

    pub(crate) async fn reply_with(&mut self, answer: Answer, descriptors: &[BorrowedFd<'_>]) {
        let bytes = encode_message(&Reply { answer: Some(answer) });
        send_with(&self.stream, &bytes, descriptors);
    }

    pub(crate) async fn tell(&mut self, event: GuestEvent) {
        self.send(&FromGuest { event: Some(event) }).await;
    }

    pub(crate) async fn data(&mut self, stream: StreamId, offset: u64, data: &[u8]) {
        self.raw(&data_frame(stream, offset, data)).await;
    }
}

pub(crate) fn data_frame(stream: StreamId, offset: u64, data: &[u8]) -> Vec<u8> {
    [&Frame::Data { stream, offset, length: data.len() }.encode()[..], data].concat()
}

pub(crate) fn send_with(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut storage = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut storage);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

pub(crate) fn id(text: &str) -> ProcessId {
    ProcessId::parse(text).unwrap()
}

pub(crate) fn process(id: &str) -> Process {
    Process { id: id.to_owned(), argv: vec!["sh".to_owned()], pid: 2, ..Process::default() }
}

pub(crate) fn exit(code: i32) -> Exit {
    Exit { code: Some(code), ..Exit::default() }
}

pub(crate) fn spec(argv: &[&str]) -> ProcessSpec {
    ProcessSpec { argv: argv.iter().map(ToString::to_string).collect(), ..ProcessSpec::default() }
}

pub(crate) fn file(path: &str) -> File {
    File { path: path.to_owned(), kind: 1, mode: 0o644, ..File::default() }
}

pub(crate) fn failed(kind: FailureKind, reason: &str) -> Answer {
    let failure = Failure { kind: kind.into(), message: "so\nit is".to_owned(), reason: reason.to_owned() };
    Answer::Failed(failure)
}

pub(crate) fn is_protocol(error: &Error) -> bool {
    matches!(error, Error::Protocol { peer: "guest", .. })
}

pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Unavailable { what: "guest", .. })
}

pub(crate) fn info_of(result: hostel_sandbox::Result<ProcessInfo>) -> ProcessInfo {
    result.unwrap()
}
