//! The clients of sessions, whichever way they are connected: event streams, WebSockets, gRPC, replies to a message.
//!
//! Nothing is sent to rooms of clients. Each listens for itself with its own place in the journal, so that nobody waits
//! for who is slower and nobody who comes again misses anything.

use crate::error::{Error, Result};
use crate::host::{Delivery, SessionHost, SubscriptionSource};
use crate::id::SessionId;
use crate::types::EventTypes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most clients that one session may have.
const MOST: usize = 2000;
/// How often a store that fails is asked again, and how long after.
const ATTEMPTS: u32 = 5;
const AGAIN: Duration = Duration::from_secs(1);

/// Where clients are connected with sessions.
#[derive(Clone)]
pub struct ClientHub {
    host: Arc<dyn SessionHost>,
    stop: CancellationToken,
}

impl ClientHub {
    /// One for the sessions of a host. Its clients are let go with `stop`.
    #[must_use]
    pub fn new(host: Arc<dyn SessionHost>, stop: CancellationToken) -> Self {
        Self { host, stop }
    }

    /// Connects a client that wants events of some types after a number: those that are there, then those that come.
    ///
    /// # Errors
    /// [`Error::Busy`] where a session has 2,000, and those of [`SessionHost::subscribe`].
    pub async fn connect(&self, id: &SessionId, after: u64, types: EventTypes) -> Result<ClientListener> {
        let clients = self.client_count(id);
        if clients >= MOST {
            let what = format!("{clients} clients listen to this session");
            return Err(Error::Busy { what, retry_after_seconds: 5 });
        }
        let source = self.host.subscribe(id, after).await?;
        let (hub, id) = (self.clone(), id.clone());
        Ok(ClientListener { hub, id, types, source, failed: 0, again: Instant::now() })
    }

    /// How many clients a session has.
    #[must_use]
    pub fn client_count(&self, id: &SessionId) -> usize {
        self.host.subscribers(id)
    }
}

/// One client, for as long as it listens.
pub struct ClientListener {
    hub: ClientHub,
    id: SessionId,
    types: EventTypes,
    source: Box<dyn SubscriptionSource>,
    /// How often in a row nothing could be read.
    failed: u32,
    /// When that is tried again.
    again: Instant,
}

/// Why a client hears no more.
#[derive(Debug)]
pub enum Disconnect {
    /// The session is deleted.
    Deleted,
    /// The server is stopping, or another one has the session. Who comes again goes on where it was.
    Stopping,
    /// The store could not be read, five times.
    Failed(Error),
}

impl ClientListener {
    /// What it is told next. Cancel safe.
    ///
    /// # Errors
    /// [`Disconnect`], after which there is nothing more.
    pub async fn next(&mut self) -> std::result::Result<Delivery, Disconnect> {
        loop {
            let read = async {
                if self.failed > 0 {
                    tokio::time::sleep_until(self.again).await;
                }
                self.source.next().await
            };
            let read = tokio::select! {
                biased;
                () = self.hub.stop.cancelled() => return Err(Disconnect::Stopping),
                read = read => read,
            };
            match read {
                Ok(Some(delivery)) => {
                    self.failed = 0;
                    if self.types.want_delivery(&delivery) {
                        return Ok(delivery);
                    }
                }
                Ok(None) => {
                    // A session that is still there lets nobody go: its host does.
                    let found = self.hub.host.get(&self.id).await;
                    let is_deleted = matches!(found, Err(Error::NotFound { .. }));
                    return Err(if is_deleted { Disconnect::Deleted } else { Disconnect::Stopping });
                }
                Err(error) if self.failed + 1 >= ATTEMPTS => return Err(Disconnect::Failed(error)),
                Err(error) => {
                    self.failed += 1;
                    self.again = Instant::now() + AGAIN;
                    tracing::warn!(session = %self.id, %error, attempt = self.failed, "events could not be read");
                }
            }
        }
    }
}
