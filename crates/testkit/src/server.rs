//! The endpoint: where it listens, what it saw, how it stops.

mod connection;
mod listen;
mod seen;

pub use seen::SeenRequest;

use crate::messages::Attempts;
use crate::{Result, Script};
use secrecy::SecretString;
use seen::Seen;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// So many connections are served at once; others wait.
const MAX_CONNECTIONS: usize = 4096;
/// What is being answered may go on for so long after [`ModelServer::stop`].
const GRACE: Duration = Duration::from_secs(1);

/// What an endpoint shall be like.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// The loopback address to listen on, port 0 for any [127.0.0.1:0].
    pub tcp: Option<SocketAddr>,
    /// The unix socket to listen on. A stale one is replaced [none].
    pub unix: Option<PathBuf>,
    /// The only key that is taken, as `x-api-key` or bearer token; everything under `/v1/` is refused with 401
    /// otherwise [any or none].
    pub key: Option<SecretString>,
    /// What is played for prompts without a script [`echo: ` and the prompt].
    pub default_steps: Script,
    /// How long to wait before each answer to `POST /v1/messages` [0].
    pub latency: Duration,
    /// The longest body of a request, in bytes; beyond it is 413 [32 MiB].
    pub max_body_bytes: usize,
    /// How many requests are kept for [`ModelServer::requests`]; of their bodies 64 MiB in all [1000].
    pub keep_requests: usize,
    /// The models that `GET /v1/models` lists. Messages may name any other.
    pub models: Vec<String>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        let models = ["claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"];
        Self {
            tcp: Some((Ipv4Addr::LOCALHOST, 0).into()),
            unix: None,
            key: None,
            default_steps: Script::new(),
            latency: Duration::ZERO,
            max_body_bytes: 32 << 20,
            keep_requests: 1000,
            models: models.map(str::to_owned).to_vec(),
        }
    }
}

/// A running endpoint. Dropping it cuts everything off; [`Self::stop`] waits.
#[derive(Debug)]
pub struct ModelServer {
    address: Option<SocketAddr>,
    unix: Option<PathBuf>,
    context: Arc<Context>,
}

/// What connections share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) key: Option<SecretString>,
    pub(crate) default_steps: Script,
    pub(crate) latency: Duration,
    pub(crate) models: Vec<String>,
    pub(crate) attempts: Attempts,
    max_body: usize,
    seen: Seen,
    /// Distinguishes ids of this endpoint from those of others before it.
    started: u64,
    ids: AtomicU64,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    /// No new work.
    stopping: CancellationToken,
    /// No work at all.
    ended: CancellationToken,
}

impl Context {
    /// The end of an id that nothing else has, of this endpoint or of others before it.
    pub(crate) fn new_id(&self) -> String {
        format!("01{:016x}{:06x}", self.started, self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

impl ModelServer {
    /// Listens and answers until [`Self::stop`].
    ///
    /// # Errors
    /// When the address is not loopback or cannot be had, or the default steps cannot be played.
    pub async fn start(options: ModelOptions) -> Result<Self> {
        options.default_steps.check()?;
        let bound = listen::bind(options.tcp, options.unix.clone()).await?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let context = Arc::new(Context {
            key: options.key,
            default_steps: options.default_steps,
            latency: options.latency,
            models: options.models,
            attempts: Attempts::default(),
            max_body: options.max_body_bytes,
            seen: Seen::new(options.keep_requests),
            started: u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX),
            ids: AtomicU64::new(0),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        for listener in bound.listeners {
            context.tasks.spawn(connection::accept(context.clone(), listener));
        }
        Ok(Self { address: bound.address, unix: options.unix, context })
    }

    /// The base URL, `http://127.0.0.1:PORT`; without TCP `http://localhost`, for clients that are told the socket
    /// besides.
    pub fn url(&self) -> String {
        self.address.map_or_else(|| "http://localhost".to_owned(), |address| format!("http://{address}"))
    }

    /// The TCP address, where there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The requests seen, oldest first. The oldest are forgotten when there are too many.
    pub fn requests(&self) -> Vec<Arc<SeenRequest>> {
        self.context.seen.all()
    }

    /// Waits until at least so many requests were seen. Cancel safe; the deadline is the caller's.
    pub async fn saw(&self, requests: u64) {
        self.context.seen.wait_for(requests).await;
    }

    /// Takes nothing new, gives what is being answered a second, cuts off the rest, and waits for all of it.
    pub async fn stop(self) {
        self.context.stopping.cancel();
        self.context.tasks.close();
        if tokio::time::timeout(GRACE, self.context.tasks.wait()).await.is_err() {
            self.context.ended.cancel();
            self.context.tasks.wait().await;
        }
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.context.stopping.cancel();
        self.context.ended.cancel();
        if let Some(path) = &self.unix {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}
