//! A sandbox's doors to the gateway.

use crate::error::{Error, Result};
use crate::request::{Seat, serve};
use crate::shared::Core;
use crate::stream::impatient;
use hostel_sandbox::label::{self, Labels};
use hostel_sandbox::{ModelBudget, SandboxId};
use hostel_untrusted_socket::UntrustedSocket;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::SecretString;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After a failed accept, which mostly means that there are too many descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Headers of one request.
const MAX_HEADERS: usize = 100;

/// A listening socket that is reached from inside a sandbox.
#[derive(Debug)]
pub enum Door {
    /// For `ANTHROPIC_UNIX_SOCKET`.
    Unix(std::os::unix::net::UnixListener),
    /// On the sandbox's loopback, for `ANTHROPIC_BASE_URL`.
    Tcp(std::net::TcpListener),
}

/// What a sandbox may do, and how it is known.
#[derive(Debug, Clone)]
pub struct Access {
    /// What its programs send in place of a key. Good for nothing elsewhere.
    pub token: SecretString,
    /// Its labels: which budgets hold for it, and what reports group by.
    pub labels: Labels,
    /// What it may use in its life.
    pub budget: ModelBudget,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

type Stream = Either<UntrustedSocket, TcpStream>;

impl Listener {
    fn new(door: Door) -> io::Result<Self> {
        match door {
            Door::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Self::Unix)
            }
            Door::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Either::Left(UntrustedSocket::new(stream)))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Either::Right(stream))
            }
        }
    }
}

/// The doors of one sandbox. Dropping it closes them and cuts their connections; [`close`](Self::close) also waits.
pub struct Attachment {
    seat: Arc<Seat>,
    end: CancellationToken,
    /// Its doors with their connections, and the answers on their way.
    tasks: TaskTracker,
    left: AtomicBool,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").field("sandbox", &self.seat.sandbox).finish_non_exhaustive()
    }
}

impl Attachment {
    pub(crate) fn open(
        core: &Arc<Core>,
        tasks: &TaskTracker,
        end: CancellationToken,
        sandbox: SandboxId,
        access: Access,
        doors: Vec<Door>,
    ) -> Result<Self> {
        label::validate(&access.labels)?;
        access.budget.validate()?;
        let listeners = doors
            .into_iter()
            .map(Listener::new)
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| Error::Door { sandbox: sandbox.clone(), detail: error.to_string() })?;
        core.ledger.attach(&sandbox, access.labels, access.budget)?;
        let room = Arc::new(Room::new(core.limits.connections));
        let own = TaskTracker::new();
        let both = [tasks.clone(), own.clone()];
        let seat = Arc::new(Seat::new(Arc::clone(core), sandbox, access.token, both));
        for listener in listeners {
            seat.spawn(guard(listener, Arc::clone(&seat), Arc::clone(&room), end.clone()));
        }
        Ok(Self { seat, end, tasks: own, left: AtomicBool::new(false) })
    }

    /// Sets what the sandbox may use in its life; it holds from the next request on.
    ///
    /// # Errors
    /// [`Error::Domain`] for numbers out of range.
    pub fn set_budget(&self, budget: ModelBudget) -> Result<()> {
        budget.validate()?;
        self.seat.core.ledger.set_limits(&self.seat.sandbox, budget);
        Ok(())
    }

    /// Sets the labels; they hold from the next request on.
    ///
    /// # Errors
    /// [`Error::Domain`] naming the label.
    pub fn set_labels(&self, labels: Labels) -> Result<()> {
        label::validate(&labels)?;
        self.seat.core.ledger.set_labels(&self.seat.sandbox, labels);
        Ok(())
    }

    /// Closes the doors, cuts what goes on, and returns when nothing does any more. What was used until then counts.
    pub async fn close(&self) {
        self.leave();
        self.tasks.wait().await;
    }

    fn leave(&self) {
        self.end.cancel();
        self.tasks.close();
        // Once only: the next attachment of the same sandbox must not be detached by the end of this one.
        if !self.left.swap(true, Ordering::Relaxed) {
            self.seat.core.ledger.detach(&self.seat.sandbox);
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How many connections a sandbox may have, over all its doors.
struct Room {
    places: Arc<Semaphore>,
    /// How many wait for a place. While there are some, connections end after a response, or when they are idle.
    waiting: watch::Sender<usize>,
}

impl Room {
    fn new(connections: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(connections)), waiting: watch::Sender::new(0) }
    }

    async fn place(&self) -> io::Result<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.places);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Ok(place);
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        let place = places.acquire_owned().await;
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
        place.map_err(io::Error::other)
    }

    /// Returns once somebody waits for a place.
    async fn crowded(&self) {
        if self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Accepts until the end. A connection that is one too many waits until another is over or idle.
async fn guard(listener: Listener, seat: Arc<Seat>, room: Arc<Room>, end: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(sandbox = %seat.sandbox, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = tokio::select! {
            () = end.cancelled() => break,
            place = room.place() => place,
        };
        if let Ok(place) = place {
            let (seat, room, end) = (Arc::clone(&seat), Arc::clone(&room), end.clone());
            connections.spawn(async move {
                connection(stream, &seat, &room, &end).await;
                drop(place);
            });
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: Stream, seat: &Arc<Seat>, room: &Room, end: &CancellationToken) {
    let limits = seat.core.limits;
    let begun = Notify::new();
    let service = service_fn(|request| {
        begun.notify_one();
        serve(Arc::clone(seat), request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(impatient(stream, limits.write_timeout)), service);
    let mut serving = pin!(serving);
    // One that asked nothing yet is not idle: its first request is on its way.
    let mut unwanted = pin!(async {
        begun.notified().await;
        room.crowded().await;
    });
    let mut last = false;
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = unwanted.as_mut(), if !last => {
                // Ends at once if it is idle, otherwise after the response.
                serving.as_mut().graceful_shutdown();
                last = true;
            }
            served = serving.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(sandbox = %seat.sandbox, %error, "a connection broke");
                }
                return;
            }
        }
    }
}
