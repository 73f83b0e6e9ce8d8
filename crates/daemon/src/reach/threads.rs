//! Threads that serve what sandboxes reach, each with a runtime of its own.
//!
//! A runtime of several threads wakes a second one for what the first could do as well, and what is measured in tens of
//! microseconds here is mostly waiting for threads to wake. And what blocks for a moment, as writing the audit log does
//! on a slow disk, holds up none of the daemon's own calls.

use crate::error::{Error, Result};
use crate::lock::lock;
use std::num::NonZero;
use std::sync::Mutex;
use std::thread::{JoinHandle, available_parallelism};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most threads for connections.
const MOST: usize = 4;
/// How long a runtime may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// See the module. What is dropped rather than ended ends its threads too, without being waited for.
pub(super) struct Threads {
    stop: CancellationToken,
    egress: Vec<Handle>,
    gateway: Handle,
    tasks: TaskTracker,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts one for model requests, and for connections as many as half of the processors, 1 to 4.
    ///
    /// # Errors
    /// [`Error::Config`] where the system gives no thread.
    pub(super) fn start() -> Result<Self> {
        let processors = available_parallelism().map_or(1, NonZero::get);
        let (stop, mut running) = (CancellationToken::new(), Vec::new());
        let mut start = |name: &str| {
            let (handle, thread) = start(name, stop.clone()).map_err(|error| {
                Error::Config(format!("a thread for what sandboxes reach cannot be started: {error}"))
            })?;
            running.push(thread);
            Ok(handle)
        };
        let gateway = start("gateway")?;
        let egress = (0..(processors / 2).clamp(1, MOST)).map(|_| start("egress")).collect::<Result<_>>()?;
        Ok(Self { stop, egress, gateway, tasks: TaskTracker::new(), running: Mutex::new(running) })
    }

    /// Where connections are served.
    pub(super) fn egress(&self) -> Vec<Handle> {
        self.egress.clone()
    }

    /// Does something where requests to models are served.
    ///
    /// # Errors
    /// [`Error::Config`] where it panicked.
    pub(super) async fn on_gateway<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let done = self.tasks.spawn_on(work, &self.gateway).await;
        done.map_err(|panic| Error::Config(format!("the model gateway: {panic}")))
    }

    /// Ends them; what still runs in them is dropped.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        let running = std::mem::take(&mut *lock(&self.running));
        let ended = tokio::task::spawn_blocking(move || {
            running.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        if !matches!(ended.await, Ok(0)) {
            tracing::error!("a thread for what sandboxes reach ended badly");
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn start(name: &str, stop: CancellationToken) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let runtime =
        Builder::new_current_thread().enable_all().thread_name(format!("{name}-blocking")).build()?;
    let handle = runtime.handle().clone();
    let serve = move || {
        runtime.block_on(stop.cancelled());
        runtime.shutdown_timeout(ENDING);
    };
    Ok((handle, std::thread::Builder::new().name(name.to_owned()).spawn(serve)?))
}
