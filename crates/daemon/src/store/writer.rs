//! The store's thread: takes what waits, commits it together, then tells.

use super::change::Prepared;
use super::checkpoints::{self, Checkpoints};
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
    Write { change: Box<Prepared>, on_commit: OnCommit, reply: oneshot::Sender<Result<()>> },
    /// Anything else with the connection, after all writes before it.
    Work(Box<dyn FnOnce(&Connection) + Send>),
}

struct Write {
    change: Box<Prepared>,
    on_commit: OnCommit,
    reply: oneshot::Sender<Result<()>>,
}

/// Most changes in one transaction.
const BATCH: usize = 256;
/// Commits after which old records go and the log is written back, once nobody waits.
const TIDY_AFTER: u32 = 500;
/// Commits after which that is done whoever waits, so that nothing can grow without end.
const TIDY_AT_ONCE: u32 = 4000;
/// How often the log is written back here. It begins anew only once all of it was, which commits that go on beside can
/// put off again and again; after what was written back beside, little is left to do.
const HERE_EVERY: u32 = 8;

pub(super) struct Writer {
    connection: Connection,
    checkpoints: Checkpoints,
    events: broadcast::Sender<Arc<Event>>,
    latest: Arc<AtomicU64>,
    /// Since it was tidied, and how often it was.
    commits: u32,
    tidied: u32,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        checkpoints: Checkpoints,
        events: broadcast::Sender<Arc<Event>>,
        latest: Arc<AtomicU64>,
    ) -> Self {
        Self { connection, checkpoints, events, latest, commits: 0, tidied: 0 }
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
        self.checkpoints.end();
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
        // Hardly ever does one fail. So it is found out which one does only then.
        let Err(error) = batch.iter_mut().try_for_each(|write| self.connection.apply(&mut write.change))
        else {
            return self.commit_or_undo().map(|()| vec![Ok(()); batch.len()]);
        };
        // Where the disk is full there is none left to undo; another one could then not begin.
        let _ = self.connection.run("ROLLBACK");
        if batch.len() == 1 {
            return Ok(vec![Err(error)]);
        }
        self.connection.run("BEGIN IMMEDIATE")?;
        let results = batch.iter_mut().map(|write| self.write_one(&mut write.change)).collect();
        self.commit_or_undo()?;
        Ok(results)
    }

    fn commit_or_undo(&self) -> Result<()> {
        self.connection.run("COMMIT").inspect_err(|_| {
            let _ = self.connection.run("ROLLBACK");
        })
    }

    fn write_one(&self, change: &mut Prepared) -> Result<()> {
        self.connection.run("SAVEPOINT change")?;
        let result = self.connection.apply(change);
        if result.is_err() {
            self.connection.run("ROLLBACK TO change")?;
        }
        self.connection.run("RELEASE change")?;
        result
    }

    fn publish(&self, change: Prepared, on_commit: OnCommit) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(on_commit)).is_err() {
            tracing::error!("what follows a commit panicked");
        }
        for (event, _) in change.events {
            self.latest.store(event.cursor, Ordering::Release);
            // No watcher is no error.
            let _ = self.events.send(Arc::new(event));
        }
    }

    fn keep_house(&mut self, idle: bool) {
        let long = self.commits >= TIDY_AT_ONCE;
        if self.commits < TIDY_AFTER || (!idle && !long) {
            return;
        }
        self.commits = 0;
        self.tidied = self.tidied.wrapping_add(1);
        let mut done = self.connection.trim_events().and_then(|()| self.connection.trim_requests());
        if long || self.tidied.is_multiple_of(HERE_EVERY) {
            done = done.and_then(|()| checkpoints::write_back(&self.connection.sqlite));
        } else {
            self.checkpoints.ask();
        }
        if let Err(Error::Store { detail }) = done {
            tracing::warn!(detail, "the records could not be tidied");
        }
    }
}
