//! Passes bytes between two connections untouched. What is long goes through a pipe by splice(2), without coming
//! into this process.

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What is copied at once.
const BUFFER: usize = 32 * 1024;
/// How much of a direction is copied before a pipe is worth its two descriptors.
const LONG: u64 = 128 * 1024;
/// Size of a pipe: the largest that the kernel gives to everybody (pipe(7), `pipe-max-size`).
const PIPE: usize = 1 << 20;

/// Most pipes at a time, in all connections of the program; the rest copies.
static PIPES: Semaphore = Semaphore::const_new(1024);
/// How long nothing comes before a direction gives its pipe back.
const REST: Duration = Duration::from_secs(2);

/// When something last moved, so that connections without life end.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    last: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    fn mark(&self) {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }

    /// Returns when nothing moved for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let left = (last + limit).saturating_sub(self.start.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// Passes one direction until its end, and then ends that direction of `to`.
pub(crate) async fn pass(
    from: &TcpStream,
    to: &TcpStream,
    count: &AtomicU64,
    activity: &Activity,
) -> io::Result<()> {
    while copy(from, to, count, activity).await? == End::Long {
        match Pipe::make() {
            Ok(pipe) => match through(&pipe, from, to, count, activity).await? {
                End::Over => break,
                End::Long => {}
            },
            Err(error) => tracing::debug!(%error, "no pipe to pass bytes through; copying"),
        }
    }
    match shutdown(to, Shutdown::Write) {
        // The other side may be gone already.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How a way of passing bytes ended.
#[derive(PartialEq, Eq)]
enum End {
    /// The sender has nothing more.
    Over,
    /// The other way is the better one now.
    Long,
}

async fn copy(from: &TcpStream, to: &TcpStream, count: &AtomicU64, activity: &Activity) -> io::Result<End> {
    let mut buffer = Vec::new();
    let mut copied = 0;
    while copied < LONG {
        // Nothing is held for a connection on which nothing is sent.
        from.readable().await?;
        buffer.clear();
        buffer.reserve(BUFFER);
        let length = match from.try_read_buf(&mut buffer) {
            Ok(0) => return Ok(End::Over),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                buffer = Vec::new();
                continue;
            }
            Err(error) => return Err(error),
        };
        write_all(to, &buffer).await?;
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        count.fetch_add(length, Ordering::Relaxed);
        activity.mark();
        copied += length;
    }
    Ok(End::Long)
}

/// Writes all of it.
pub(crate) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    _place: SemaphorePermit<'static>,
}

impl Pipe {
    fn make() -> io::Result<Self> {
        let place = PIPES.try_acquire().map_err(io::Error::other)?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Without the right to a larger one the usual size does.
        let _ = fcntl_setpipe_size(&write, PIPE);
        Ok(Self { read, write, _place: place })
    }
}

/// Until the end, or until nothing came for a while: then the pipe is worth more to another. It is empty whenever it is
/// filled, so "would block" is always said by a socket.
async fn through(
    pipe: &Pipe,
    from: &TcpStream,
    to: &TcpStream,
    count: &AtomicU64,
    activity: &Activity,
) -> io::Result<End> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    loop {
        let fill = || Ok(splice(from, None, &pipe.write, None, PIPE, flags)?);
        let mut left = tokio::select! {
            biased;
            filled = from.async_io(Interest::READABLE, fill) => filled?,
            () = tokio::time::sleep(REST) => return Ok(End::Long),
        };
        if left == 0 {
            return Ok(End::Over);
        }
        count.fetch_add(u64::try_from(left).unwrap_or(u64::MAX), Ordering::Relaxed);
        while left > 0 {
            let drain = || Ok(splice(&pipe.read, None, to, None, left, flags)?);
            left -= to.async_io(Interest::WRITABLE, drain).await?;
            activity.mark();
        }
    }
}
