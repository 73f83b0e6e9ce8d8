//! The sessions that are in memory.

use super::Shared;
use super::deadlines::Deadlines;
use crate::bus::{EventBus, Subscription};
use crate::error::{Error, Result};
use crate::id::SessionId;
use crate::session::Session;
use crate::store::Store;
use crate::worker::options::Spares;
use crate::worker::{Command, Left, MAILBOX, Worker};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long workers may take to commit what they have when the host goes away.
const LEAVING: Duration = Duration::from_secs(10);

/// How long a session that broke is left alone before it is taken up again, at first and at most.
const BROKEN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The sessions that are in memory, and those that somebody listens to.
pub(super) struct Loaded {
    entries: Mutex<HashMap<SessionId, Entry>>,
    /// Whoever loads one does so alone, so that none is loaded twice.
    loading: tokio::sync::Mutex<()>,
    /// Those of sessions that are not in memory.
    pub(super) deadlines: Deadlines,
    tasks: TaskTracker,
    leaving: CancellationToken,
}

struct Entry {
    bus: Arc<EventBus>,
    worker: Option<Handle>,
}

impl Entry {
    /// Of a session that nobody looks after yet.
    fn of(session: &Session) -> Self {
        Self { bus: EventBus::new(session.last_event), worker: None }
    }

    /// Whether a worker has it.
    fn lives(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| !worker.mailbox.is_closed())
    }
}

#[derive(Clone)]
struct Handle {
    mailbox: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<Session>>,
}

impl Loaded {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::new(HashMap::new()),
            loading: tokio::sync::Mutex::new(()),
            deadlines: Deadlines::default(),
            tasks: TaskTracker::new(),
            leaving: CancellationToken::new(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<SessionId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self, id: &SessionId) -> Option<Handle> {
        let entries = self.entries();
        entries.get(id)?.worker.clone().filter(|worker| !worker.mailbox.is_closed())
    }

    /// The record as it was last durable.
    pub(super) fn view(&self, id: &SessionId) -> Option<Session> {
        self.living(id).map(|worker| Session::clone(&worker.view.borrow()))
    }

    pub(super) fn is_loaded(&self, id: &SessionId) -> bool {
        self.living(id).is_some()
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.entries().iter().filter(|(_, entry)| entry.lives()).map(|(id, _)| id.clone()).collect()
    }

    /// How many sessions are in memory, and how many of them have a turn.
    pub(super) fn count(&self) -> (usize, usize) {
        let entries = self.entries();
        let workers = entries.values().filter_map(|entry| entry.worker.as_ref());
        let living: Vec<_> = workers.filter(|worker| !worker.mailbox.is_closed()).collect();
        let running = living.iter().filter(|worker| worker.view.borrow().active_turn.is_some()).count();
        (living.len(), running)
    }

    pub(super) fn listeners(&self, id: &SessionId) -> usize {
        self.entries().get(id).map_or(0, |entry| entry.bus.listeners())
    }

    /// Listens to the events of a session. That counts before anybody may forget where they come by.
    pub(super) fn subscribe(&self, session: &Session, store: Arc<dyn Store>, after: u64) -> Subscription {
        let mut entries = self.entries();
        let entry = entries.entry(session.id.clone()).or_insert_with(|| Entry::of(session));
        entry.bus.subscribe(session.id.clone(), store, after)
    }

