//! A guest, as the host sees it.

use crate::connection::{Connection, encode};
use crate::convert::{self, Activity};
use crate::endpoint::Endpoint;
use crate::failure::{Fault, Subject, broken, clean, closing};
use hostel_guest_protocol::{Answer, Ask, Empty, GuestConfig};
use hostel_sandbox::{Error, Result};
use hostel_untrusted_socket::Descriptor;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for an answer.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Connections kept for the next request.
const MOST_IDLE: usize = 2;
/// Connections that are in use for longer than an answer: attachments, waits, watches, contents. A guest has 256 in
/// all; the others are for questions.
const MOST_OCCUPIED: usize = 224;
/// Sentences of a guest about itself that are passed on.
const MOST_WEAKNESSES: usize = 64;

/// One sandbox's guest. Clones are the same guest.
///
/// Every call may be dropped at any time; the connection it used is then closed. A call that gets no answer
/// within 30 seconds is `Unavailable` (`guest`), and what a guest says wrongly is `Protocol` (`guest`). Beyond 224
/// attachments, waits, watches, and files and archives on their way, another one is `LimitReached` (`attachments`).
#[derive(Debug, Clone)]
pub struct Guest {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Guest {
    /// A guest that runs already. Nothing is sent before the first call.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let (idle, tasks, stop) = (Mutex::default(), TaskTracker::new(), CancellationToken::new());
        let places = Arc::new(Semaphore::new(MOST_OCCUPIED));
        Self { inner: Arc::new(Inner { endpoint, idle, places, tasks, stop }) }
    }

    /// Waits on the socket that a guest is born with until it is ready; at most as long as `deadline`. The socket
    /// then serves requests. → the guest, and what is weaker than wanted, one sentence each.
    ///
    /// # Errors
    /// `Internal` where the guest says that it cannot be set up; `Unavailable` where it died or is not ready in
    /// time; `Protocol`.
    pub async fn born(
        endpoint: Endpoint,
        first: impl Into<OwnedFd>,
        deadline: Duration,
    ) -> Result<(Self, Vec<String>)> {
        Self::born_of(endpoint, first, &[], deadline).await
    }

    /// The same for a guest that waits to be told whose it is: `birth`, a whole frame.
    ///
    /// # Errors
    /// As [`Self::born`].
    pub async fn born_of(
        endpoint: Endpoint,
        first: impl Into<OwnedFd>,
        birth: &[u8],
        deadline: Duration,
    ) -> Result<(Self, Vec<String>)> {
        let mut connection = Connection::born(first.into())
            .map_err(|error| Error::internal("use the guest's first connection", error))?;
        let welcome = within(deadline, connection.bear(birth)).await?;
        if !welcome.failure.is_empty() {
            return Err(Error::internal("set up the jail", clean(&welcome.failure)));
        }
        let guest = Self::new(endpoint);
        guest.keep(connection)?;
        let weaknesses = welcome.weaknesses.iter().take(MOST_WEAKNESSES).map(|text| clean(text));
        Ok((guest, weaknesses.collect()))
    }

    /// Asks whether it answers, and waits at most as long as `deadline`.
    ///
    /// # Errors
    /// `Unavailable` where it does not.
    pub async fn ping(&self, deadline: Duration) -> Result<()> {
        let (connection, answer, _) =
            self.converse(Ask::Ping(Empty {}), &Subject::guest(), Some(deadline)).await?;
        self.keep(connection)?;
        convert::done(answer)
    }

    /// Number of the process that listens on its socket, as this process sees it. Whoever can write to the socket's
    /// directory decides who that is, and it may be gone, and its number another's: check what it is before use.
    ///
    /// # Errors
    /// `Unavailable` where nobody listens; `Internal` where the process is not visible from here.
    pub async fn peer(&self) -> Result<u32> {
        let stream = within(CALL_DEADLINE, self.inner.endpoint.connect()).await?;
        let peer = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
        peer.filter(|pid| *pid != 0).ok_or_else(|| {
            Error::internal("find the guest's process", "it is not visible from the daemon's PID namespace")
        })
    }

    /// Replaces its configuration, the token excepted.
    ///
    /// # Errors
    /// `InvalidArgument`; `Unavailable`.
    pub async fn configure(&self, config: GuestConfig) -> Result<()> {
        convert::done(self.call(Ask::Configure(config), &Subject::guest()).await?.0)
    }

