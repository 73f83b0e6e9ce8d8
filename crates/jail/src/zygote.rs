//! The daemon's side of the zygote: starts it from the embedded bytes and sends it orders.
//!
//! One thread owns the socket. It blocks on the zygote, never an executor's thread; orders queue up in a
//! bounded channel and are answered in order.

use crate::executable::Executable;
use hostel_guest_protocol::zygote::{
    CloneJail, Discard, MAX_PACKET, Order, Prepare, Setup, SetupReply, ZygoteReply, ZygoteRequest,
};
use hostel_sandbox::{Error, Result};
use prost::Message;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Orders that may wait.
const QUEUE: usize = 1024;
const MAX_DESCRIPTORS: usize = 32;

struct Job {
    order: Order,
    descriptors: Vec<OwnedFd>,
    answer: oneshot::Sender<Result<Answer>>,
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
    pub(crate) pidfd: OwnedFd,
}

/// The running zygote.
pub(crate) struct Zygote {
    jobs: Mutex<Option<SyncSender<Job>>>,
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
        let (mut line, world) = Line::open(executable, setup)?;
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new()
            .name("zygote".to_owned())
            .spawn(move || {
                for job in queue {
                    let outcome = line.carry_out(job.order, &job.descriptors);
                    if let Err(Ok(Answer { descriptor: Some(orphan), .. })) = job.answer.send(outcome) {
                        // Whoever asked has gone: nobody would ever end this jail.
                        let _ = rustix::process::pidfd_send_signal(orphan, rustix::process::Signal::KILL);
                    }
                }
                line.hang_up();
            })
            .map_err(|error| Error::internal("start the thread of the zygote", error))?;
        Ok((Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) }, world))
    }

    async fn order(&self, order: Order, descriptors: Vec<OwnedFd>) -> Result<Answer> {
        let (answer, asked) = oneshot::channel();
        let gone = || Error::Unavailable { what: "zygote", detail: "it has ended".to_owned() };
        let jobs = self.jobs.lock().map_err(|_| gone())?.clone().ok_or_else(gone)?;
        jobs.try_send(Job { order, descriptors, answer }).map_err(|_| Error::LimitReached {
            what: "sandboxes",
            detail: format!("{QUEUE} creations are waiting already"),
        })?;
        asked.await.map_err(|_| gone())?
    }

    /// Makes the namespaces of a cell ahead of time.
    pub(crate) async fn prepare(&self, cell: &str, uid_base: u32) -> Result<()> {
        self.order(Order::Prepare(Prepare { cell: cell.to_owned(), uid_base }), Vec::new()).await.map(drop)
    }

    /// Lets go of them.
    pub(crate) async fn discard(&self, cell: &str) -> Result<()> {
        self.order(Order::Discard(Discard { cell: cell.to_owned() }), Vec::new()).await.map(drop)
    }

    /// Makes a jail.
    pub(crate) async fn clone_jail(&self, order: CloneJail, descriptors: Vec<OwnedFd>) -> Result<Cloned> {
        let answer = self.order(Order::Clone(Box::new(order)), descriptors).await?;
        let pidfd = answer.descriptor.ok_or_else(|| Error::Protocol {
            peer: "zygote",
            detail: "a clone without a descriptor".to_owned(),
        })?;
        Ok(Cloned { pid: answer.pid, pidfd })
    }

    /// Hangs up, upon which the zygote exits, and waits for that. Jails live on.
    pub(crate) fn stop(&self) {
        if let Ok(mut jobs) = self.jobs.lock() {
            jobs.take();
        }
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn spawn(executable: &Executable, socket: OwnedFd) -> io::Result<Child> {
    Command::new(executable.path())
        .arg("zygote")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
}

/// The zygote that there is, and how to start another when it dies.
struct Line {
    executable: Executable,
    setup: Setup,
    socket: OwnedFd,
    child: Child,
}

impl Line {
    fn open(executable: &Executable, setup: &Setup) -> Result<(Self, World)> {
        let fail =
            |what: &str, error: &dyn std::fmt::Display| Error::internal(format!("{what} the zygote"), error);
        let executable = executable.share().map_err(|error| fail("start", &error))?;
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| fail("make the socket of", &error))?;
        let mut child = spawn(&executable, theirs).map_err(|error| fail("start", &error))?;
        let greeted =
            send(socket.as_fd(), &setup.encode_to_vec(), &[]).and_then(|()| receive(socket.as_fd()));
        let (bytes, descriptors) = greeted.map_err(|error| fail("speak to", &error))?;
        let reply = SetupReply::decode(&*bytes).map_err(|error| fail("understand", &error))?;
        if !reply.failure.is_empty() {
            let _ = child.wait();
            return Err(Error::Unavailable { what: "zygote", detail: reply.failure });
        }
        let world = World {
            idmap: reply.idmap,
            landlock_abi: reply.landlock_abi,
            pool: descriptors.into_iter().next(),
        };
        Ok((Self { executable, setup: setup.clone(), socket, child }, world))
    }

    /// Has an order carried out. When the zygote has died meanwhile another one gets it; when it dies over it the
    /// caller is told, since nobody knows how far it came.
    fn carry_out(&mut self, order: Order, descriptors: &[OwnedFd]) -> Result<Answer> {
        let gone = |error: io::Error| Error::Unavailable { what: "zygote", detail: error.to_string() };
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let order = ZygoteRequest { order: Some(order) }.encode_to_vec();
        if let Err(error) = send(self.socket.as_fd(), &order, &borrowed) {
            if error.kind() != io::ErrorKind::BrokenPipe && error.kind() != io::ErrorKind::ConnectionReset {
                return Err(gone(error));
            }
            self.replace()?;
            send(self.socket.as_fd(), &order, &borrowed).map_err(gone)?;
        }
        let (bytes, received) = receive(self.socket.as_fd()).map_err(gone)?;
        let reply = ZygoteReply::decode(&*bytes)
            .map_err(|error| Error::Protocol { peer: "zygote", detail: error.to_string() })?;
        if reply.failure.is_empty() {
            Ok(Answer { pid: reply.pid, descriptor: received.into_iter().next() })
        } else {
            Err(Error::internal("make a jail", reply.failure))
        }
    }

    /// Starts another zygote. What the old one had prepared is gone; the new one makes it when it is wanted.
    fn replace(&mut self) -> Result<()> {
        let (next, _) = Self::open(&self.executable, &self.setup)?;
        let mut old = std::mem::replace(self, next);
        // It hung up, so it is dead or dying.
        let ended = old.child.wait();
        tracing::warn!(status = ?ended.ok(), "the zygote had died; there is another one");
        Ok(())
    }

    /// Ends the zygote and waits for it.
    fn hang_up(self) {
        let Self { socket, mut child, .. } = self;
        drop(socket);
        let _ = child.wait();
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
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
