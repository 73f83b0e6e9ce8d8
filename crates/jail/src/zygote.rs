//! The daemon's side of the zygote: starts it from the embedded bytes and sends it orders.
//!
//! Whoever orders sends by itself; the zygote answers in order, and one thread reads its answers, so that no
//! executor's thread waits for it. When the zygote dies the thread starts another one.

use crate::executable::Executable;
use crate::handle;
use hostel_guest_protocol::zygote::{
    CloneJail, Discard, MAX_PACKET, Order, Prepare, Setup, SetupReply, ZygoteReply, ZygoteRequest,
};
use hostel_sandbox::{Error, Result};
use prost::Message;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// Orders under way. A packet socket holds ten by default (`net.unix.max_dgram_qlen`), so that these always fit.
const UNDER_WAY: usize = 8;
/// How long to wait where they do not, because who ordered went away.
const FULL: Duration = Duration::from_millis(1);
const MAX_DESCRIPTORS: usize = 32;

/// How long an order may wait for another zygote, and the thread between attempts to start one.
const REBIRTH: Duration = Duration::from_secs(10);
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

type Asked = oneshot::Sender<Result<Answer>>;

/// The way to the zygote that there is.
struct Line {
    socket: Arc<OwnedFd>,
    /// Who waits for an answer, first the one who comes first.
    waiting: VecDeque<Asked>,
    /// Nobody orders any more.
    closed: bool,
}

impl Line {
    fn take_over(&mut self, socket: OwnedFd) {
        if self.closed {
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Write);
        }
        self.socket = Arc::new(socket);
    }
}

/// What the zygote gave.
#[derive(Debug)]
struct Answer {
    pid: u32,
    descriptor: Option<OwnedFd>,
}

/// A cloned jail: its first process.
#[derive(Debug)]
pub(crate) struct Cloned {
    pub(crate) pid: u32,
    /// When, in clock ticks since boot; 0 where it is gone again.
    pub(crate) started: u64,
    pub(crate) pidfd: OwnedFd,
}

/// The running zygote.
pub(crate) struct Zygote {
    line: Arc<Mutex<Line>>,
    turns: Semaphore,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the zygote found when it set itself up.
pub(crate) struct World {
    pub(crate) idmap: bool,
    pub(crate) landlock_abi: u32,
    pub(crate) pool: Option<OwnedFd>,
}

impl Zygote {
    /// Starts it and lets it build its world.
    ///
    /// # Errors
    /// `Unavailable` with what the zygote could not do.
    pub(crate) fn start(executable: &Executable, setup: &Setup) -> Result<(Self, World)> {
        let (child, socket, world) = launch(executable, setup)?;
        let line = Line { socket: Arc::new(socket), waiting: VecDeque::new(), closed: false };
        let line = Arc::new(Mutex::new(line));
        let executable = executable.share().map_err(|error| Error::internal("start the zygote", error))?;
        let keeper = Keeper { executable, setup: setup.clone(), child, line: Arc::clone(&line) };
        let thread = std::thread::Builder::new()
            .name("zygote".to_owned())
            .spawn(move || keeper.run())
            .map_err(|error| Error::internal("start the thread of the zygote", error))?;
        Ok((Self { line, turns: Semaphore::new(UNDER_WAY), thread: Mutex::new(Some(thread)) }, world))
    }

    async fn order(&self, order: Order, descriptors: Vec<OwnedFd>) -> Result<Answer> {
        let _turn = self.turns.acquire().await.map_err(|_| gone("it was stopped"))?;
        let bytes = ZygoteRequest { order: Some(order) }.encode_to_vec();
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let start = Instant::now();
        let asked = loop {
            match self.send(&bytes, &borrowed)? {
                Some(asked) => break asked,
                None if start.elapsed() < REBIRTH => tokio::time::sleep(FULL).await,
                None => return Err(gone("it has ended and no other one starts; see the log")),
            }
        };
        drop(descriptors);
        asked.await.map_err(|_| gone("it has ended"))?
    }