    /// Does something to its end, also where whoever wants it goes away.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.tasks.spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "something that was asked of sessions broke");
            let what = "something broke while this was done; it may still have happened".to_owned();
            Err(Error::Busy { what, retry_after_seconds: 2 })
        })
    }

    /// The worker of a session, which is loaded where it is not.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Busy`] where too many are in memory.
    pub(super) async fn worker(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        id: &SessionId,
    ) -> Result<mpsc::Sender<Command>> {
        if let Some(worker) = self.living(id) {
            return Ok(worker.mailbox);
        }
        let _alone = self.loading.lock().await;
        if let Some(worker) = self.living(id) {
            return Ok(worker.mailbox);
        }
        if self.leaving.is_cancelled() {
            return Err(Error::Stopping);
        }
        self.check_room(shared)?;
        let stored = shared.store.take(id).await?;
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let (shown, view) = watch::channel(Arc::new(stored.session.clone()));
        let bus = {
            let mut entries = self.entries();
            // Who listens already goes on with what this worker tells.
            let entry = entries.entry(id.clone()).or_insert_with(|| Entry::of(&stored.session));
            entry.worker = Some(Handle { mailbox: mailbox.clone(), view });
            Arc::clone(&entry.bus)
        };
        bus.catch_up(stored.session.last_event);
        self.deadlines.forget(id);
        let seen = shown.subscribe();
        let worker = Worker::new(Arc::clone(shared), bus, shown, commands, self.leaving.clone(), stored);
        self.tasks.spawn(Arc::clone(self).look_after(Arc::clone(shared), seen, worker));
        Ok(mailbox)
    }

    /// Looks whether another session has room in memory.
    ///
    /// # Errors
    /// [`Error::Busy`] where it has none.
    pub(super) fn check_room(&self, shared: &Shared) -> Result<()> {
        self.let_go();
        // Who only listens has no session in memory.
        let loaded = self.entries().values().filter(|entry| entry.lives()).count();
        if loaded >= shared.config.max_loaded {
            let what = format!("{loaded} sessions are in memory");
            return Err(Error::Busy { what, retry_after_seconds: 5 });
        }
        Ok(())
    }

    /// Lets a worker work; a session whose worker broke is taken up by another.
    fn look_after(
        self: Arc<Self>,
        shared: Arc<Shared>,
        seen: watch::Receiver<Arc<Session>>,
        worker: Worker,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let id = seen.borrow().id.clone();
            // Whatever state it panicked in is dropped with it; the next one has what the store has.
            match AssertUnwindSafe(worker.run()).catch_unwind().await {
                Ok(Left::Whole) => {
                    let session = Arc::clone(&seen.borrow());
                    // Another may have it again by now.
                    if !self.is_loaded(&id) {
                        self.deadlines.let_go(&session);
                    }
                    return;
                }
                // Who listens here would hear nothing more.
                Ok(Left::Fenced) => return self.close_bus(&id),
                Ok(Left::Broken) => {}
                Err(_) => tracing::error!(session = %id, "the worker of a session broke"),
            }
            self.take_up(&shared, &id).await;
        })
    }

    /// Who listens hears no more, unless another worker of ours has the session by now.
    fn close_bus(&self, id: &SessionId) {
        let mut entries = self.entries();
        if entries.get(id).is_some_and(|entry| !entry.lives())
            && let Some(entry) = entries.remove(id)
        {
            entry.bus.close();
        }
    }

    /// Has a session looked after, as soon as that can be.
    async fn take_up(self: &Arc<Self>, shared: &Arc<Shared>, id: &SessionId) {
        let mut pause = BROKEN.0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.leaving.cancelled() => return,
            }
            match self.worker(shared, id).await {
                Ok(_) | Err(Error::NotFound { .. } | Error::Stopping) => return,
                Err(error) => {
                    tracing::error!(session = %id, %error, retry_in = ?pause, "a session is not looked after");
                }
            }
            pause = (pause * 2).min(BROKEN.1);
        }
    }

    /// The same, for somebody who does not wait for it.
    pub(super) fn take_up_behind(self: &Arc<Self>, shared: &Arc<Shared>, id: SessionId) {
        let (loaded, shared) = (Arc::clone(self), Arc::clone(shared));
        self.tasks.spawn(async move { loaded.take_up(&shared, &id).await });
    }

    /// Keeps agents warm, where that is wanted, until the host goes away.
    pub(super) fn keep_warm(&self, shared: &Arc<Shared>) {
        for spares in Spares::ALL {
            self.tasks.spawn(super::warm::keep(spares, Arc::clone(shared), self.leaving.clone()));
        }
    }

    /// Sees to the limits of those that are not in memory, until the host goes away.
    pub(super) fn keep_deadlines(self: &Arc<Self>, shared: &Arc<Shared>) {
        self.tasks.spawn(super::deadlines::keep(Arc::clone(self), Arc::clone(shared), self.leaving.clone()));
    }

    /// Forgets sessions that have no worker any more and that nobody listens to.
    pub(super) fn let_go(&self) {
        self.entries().retain(|_, entry| entry.lives() || entry.bus.listeners() > 0);
    }

    /// Returns when the worker of a session that has ended has let go, which it does by itself.
    pub(super) async fn let_leave(&self, id: &SessionId) {
        if let Some(worker) = self.living(id) {
            let _ = tokio::time::timeout(LEAVING, worker.mailbox.closed()).await;
        }
    }

    /// A session is deleted: who listens hears no more.
    pub(super) fn forget(&self, id: &SessionId) {
        self.deadlines.forget(id);
        let entry = self.entries().remove(id);
        if let Some(entry) = entry {
            entry.bus.close();
        }
    }

    /// Every worker commits what it has and lets go.
    pub(super) async fn shutdown(&self) {
        self.leaving.cancel();
        self.tasks.close();
        if tokio::time::timeout(LEAVING, self.tasks.wait()).await.is_err() {
            tracing::warn!(limit = ?LEAVING, "sessions did not let go in time; what they had not committed comes again from their agents");
        }
        for entry in self.entries().values() {
            entry.bus.close();
        }
    }
}
