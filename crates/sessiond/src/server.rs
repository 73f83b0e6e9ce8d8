//! The listener and its connections: HTTP/1.1 and HTTP/2 on one port.

mod connection;
mod patience;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::grpc;
use crate::rest::{self, App};
use axum::Router;
use connection::Connections;
pub(crate) use connection::Place;
use hostel_session::{BlobStore, ClientHub, LocalSessionHost, SessionHost, Store};
use sd_notify::NotifyState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where the sessions come from.
enum Sessions {
    /// From a store and one for blobs, by a host of ours.
    Stored(Arc<dyn Store>, BlobStore),
    /// From somebody else's host.
    Given(Arc<dyn SessionHost>),
}

/// A server that is bound and open, with nothing running.
pub struct Server {
    config: Config,
    listener: TcpListener,
    sessions: Sessions,
}

impl Server {
    /// Binds the address and opens the stores.
    ///
    /// # Errors
    /// Whatever keeps it from running: configuration, address, store, blobs.
    pub async fn build(config: Config) -> Result<Self> {
        config.validate()?;
        let listener = bind(config.listen).await?;
        let (store, blobs) = crate::store::open(&config).await?;
        Ok(Self { config, listener, sessions: Sessions::Stored(store, blobs) })
    }

    /// Binds the address, for sessions of a host that is there already. It is shut down with the server.
    ///
    /// # Errors
    /// Whatever keeps it from running: configuration, address.
    pub async fn with_host(config: Config, host: Arc<dyn SessionHost>) -> Result<Self> {
        config.validate()?;
        let listener = bind(config.listen).await?;
        Ok(Self { config, listener, sessions: Sessions::Given(host) })
    }

    /// Where it listens, with the port that the system chose.
    ///
    /// # Errors
    /// [`Error::Listen`] where the system does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        let failed =
            |error: std::io::Error| Error::Listen { address: self.config.listen, problem: error.to_string() };
        self.listener.local_addr().map_err(failed)
    }

    /// Takes the sessions up and serves them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn spawn(self) -> Result<Running> {
        let address = self.address()?;
        let (host, store): (Arc<dyn SessionHost>, Option<Arc<dyn Store>>) = match self.sessions {
            Sessions::Given(host) => (host, None),
            Sessions::Stored(store, blobs) => {
                let config = self.config.host.clone();
                let host = LocalSessionHost::open(Arc::clone(&store), blobs, config).await?;
                (host, Some(store))
            }
        };
        let stop = CancellationToken::new();
        let routes = routes(&host, &stop, &self.config);
        let connections = Connections::new(self.listener, routes, self.config.max_connections, stop.clone());
        let mut serving = JoinSet::new();
        serving.spawn(connections.serve());
        tracing::info!(%address, "listening");
        notify(NotifyState::Ready);
        Ok(Running { address, host, store, stop, serving, drain_timeout: self.config.drain_timeout })
    }
}

/// Everything that is served on the port, behind the same guards.
fn routes(host: &Arc<dyn SessionHost>, stop: &CancellationToken, config: &Config) -> Router {
    let hub = ClientHub::new(Arc::clone(host), stop.clone());
    let grpc = grpc::routes(Arc::clone(host), hub.clone());
    let rest = rest::router(App::new(Arc::clone(host), hub, stop.clone()));
    rest::guarded(rest.merge(grpc), config)
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let failed = |error: std::io::Error| Error::Listen { address, problem: error.to_string() };
    TcpListener::bind(address).await.map_err(failed)
}

/// A server that runs. Dropped, it ends at once; sessions go on in their sandboxes.
pub struct Running {
    address: SocketAddr,
    host: Arc<dyn SessionHost>,
    store: Option<Arc<dyn Store>>,
    stop: CancellationToken,
    serving: JoinSet<()>,
    drain_timeout: Duration,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sessions that it serves.
    #[must_use]
    pub fn host(&self) -> &Arc<dyn SessionHost> {
        &self.host
    }

    /// Accepts nothing more, ends streams, waits for requests under way, lets go of the sessions, closes the store.
    /// Turns go on in their sandboxes, and the next server has them. Bounded by [`Config::drain_timeout`].
    pub async fn stop(mut self) {
        let begin = Instant::now();
        notify(NotifyState::Stopping);
        self.stop.cancel();
        // Half of the time is the sessions', however long somebody's request takes.
        let half = self.drain_timeout / 2;
        let served = async { while self.serving.join_next().await.is_some() {} };
        if tokio::time::timeout(half, served).await.is_err() {
            tracing::warn!(limit = ?half, "requests under way did not end in time and are dropped");
            self.serving.shutdown().await;
        }
        let left = async {
            self.host.shutdown().await;
            if let Some(store) = &self.store {
                store.close().await;
            }
        };
        let rest = self.drain_timeout.saturating_sub(begin.elapsed()).max(half);
        if tokio::time::timeout(rest, left).await.is_err() {
            tracing::warn!(limit = ?rest, "the sessions were not let go in time; the next server takes them up as they are in the store");
        }
        tracing::info!(duration = ?begin.elapsed(), "stopped; turns go on in their sandboxes");
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
