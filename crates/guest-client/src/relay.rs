//! The way to a guest whose socket is elsewhere: a program beside it, `hostel-guest relay`, carries connections over one
//! pair of streams. See [`hostel_guest_protocol::relay`] for what is said there.
//!
//! Every connection becomes one end of a local socket pair, so that nothing else here knows the difference, except that
//! no descriptors come. What the relay sends is taken for hostile, as a guest's.

mod channel;
mod link;

use crate::failure::{Fault, clean};
use async_trait::async_trait;
use hostel_sandbox::{Error, Result};
use link::Link;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long a relay may take to start and greet.
const DIAL_DEADLINE: Duration = Duration::from_secs(30);

/// What starts relays.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Starts `hostel-guest relay` beside the guest.
    ///
    /// # Errors
    /// `Unavailable` where that cannot be done now.
    async fn dial(&self) -> Result<Streams>;
}

/// The standard streams of a relay. Dropping both ends it.
pub struct Streams {
    /// To it.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// From it: standard output alone.
    pub output: Pin<Box<dyn AsyncRead + Send>>,
}

/// The way to one guest. A relay is started with the first connection and again after one was lost.
pub struct Relay {
    dial: Box<dyn Dial>,
    link: tokio::sync::Mutex<Option<Link>>,
    shared: Shared,
    _stop: DropGuard,
}

/// What a relay and its links have in common.
#[derive(Debug, Clone)]
struct Shared {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The guest is frozen, and silence no sign of death.
    frozen: Arc<AtomicBool>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl Relay {
    /// A way that nobody has gone yet.
    #[must_use]
    pub fn new(dial: impl Dial + 'static) -> Arc<Self> {
        let stop = CancellationToken::new();
        let frozen = Arc::default();
        let shared = Shared { tasks: TaskTracker::new(), stop: stop.clone(), frozen };
        Arc::new(Self { dial: Box::new(dial), link: Default::default(), shared, _stop: stop.drop_guard() })
    }

    /// Says whether the guest is frozen: until it is thawed, silence does not end its connections.
    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::Release);
    }

    /// A new connection to the guest.
    pub(crate) async fn connect(&self) -> Result<UnixStream, Fault> {
        let mut link = self.link.lock().await;
        if let Some(open) = link.as_ref()
            && let Some(stream) = open.open()?
        {
            return Ok(stream);
        }
        *link = None;
        let dialed = tokio::time::timeout(DIAL_DEADLINE, self.dial());
        let new = dialed.await.map_err(|_| Fault::Gone("its relay does not answer".to_owned()))??;
        let stream = new.open()?;
        *link = Some(new);
        stream.ok_or_else(|| Fault::Gone("its relay ended at once".to_owned()))
    }

    async fn dial(&self) -> Result<Link, Fault> {
        let streams = self.dial.dial().await.map_err(|error| match error {
            Error::Unavailable { detail, .. } => Fault::Gone(detail),
            other => Fault::Gone(clean(&other.to_string())),
        })?;
        Link::start(streams, &self.shared).await
    }

    /// Ends every connection and waits until nothing of them is left.
    pub(crate) async fn close(&self) {
        self.shared.stop.cancel();
        *self.link.lock().await = None;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}
