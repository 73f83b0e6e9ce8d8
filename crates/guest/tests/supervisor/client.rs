//! A supervisor in a temporary directory, and a client that speaks its protocol, one call at a time.

use hostel_guest_protocol::{
    Ack, Answer, Ask, Attach, Decoder, Empty, Exec, Exit, Failure, Frame, FromGuest, Gap, GuestConfig,
    GuestEvent, Hello, HostEvent, Process, ProcessSpec, Reply, Request, StreamId, ToGuest, VERSION, Welcome,
    frame,
};
use prost::Message;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub(crate) const TOKEN: [u8; 32] = [7; 32];
/// A test that hangs fails after this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running supervisor.
pub(crate) struct Guest {
    pub(crate) child: Child,
    pub(crate) directory: tempfile::TempDir,
    /// The signal that ends it.
    end: i32,
}

impl Guest {
    pub(crate) fn start() -> Self {
        Self::with(GuestConfig::default())
    }

    /// As process number 1 of a namespace; only root can. It has to be ended by a request.
    pub(crate) fn as_init() -> Option<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]);
        unshare.arg(env!("CARGO_BIN_EXE_hostel-guest"));
        rustix::process::geteuid().is_root().then(|| Self::by(unshare, GuestConfig::default(), libc::SIGKILL))
    }

    pub(crate) fn with(config: GuestConfig) -> Self {
        Self::by(Command::new(env!("CARGO_BIN_EXE_hostel-guest")), config, libc::SIGTERM)
    }

    fn by(mut command: Command, config: GuestConfig, end: i32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = GuestConfig { token: TOKEN.to_vec(), ..config };
        let file = directory.path().join("config");
        std::fs::write(&file, config.encode_to_vec()).unwrap();
        let child = command
            .arg("supervise")
            .arg("--socket")
            .arg(directory.path().join("socket"))
            .arg("--config")
            .arg(file)
            .arg("--spill")
            .arg(directory.path())
            .spawn()
            .unwrap();
        Self { child, directory, end }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn raw(&self) -> UnixStream {
        connect(&self.directory.path().join("socket"))
    }

    pub(crate) fn connect(&self) -> Client {
        let buffer = vec![0; 256 << 10];
        let mut client =
            Client { socket: self.raw(), decoder: Decoder::default(), files: Vec::new(), buffer };
        client.send(&Hello { version: VERSION, token: TOKEN.to_vec() });
        let welcome: Welcome = client.message();
        assert_eq!((welcome.version, welcome.failure.as_str()), (VERSION, ""));
        client
    }

    /// Runs a shell line to its end.
    pub(crate) fn shell(&self, line: &str) -> Finished {
        let mut client = self.connect();
        client.exec(spec("", &["/bin/sh", "-c", line]), Attach::default()).unwrap();
        client.finish()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // SAFETY: plain kill(2) on our own child, which has not been waited for.
            unsafe { libc::kill(self.child.id().cast_signed(), self.end) };
        }
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the supervisor does not end");
            pause(Duration::from_millis(2));
        }
    }
}

fn connect(path: &Path) -> UnixStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.set_write_timeout(Some(PATIENCE)).unwrap();
                return socket;
            }
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        pause(Duration::from_millis(2));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test without an executor")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "never: {what}");
        pause(Duration::from_millis(5));
    }
}

pub(crate) fn spec(id: &str, argv: &[&str]) -> ProcessSpec {
    let id = if id.is_empty() { format!("p-{}", unique()) } else { id.to_owned() };
    ProcessSpec {
        id,
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        ..Default::default()
    }
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Everything from the beginning.
pub(crate) fn everything() -> Attach {
    Attach { stdout_from: Some(0), stderr_from: Some(0), stdin: true, ..Attach::default() }
}

/// What an attached client is told.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    Data(StreamId, u64, Vec<u8>),
    Event(GuestEvent),
}

/// How a process went.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) exit: Exit,
}

