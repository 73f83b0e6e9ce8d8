//! The store's thread: takes what waits, commits it together, then tells.

use super::change::Change;
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::record::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Runs on the store's thread right after the commit. Must be short.
pub(super) type OnCommit = Box<dyn FnOnce() + Send>;

/// What the thread is asked.
pub(super) enum Command {
    /// Commit a change.
    Write { change: Box<Change>, on_commit: OnCommit, reply: oneshot::Sender<Result<()>> },
    /// Anything else with the connection, after all writes before it.
    Work(Box<dyn FnOnce(&Connection) + Send>),
}

struct Write {
    change: Box<Change>,
    on_commit: OnCommit,
    reply: oneshot::Sender<Result<()>>,
}

/// Most changes in one transaction.
const BATCH: usize = 256;
/// Commits after which the log is written back, once nobody waits.
const CHECKPOINT_AFTER: u32 = 500;
/// Commits after which it is written back whoever waits, so that it cannot grow without end.
const CHECKPOINT_AT_ONCE: u32 = 4000;

pub(super) struct Writer {
    connection: Connection,
    events: broadcast::Sender<Arc<Event>>,
    latest: Arc<AtomicU64>,
    commits: u32,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        events: broadcast::Sender<Arc<Event>>,
        latest: Arc<AtomicU64>,
    ) -> Self {
        Self { connection, events, latest, commits: 0 }
    }

    /// Works until every handle is dropped.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = queue.blocking_recv() {
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Write { change, on_commit, reply } => {
                        batch.push(Write { change, on_commit, reply });
                        if batch.len() < BATCH {
                            next = queue.try_recv().ok();
                        }
                    }
                    Command::Work(work) => {
                        self.commit(&mut batch);
                        work(&self.connection);
                        next = queue.try_recv().ok();
                    }
                }
            }
            self.commit(&mut batch);
            self.keep_house(queue.is_empty());
        }
        if let Err(error) = self.connection.checkpoint() {
            tracing::warn!(%error, "the records were not written back; the next start does it");
        }
    }

    fn commit(&mut self, batch: &mut Vec<Write>) {
        if batch.is_empty() {
            return;
        }
        let applied = self.write(batch);
        self.commits += 1;
        let failure = applied.as_ref().err().cloned();
        let results = applied.unwrap_or_default();
        for (index, write) in batch.drain(..).enumerate() {
            let result = match &failure {
                Some(error) => Err(error.clone()),
                None => results.get(index).cloned().unwrap_or(Ok(())),
            };
            if result.is_ok() {
                self.publish(*write.change, write.on_commit);
            }
            // The writer may have gone away; its change holds all the same.
            let _ = write.reply.send(result);
        }
    }

    /// Writes a batch in one transaction. A change that fails is undone alone.
    fn write(&self, batch: &mut [Write]) -> Result<Vec<Result<()>>> {
        self.connection.run("BEGIN IMMEDIATE")?;
        if let [only] = batch {
            return match self.connection.apply(&mut only.change) {
                Ok(()) => self.commit_or_undo().map(|()| vec![Ok(())]),
                Err(error) => self.connection.run("ROLLBACK").map(|()| vec![Err(error)]),
            };
        }
        let results = batch.iter_mut().map(|write| self.write_one(&mut write.change)).collect();
        self.commit_or_undo()?;
        Ok(results)
    }

    fn commit_or_undo(&self) -> Result<()> {
        self.connection.run("COMMIT").inspect_err(|_| {
            let _ = self.connection.run("ROLLBACK");
        })
    }

    fn write_one(&self, change: &mut Change) -> Result<()> {
        self.connection.run("SAVEPOINT change")?;
        let result = self.connection.apply(change);
        if result.is_err() {
            self.connection.run("ROLLBACK TO change")?;
        }
        self.connection.run("RELEASE change")?;
        result
    }

    fn publish(&self, change: Change, on_commit: OnCommit) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(on_commit)).is_err() {
            tracing::error!("what follows a commit panicked");
        }
        for event in change.events {
            self.latest.store(event.cursor, Ordering::Release);
            // No watcher is no error.
            let _ = self.events.send(Arc::new(event));
        }
    }

    fn keep_house(&mut self, idle: bool) {
        if (self.commits < CHECKPOINT_AFTER || !idle) && self.commits < CHECKPOINT_AT_ONCE {
            return;
        }
        self.commits = 0;
        let done = self
            .connection
            .trim_events()
            .and_then(|()| self.connection.trim_requests())
            .and_then(|()| self.connection.write_back());
        if let Err(Error::Store { detail }) = done {
            tracing::warn!(detail, "the records could not be tidied");
        }
    }
}