    /// How busy the sandbox is.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn activity(&self) -> Result<Activity> {
        convert::activity(self.call(Ask::GetActivity(Empty {}), &Subject::guest()).await?.0)
    }

    /// Lets it end every process and exit.
    ///
    /// # Errors
    /// `Unavailable` where it is gone already or does not answer.
    pub async fn shutdown_guest(&self) -> Result<()> {
        convert::done(self.call(Ask::Shutdown(Empty {}), &Subject::guest()).await?.0)
    }

    /// Lets go of the guest, which goes on: ends every call, stream and attachment with `Unavailable` (`daemon`) and
    /// waits until no task of this guest is left.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.idle().clear();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.endpoint.close().await;
    }

    /// Says whether the sandbox is frozen: silence is then no sign that a guest elsewhere is lost.
    pub fn set_frozen(&self, frozen: bool) {
        self.inner.endpoint.set_frozen(frozen);
    }

    /// Whether contents of files come as descriptors, not as frames.
    pub(crate) fn hands_descriptors(&self) -> bool {
        self.inner.endpoint.hands_descriptors()
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.inner.stop
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a caller's work until we are closed.
    pub(crate) async fn unless_closed<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => Err(closing()),
            result = work => result,
        }
    }

    /// Asks, and gets an answer that is not a failure.
    pub(crate) async fn call(&self, ask: Ask, subject: &Subject) -> Result<(Answer, Option<Descriptor>)> {
        let (connection, answer, descriptor) = self.converse(ask, subject, Some(CALL_DEADLINE)).await?;
        self.keep(connection)?;
        Ok((answer, descriptor))
    }

    /// Asks, and gets the connection too, for what follows.
    pub(crate) async fn converse(
        &self,
        ask: Ask,
        subject: &Subject,
        deadline: Option<Duration>,
    ) -> Result<(Connection, Answer, Option<Descriptor>)> {
        let request = encode(ask)?;
        let exchange = self.exchange(&request);
        let exchange = async {
            match deadline {
                Some(deadline) => within(deadline, exchange).await,
                None => Ok(exchange.await?),
            }
        };
        let (connection, answer, descriptor) = self.unless_closed(exchange).await?;
        match answer {
            Answer::Failed(failure) => {
                self.keep(connection)?;
                Err(subject.error(failure))
            }
            answer => Ok((connection, answer, descriptor)),
        }
    }

    /// The same for what occupies the connection for longer, until it is kept again or dropped.
    ///
    /// # Errors
    /// `LimitReached` where too many are.
    pub(crate) async fn occupy(
        &self,
        ask: Ask,
        subject: &Subject,
        deadline: Option<Duration>,
    ) -> Result<(Connection, Answer, Option<Descriptor>)> {
        let place = self.inner.places.clone().try_acquire_owned().map_err(|_| Error::LimitReached {
            what: "attachments",
            detail: format!("{MOST_OCCUPIED} at a time in one sandbox"),
        })?;
        let (mut connection, answer, descriptor) = self.converse(ask, subject, deadline).await?;
        connection.occupy(place);
        Ok((connection, answer, descriptor))
    }

    async fn exchange(&self, request: &[u8]) -> Result<(Connection, Answer, Option<Descriptor>), Fault> {
        if let Some(mut connection) = self.take_idle() {
            match connection.ask(request).await {
                Ok((answer, descriptor)) => return Ok((connection, answer, descriptor)),
                Err(Fault::Gone(_)) if connection.was_dead() => {}
                Err(fault) => return Err(fault),
            }
        }
        let mut connection = Connection::open(&self.inner.endpoint).await?;
        let (answer, descriptor) = connection.ask(request).await?;
        Ok((connection, answer, descriptor))
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some(mut connection) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Opens a connection ahead of the next request, if there is none. A sandbox in which one process ran after
    /// another will be asked again; to most of the others it happens once.
    pub(crate) async fn stock_up(&self) {
        if self.idle().is_empty() {
            // Whoever comes next opens one where this fails, and hears why.
            let _ = self.ping(CALL_DEADLINE).await;
        }
    }

    /// Waits until a kept connection has something to be read, or has ended.
    #[cfg(test)]
    pub(crate) async fn idle_has_heard(&self) {
        let connection = self.idle().pop();
        if let Some(connection) = connection {
            let _ = connection.socket.readable().await;
            self.idle().push(connection);
        }
    }

    /// Keeps a connection for later requests.
    pub(crate) fn keep(&self, mut connection: Connection) -> Result<()> {
        if !connection.inbox.is_empty() {
            return Err(broken("it said more than was asked"));
        }
        connection.inbox.release_all();
        connection.free();
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE && !self.inner.stop.is_cancelled() {
            idle.push(connection);
        }
        Ok(())
    }
}

/// Waits for the guest, but not for ever.
pub(crate) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Error> {
    let late = || Error::Unavailable { what: "guest", detail: format!("no answer within {deadline:?}") };
    Ok(tokio::time::timeout(deadline, work).await.map_err(|_| late())??)
}