impl Finished {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) socket: UnixStream,
    decoder: Decoder,
    files: Vec<File>,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn send(&mut self, message: &impl Message) {
        self.socket.write_all(&frame::encode_message(message)).unwrap();
    }

    fn receive(&mut self) -> Option<usize> {
        let buffer = &mut self.buffer;
        let mut storage = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut storage);
        // With a deadline a read is not taken up again by itself (signal(7)).
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let count = received.expect("the guest answers in time").bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.files.extend(descriptors.map(File::from));
            }
        }
        self.decoder.extend(&buffer[..count]);
        (count > 0).then_some(count)
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn frame(&mut self) -> Option<(Frame, Vec<u8>)> {
        loop {
            if let Some((frame, payload)) = self.decoder.next_frame().unwrap() {
                return Some((frame, payload.to_vec()));
            }
            self.receive()?;
        }
    }

    pub(crate) fn message<M: Message + Default>(&mut self) -> M {
        let (frame, payload) = self.frame().expect("a message");
        assert!(matches!(frame, Frame::Message { .. }), "{frame:?}");
        M::decode(&payload[..]).unwrap()
    }

    pub(crate) fn request(&mut self, ask: Ask) {
        self.send(&Request { ask: Some(ask) });
    }

    pub(crate) fn reply(&mut self) -> Result<Answer, Failure> {
        match self.message::<Reply>().answer.expect("an answer") {
            Answer::Failed(failure) => Err(failure),
            answer => Ok(answer),
        }
    }

    pub(crate) fn ask(&mut self, ask: Ask) -> Result<Answer, Failure> {
        self.request(ask);
        self.reply()
    }

    pub(crate) fn file(&mut self) -> File {
        assert_eq!(self.files.len(), 1, "one descriptor");
        self.files.remove(0)
    }

    fn process(&mut self, ask: Ask) -> Result<Process, Failure> {
        match self.ask(ask)? {
            Answer::Process(process) => Ok(process),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn start(&mut self, spec: ProcessSpec) -> Result<Process, Failure> {
        self.process(Ask::Start(spec))
    }

    pub(crate) fn wait(&mut self, id: &str) -> Result<Process, Failure> {
        self.process(Ask::Wait(hostel_guest_protocol::ProcessRef { id: id.into() }))
    }

    pub(crate) fn get(&mut self, id: &str) -> Result<Process, Failure> {
        self.process(Ask::GetProcess(hostel_guest_protocol::ProcessRef { id: id.into() }))
    }

    pub(crate) fn exec(&mut self, spec: ProcessSpec, attach: Attach) -> Result<Process, Failure> {
        let attach = if attach == Attach::default() { everything() } else { attach };
        self.process(Ask::Exec(Exec { spec: Some(spec), attach: Some(attach) }))
    }

    pub(crate) fn attach(&mut self, id: &str, attach: Attach) -> Result<Process, Failure> {
        self.process(Ask::Attach(Attach { id: id.into(), ..attach }))
    }

    pub(crate) fn told(&mut self) -> Option<Told> {
        let (frame, payload) = self.frame()?;
        Some(match frame {
            Frame::Data { stream, offset, .. } => Told::Data(stream, offset, payload),
            Frame::Message { .. } => Told::Event(FromGuest::decode(&payload[..]).unwrap().event.unwrap()),
        })
    }

    pub(crate) fn tell(&mut self, event: HostEvent) {
        self.send(&ToGuest { event: Some(event) });
    }

    pub(crate) fn ack(&mut self, stream: StreamId, offset: u64) {
        self.tell(HostEvent::Ack(Ack { stream: stream as u32, offset }));
    }

    pub(crate) fn close_input(&mut self) {
        self.tell(HostEvent::CloseStdin(Empty {}));
    }

    pub(crate) fn input(&mut self, offset: u64, data: &[u8]) {
        let header = Frame::Data { stream: StreamId::Stdin, offset, length: data.len() }.encode();
        self.socket.write_all(&[&header[..], data].concat()).unwrap();
    }

    /// A request with input right behind it, in one write: the guest has both before it answers.
    pub(crate) fn request_with_input(&mut self, ask: Ask, data: &[u8]) {
        let request = frame::encode_message(&Request { ask: Some(ask) });
        let header = Frame::Data { stream: StreamId::Stdin, offset: 0, length: data.len() }.encode();
        self.socket.write_all(&[&request[..], &header[..], data].concat()).unwrap();
    }

    /// Reads everything to the exit, acknowledging it.
    pub(crate) fn finish(&mut self) -> Finished {
        let mut finished = Finished::default();
        loop {
            match self.told().expect("an exit") {
                Told::Data(stream, offset, data) => {
                    self.ack(stream, offset + data.len() as u64);
                    match stream {
                        StreamId::Stdout => finished.stdout.extend(data),
                        StreamId::Stderr => finished.stderr.extend(data),
                        StreamId::Stdin => panic!("input from the guest"),
                    }
                }
                Told::Event(GuestEvent::Exited(exit)) => {
                    finished.exit = exit;
                    return finished;
                }
                Told::Event(GuestEvent::Gap(gap)) => finished.gaps.push(gap),
                Told::Event(_) => {}
            }
        }
    }
}
