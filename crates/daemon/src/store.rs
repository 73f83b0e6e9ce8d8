//! The daemon's durable records: sandboxes, their events, and requests that may be repeated.
//!
//! One thread owns the SQLite connection; another has one of its own that only writes the log back. Writers send the
//! first a [`Change`]; what waits is committed together, in one transaction. After the commit, and in its order, each
//! change's `on_commit` runs and its events are broadcast: nothing is visible before it is durable, and no event comes
//! before what it tells about. Durable here means that it survives the daemon (WAL with `synchronous=NORMAL`), not a
//! power cut: no fsync on the way.

mod change;
mod checkpoints;
mod connection;
mod events;
mod pools;
mod requests;
mod schema;
mod writer;

pub(crate) use change::{Change, StoredSandbox, StoredWarm};
pub(crate) use pools::StoredPool;
pub(crate) use requests::{RequestKey, StoredRequest};

use crate::error::{Error, Result};
use crate::record::{Cursor, Event};
use checkpoints::Checkpoints;
use connection::Connection;
use hostel_pool::PoolName;
use requests::KnownRequests;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{broadcast, mpsc, oneshot};
use writer::{Command, OnCommit};

/// Events kept for watchers that come back.
pub(crate) const EVENTS_KEPT: u64 = 10_000;
/// Changes that may wait for the thread before writers wait too.
const QUEUE: usize = 1024;
/// Events a live watcher may be behind before it reads from the store instead.
const BROADCAST: usize = 4096;

/// A handle to the store. Clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Arc<Event>>,
    latest: Arc<AtomicU64>,
    identity: Arc<str>,
    known_requests: KnownRequests,
}

/// What waits for the store's thread to end.
pub(crate) struct StoreThread(std::thread::JoinHandle<()>);

impl StoreThread {
    /// Waits until everything is written; every [`Store`] must have been dropped or closed before.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the store's thread panicked");
        }
    }
}

impl Store {
    /// Opens or creates the store in a directory.
    ///
    /// # Errors
    /// [`Error::Store`] where the database cannot be opened, is damaged, or is of a newer version.
    pub(crate) fn open(directory: &Path) -> Result<(Self, StoreThread)> {
        let path = directory.join("hosteld.db");
        let connection = Connection::open(&path)?;
        let identity = connection.identity()?;
        let known_requests = connection.known.clone();
        let latest = Arc::new(AtomicU64::new(connection.latest_cursor()?));
        let (commands, queue) = mpsc::channel(QUEUE);
        let (events, _) = broadcast::channel(BROADCAST);
        let writer =
            writer::Writer::new(connection, Checkpoints::start(&path)?, events.clone(), Arc::clone(&latest));
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| Error::store("start the thread", error))?;
        Ok((
            Self { commands, events, latest, identity: identity.into(), known_requests },
            StoreThread(thread),
        ))
    }

    /// Commits a change and returns once it is durable. `on_commit` runs right after the commit, on the store's
    /// thread, before anybody hears of it.
    pub(crate) async fn commit_then(
        &self,
        change: Change,
        on_commit: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let change = Box::new(change.prepare()?);
        let (reply, answer) = oneshot::channel();
        let on_commit: OnCommit = Box::new(on_commit);
        self.send(Command::Write { change, on_commit, reply }).await?;
        answer.await.map_err(|_| closed())?
    }

    /// Everything that was kept of sandboxes.
    pub(crate) async fn sandboxes(&self) -> Result<Vec<StoredSandbox>> {
        self.read(Connection::sandboxes).await
    }

    /// Up to `limit` events after `cursor`; [`Error::CursorExpired`] where some of them are gone.
    pub(crate) async fn events_after(&self, cursor: Cursor, limit: usize) -> Result<Vec<Event>> {
        self.read(move |connection| connection.events_after(cursor, limit)).await
    }

    /// What an earlier request with this key made.
    pub(crate) async fn request(&self, key: &RequestKey) -> Result<Option<StoredRequest>> {
        if !self.known_requests.may_hold(key) {
            return Ok(None);
        }
        let key = key.clone();
        self.read(move |connection| connection.request(&key)).await
    }

    /// Keeps `request` unless there is one with this key already, which is then returned.
    pub(crate) async fn claim_request(
        &self,
        key: &RequestKey,
        request: StoredRequest,
    ) -> Result<Option<StoredRequest>> {
        let key = key.clone();
        self.read(move |connection| connection.claim_request(&key, &request)).await
    }

    /// Forgets a request that came to nothing, so that it may be tried again.
    pub(crate) async fn release_request(&self, key: &RequestKey) -> Result<()> {
        let key = key.clone();
        self.read(move |connection| connection.release_request(&key)).await
    }

    /// A value kept under a name.
    pub(crate) async fn setting(&self, name: &'static str) -> Result<Option<String>> {
        self.read(move |connection| connection.setting(name)).await
    }

    /// Keeps a value under a name.
    pub(crate) async fn set_setting(&self, name: &'static str, value: String) -> Result<()> {
        self.read(move |connection| connection.set_setting(name, &value)).await
    }

    /// The pools, and the warm sandboxes of all of them.
    pub(crate) async fn pools(&self) -> Result<(Vec<StoredPool>, Vec<StoredWarm>)> {
        self.read(|connection| Ok((connection.pools()?, connection.warm()?))).await
    }

    /// Writes pools, new or changed, and the request that this fulfils: all of it, or nothing.
    pub(crate) async fn keep_pools(
        &self,
        pools: Vec<StoredPool>,
        request: Option<(RequestKey, StoredRequest)>,
    ) -> Result<()> {
        self.read(move |connection| connection.keep_pools(&pools, request.as_ref())).await
    }

    /// Forgets a pool. Its warm sandboxes are forgotten one by one.
    pub(crate) async fn forget_pool(&self, name: PoolName) -> Result<()> {
        self.read(move |connection| connection.forget_pool(&name)).await
    }

    /// Writes everything into the database file proper; for an orderly end.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        self.read(|connection| connection.checkpoint()).await
    }

    /// Hears events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// The cursor of the newest event that is visible.
    pub(crate) fn latest_cursor(&self) -> Cursor {
        self.latest.load(Ordering::Acquire)
    }

    /// Eight characters that tell this store from others, so that cursors of another are noticed.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |connection: &Connection| {
            // Nobody waits any more when this fails, which is no error.
            let _ = reply.send(work(connection));
        });
        self.send(Command::Work(work)).await?;
        answer.await.map_err(|_| closed())?
    }

    async fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::store("write", "the store is closed")
}

#[cfg(test)]
mod tests;
