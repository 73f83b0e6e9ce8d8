//! Connections, and how they end.

use super::patience::patient;
use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::ServiceExt as _;

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What an HTTP/2 client begins with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// How often a silent HTTP/2 client is asked, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Requests under way on one HTTP/2 connection.
const STREAMS: u32 = 1000;
/// How long a client may take nothing of what is written to it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait after a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The place that a connection has: given back when it has ended, and with it what it became.
#[derive(Clone)]
pub(crate) struct Place {
    _room: Arc<OwnedSemaphorePermit>,
    _served: TaskTrackerToken,
}

/// The listener and what is served on it.
pub(super) struct Connections {
    listener: TcpListener,
    routes: Router,
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Connections {
    pub(super) fn new(listener: TcpListener, routes: Router, most: usize, stop: CancellationToken) -> Self {
        Self { listener, routes, room: Arc::new(Semaphore::new(most)), stop }
    }

    /// Serves until told to stop, and then until every request under way is answered.
    pub(super) async fn serve(self) {
        let builder = builder();
        let graceful = GracefulShutdown::new();
        let mut open = JoinSet::new();
        // A connection that becomes a WebSocket is over for its task here, and goes on elsewhere.
        let places = TaskTracker::new();
        while let Some((stream, permit)) = self.accept().await {
            let routes = self.routes.clone();
            let place = Place { _room: Arc::new(permit), _served: places.token() };
            let of_requests = place.clone();
            let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
                request.extensions_mut().insert(of_requests.clone());
                routes.clone().oneshot(request.map(axum::body::Body::new))
            });
            let (builder, watcher, stop) = (builder.clone(), graceful.watcher(), self.stop.clone());
            open.spawn(async move {
                // No clock of the builder's runs before it knows the version: who is silent would keep the place.
                let begun = tokio::select! {
                    () = stop.cancelled() => return,
                    begun = tokio::time::timeout(HEAD_TIMEOUT, begins(&stream)) => begun,
                };
                if !matches!(begun, Ok(Ok(()))) {
                    return;
                }
                let io = TokioIo::new(patient(stream, PATIENCE));
                let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
                let connection = watcher.watch(connection);
                if let Err(error) = connection.await {
                    tracing::debug!(error = %error, "a connection broke");
                }
                drop(place);
            });
            while open.try_join_next().is_some() {}
        }
        drop(self.listener);
        graceful.shutdown().await;
        while open.join_next().await.is_some() {}
        places.close();
        places.wait().await;
    }

    /// The next connection, when there is room for it; `None` when told to stop.
    async fn accept(&self) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        loop {
            let next = async {
                let permit = Arc::clone(&self.room).acquire_owned().await.ok()?;
                Some((self.listener.accept().await, permit))
            };
            let (accepted, permit) = tokio::select! {
                () = self.stop.cancelled() => return None,
                next = next => next?,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Small events must not wait for each other.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection broke at once");
                        continue;
                    }
                    return Some((stream, permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Returns when it can be told which version of HTTP a client speaks, or that it says nothing any more.
async fn begins(stream: &TcpStream) -> std::io::Result<()> {
    let mut said = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut said).await?;
        if count == 0 || count == PREFACE.len() || said[..count] != PREFACE[..count] {
            return Ok(());
        }
        // What was looked at is still there: nothing tells of more.
        tokio::time::sleep(PAUSE).await;
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX));
    builder
}
