//! A pipe to or from a guest.

use crate::descriptor;
use crate::files::blocking;
use bytes::{Buf, Bytes};
use hostel_sandbox::{Error, Result};
use hostel_untrusted_socket::Descriptor;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::{Receiver, Sender};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Size wished for; the kernel may say no.
const SIZE: usize = 1 << 20;
/// Time without a byte moving after which a guest counts as stuck.
const STALL: Duration = Duration::from_secs(60);

/// Our end of a pipe.
///
/// A guest that keeps a copy of the descriptor could make it blocking again at any time, and so stop one of our
/// threads. So the pipe is opened anew; where the kernel refuses that (a guest with a user of its own, and a
/// daemon without root) it is used only on threads that may block.
#[derive(Debug)]
enum End<T> {
    Ours(T),
    Theirs(Arc<OwnedFd>),
}

impl<T> End<T> {
    fn new(
        descriptor: Descriptor,
        flags: OFlags,
        register: impl FnOnce(OwnedFd) -> io::Result<T>,
    ) -> Result<Self> {
        let theirs = descriptor::pipe(descriptor)?;
        let unusable = |error: io::Error| Error::internal("use the guest's pipe", error);
        let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
        let _ = rustix::pipe::fcntl_setpipe_size(&theirs, SIZE);
        match rustix::fs::open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(ours) => Ok(Self::Ours(register(ours).map_err(unusable)?)),
            // NXIO: nobody reads it, as the first write will say.
            Err(Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NXIO) => {
                rustix::io::ioctl_fionbio(&theirs, true).map_err(|errno| unusable(errno.into()))?;
                Ok(Self::Theirs(Arc::new(theirs)))
            }
            Err(errno) => Err(unusable(errno.into())),
        }
    }
}

/// Does something with a pipe of the guest's as soon as that is possible, a second at a time.
async fn with_theirs<R: Send + 'static>(
    pipe: &Arc<OwnedFd>,
    ready: PollFlags,
    work: impl Fn(&OwnedFd) -> rustix::io::Result<R> + Clone + Send + 'static,
) -> Result<io::Result<R>> {
    loop {
        let (pipe, work) = (Arc::clone(pipe), work.clone());
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let result = blocking(move || {
            if poll(&mut [PollFd::new(&*pipe, ready)], Some(&second))? == 0 {
                return Err(Errno::AGAIN);
            }
            retry_on_intr(|| work(&pipe))
        });
        match result.await? {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return Ok(result.map_err(io::Error::from)),
        }
    }
}

async fn unless_stuck<R>(work: impl Future<Output = Result<io::Result<R>>>) -> Result<io::Result<R>> {
    let late = || Error::Unavailable { what: "guest", detail: format!("no byte moved for {STALL:?}") };
    tokio::time::timeout(STALL, work).await.map_err(|_| late())?
}

/// An end to read from.
#[derive(Debug)]
pub(crate) struct ReadEnd(End<Receiver>);

impl ReadEnd {
    pub(crate) fn new(descriptor: Descriptor) -> Result<Self> {
        End::new(descriptor, OFlags::RDONLY, Receiver::from_owned_fd).map(Self)
    }

    /// Reads what there is; nothing at the end.
    pub(crate) async fn read(&self) -> Result<Bytes> {
        let chunk = unless_stuck(async {
            match &self.0 {
                End::Ours(pipe) => Ok(read_ours(pipe).await),
                End::Theirs(pipe) => {
                    with_theirs(pipe, PollFlags::IN, |fd| {
                        let mut chunk = Vec::with_capacity(CHUNK);
                        rustix::io::read(fd, spare_capacity(&mut chunk)).map(|_| chunk)
                    })
                    .await
                }
            }
        });
        Ok(chunk.await?.map_err(|error| Error::internal("read from the guest's pipe", error))?.into())
    }
}

async fn read_ours(pipe: &Receiver) -> io::Result<Vec<u8>> {
    loop {
        pipe.readable().await?;
        let mut chunk = Vec::with_capacity(CHUNK);
        match pipe.try_read_buf(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(|_| chunk),
        }
    }
}

/// An end to write to.
#[derive(Debug)]
pub(crate) struct WriteEnd(End<Sender>);

impl WriteEnd {
    pub(crate) fn new(descriptor: Descriptor) -> Result<Self> {
        End::new(descriptor, OFlags::WRONLY, Sender::from_owned_fd).map(Self)
    }

    /// Writes everything. → false where the guest reads no more.
    pub(crate) async fn write(&self, mut data: Bytes) -> Result<bool> {
        while !data.is_empty() {
            let part = data.clone();
            let written = unless_stuck(async {
                match &self.0 {
                    End::Ours(pipe) => Ok(write_ours(pipe, &part).await),
                    End::Theirs(pipe) => {
                        with_theirs(pipe, PollFlags::OUT, move |fd| rustix::io::write(fd, &part)).await
                    }
                }
            });
            match written.await? {
                Ok(count) => data.advance(count),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(error) => return Err(Error::internal("write to the guest's pipe", error)),
            }
        }
        Ok(true)
    }
}

async fn write_ours(pipe: &Sender, data: &[u8]) -> io::Result<usize> {
    loop {
        pipe.writable().await?;
        match pipe.try_write(data) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}