    /// Sends an order and queues up for its answer, both or neither. `None` where the socket is full, or the zygote
    /// dead: then another one is on its way.
    fn send(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Option<oneshot::Receiver<Result<Answer>>>> {
        let mut line = lock(&self.line);
        if line.closed {
            return Err(gone("it was stopped"));
        }
        match send(line.socket.as_fd(), bytes, descriptors) {
            Ok(()) => {
                let (answer, asked) = oneshot::channel();
                line.waiting.push_back(answer);
                Ok(Some(asked))
            }
            Err(error) if LATER.contains(&error.kind()) => Ok(None),
            Err(error) => Err(gone(error)),
        }
    }

    /// Makes the namespaces of a cell ahead of time.
    pub(crate) async fn prepare(&self, cell: &str, uid_base: u32) -> Result<()> {
        self.order(Order::Prepare(Prepare { cell: cell.to_owned(), uid_base }), Vec::new()).await.map(drop)
    }

    /// Lets go of them.
    pub(crate) async fn discard(&self, cell: &str) -> Result<()> {
        self.order(Order::Discard(Discard { cell: cell.to_owned() }), Vec::new()).await.map(drop)
    }

    /// Clones a jail.
    pub(crate) async fn clone_jail(&self, order: CloneJail, descriptors: Vec<OwnedFd>) -> Result<Cloned> {
        let answer = self.order(Order::Clone(Box::new(order)), descriptors).await?;
        let pidfd = answer.descriptor.ok_or_else(|| Error::Protocol {
            peer: "zygote",
            detail: "a clone without a descriptor".to_owned(),
        })?;
        Ok(Cloned { pid: answer.pid, started: handle::started(answer.pid).unwrap_or(0), pidfd })
    }

    /// Hangs up, upon which the zygote exits, and waits for that. Jails live on.
    pub(crate) fn stop(&self) {
        self.turns.close();
        let socket = {
            let mut line = lock(&self.line);
            line.closed = true;
            Arc::clone(&line.socket)
        };
        let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Write);
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// What a send says when trying again helps.
const LATER: [io::ErrorKind; 3] =
    [io::ErrorKind::WouldBlock, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];

fn gone(detail: impl ToString) -> Error {
    Error::Unavailable { what: "zygote", detail: detail.to_string() }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    // Each change is one step, so that it is whole whatever panicked.
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that hands out answers, and keeps a zygote there.
struct Keeper {
    executable: Executable,
    setup: Setup,
    child: Child,
    line: Arc<Mutex<Line>>,
}

impl Keeper {
    fn run(mut self) {
        loop {
            self.hand_out();
            let status = self.child.wait();
            // Who waits now learns that it has ended: nobody knows how far it came.
            lock(&self.line).waiting.clear();
            loop {
                if lock(&self.line).closed {
                    return;
                }
                match launch(&self.executable, &self.setup) {
                    Ok((child, socket, _)) => {
                        tracing::warn!(?status, "the zygote had died; there is another one");
                        // Where we were stopped meanwhile it is hung up on before it did anything.
                        lock(&self.line).take_over(socket);
                        self.child = child;
                        break;
                    }
                    Err(error) => {
                        tracing::error!(%error, retry_in = ?BETWEEN_ATTEMPTS, "the zygote has died and no other one starts");
                        std::thread::park_timeout(BETWEEN_ATTEMPTS);
                    }
                }
            }
        }
    }

    /// Hands out the zygote's answers until it hangs up.
    fn hand_out(&self) {
        let socket = Arc::clone(&lock(&self.line).socket);
        while let Ok((bytes, descriptors)) = receive(socket.as_fd()) {
            let asked = lock(&self.line).waiting.pop_front();
            let answer = understand(&bytes, descriptors);
            let unheard = match asked {
                Some(asked) => asked.send(answer).err(),
                None => Some(answer),
            };
            if let Some(Ok(Answer { descriptor: Some(orphan), .. })) = unheard {
                // Whoever asked has gone: nobody would ever end this jail.
                let _ = rustix::process::pidfd_send_signal(orphan, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Starts a zygote and lets it build its world.
fn launch(executable: &Executable, setup: &Setup) -> Result<(Child, OwnedFd, World)> {
    let fail =
        |what: &str, error: &dyn std::fmt::Display| Error::internal(format!("{what} the zygote"), error);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|error| fail("make the socket of", &error))?;
    let mut child = Command::new(executable.path())
        .arg("zygote")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| fail("start", &error))?;
    let greeted = send(ours.as_fd(), &setup.encode_to_vec(), &[]).and_then(|()| receive(ours.as_fd()));
    let (bytes, descriptors) = greeted.map_err(|error| fail("speak to", &error))?;
    let reply = SetupReply::decode(&*bytes).map_err(|error| fail("understand", &error))?;
    if !reply.failure.is_empty() {
        let _ = child.wait();
        return Err(Error::Unavailable { what: "zygote", detail: reply.failure });
    }
    let (idmap, landlock_abi) = (reply.idmap, reply.landlock_abi);
    Ok((child, ours, World { idmap, landlock_abi, pool: descriptors.into_iter().next() }))
}

fn understand(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<Answer> {
    let reply = ZygoteReply::decode(bytes)
        .map_err(|error| Error::Protocol { peer: "zygote", detail: error.to_string() })?;
    if reply.failure.is_empty() {
        Ok(Answer { pid: reply.pid, descriptor: descriptors.into_iter().next() })
    } else {
        Err(Error::internal("make a jail", reply.failure))
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MAX_PACKET.min(64 << 10)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = ancillary
        .drain()
        .filter_map(
            |message| if let RecvAncillaryMessage::ScmRights(rights) = message { Some(rights) } else { None },
        )
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
    }
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}
