//! The thread that writes: takes what waits, commits it together, then tells the ledger.

use super::run;
use super::write::{self, Begun, Ended, Progress};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use jiff::Timestamp;
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait. Each request in flight holds one place for its end, so this also bounds those.
const QUEUE: usize = 8192;
/// Most commands in one transaction.
const BATCH: usize = 256;
/// Commits after which the file is tidied once nobody waits, and after which whoever waits.
const TIDY_WHEN_IDLE: u32 = 500;
const TIDY_AT_ONCE: u32 = 5000;
/// Between attempts to write what could not be written.
const RETRY: Duration = Duration::from_millis(500);

pub(super) enum Command {
    Begin(Box<Begun>, oneshot::Sender<Result<()>>),
    Progress(Box<Progress>),
    End(Box<Ended>),
    Work(Work),
    Close,
}

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// Where commands are sent. Clones share it.
#[derive(Clone)]
pub(crate) struct Commands {
    queue: mpsc::Sender<Command>,
    /// Whether the last attempt to write succeeded.
    well: Arc<AtomicBool>,
}

/// Tells whether a row was written.
pub(crate) type Written = oneshot::Receiver<Result<()>>;

/// A place in the queue that is kept for the end of a request, so that ending never waits.
pub(crate) struct Permit(mpsc::OwnedPermit<Command>);

impl Permit {
    pub(crate) fn end(self, ended: Ended) {
        self.0.send(Command::End(Box::new(ended)));
    }
}

impl Commands {
    /// Keeps a place for the end of a request.
    pub(crate) async fn permit(&self) -> Result<Permit> {
        self.queue.clone().reserve_owned().await.map(Permit).map_err(|_| Error::Closed)
    }

    /// Sends the row of a request to be written. A crash of this process does not lose it once that is told.
    pub(crate) async fn begin(&self, begun: Begun) -> Result<Written> {
        let (reply, written) = oneshot::channel();
        self.queue.send(Command::Begin(Box::new(begun), reply)).await.map_err(|_| Error::Closed)?;
        Ok(written)
    }

    /// Whether rows are being written: the last attempt succeeded, and the thread is there.
    pub(crate) fn are_well(&self) -> bool {
        self.well.load(Ordering::Acquire) && !self.queue.is_closed()
    }

    /// Writes what is known of a request. Left out where the queue is full: its end has it all.
    pub(crate) fn progress(&self, progress: Progress) {
        let _ = self.queue.try_send(Command::Progress(Box::new(progress)));
    }

    /// Does something with the connection after all that was sent before.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            // Nobody waits any more when this fails, which is no error.
            let _ = reply.send(work(connection));
        });
        self.queue.send(Command::Work(work)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// The same, without waiting for it: for what may fail.
    pub(super) async fn work_behind(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<()> + Send + 'static,
    ) {
        let work: Work = Box::new(move |connection| {
            if let Err(error) = work(connection) {
                tracing::warn!(%error, "the usage records could not be tidied; the next start does it");
            }
        });
        // Closed: the next start does it.
        let _ = self.queue.send(Command::Work(work)).await;
    }

    /// Ends the thread after all that was sent before.
    pub(super) async fn close(&self) {
        let _ = self.queue.send(Command::Close).await;
    }
}

pub(super) fn start(
    connection: Connection,
    ledger: Arc<Ledger>,
    keep: Duration,
) -> Result<(Commands, std::thread::JoinHandle<()>)> {
    let (commands, queue) = mpsc::channel(QUEUE);
    let well = Arc::new(AtomicBool::new(true));
    let writer = Writer {
        connection,
        ledger,
        keep,
        unwritten: Vec::new(),
        commits: 0,
        flushes: true,
        well: Arc::clone(&well),
    };
    let thread = std::thread::Builder::new()
        .name("usage".to_owned())
        .spawn(move || writer.run(queue))
        .map_err(|error| Error::store("start the thread", error))?;
    Ok((Commands { queue: commands, well }, thread))
}

struct Writer {
    connection: Connection,
    ledger: Arc<Ledger>,
    keep: Duration,
    /// Ends that could not be written. Their scopes admit nobody, so there are few.
    unwritten: Vec<Ended>,
    commits: u32,
    flushes: bool,
    well: Arc<AtomicBool>,
}

#[derive(Default)]
struct Batch {
    begun: Vec<(Begun, oneshot::Sender<Result<()>>)>,
    progress: Vec<Progress>,
    ended: Vec<Ended>,
    size: usize,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut open = true;
        while open {
            let Some(first) = queue.blocking_recv() else { break };
            open = self.turn(first, &mut queue);
            while open && !self.unwritten.is_empty() {
                open = self.retry(&mut queue);
            }
            self.keep_house(&queue);
        }
        if !self.unwritten.is_empty() {
            self.commit(Batch::default());
        }
        if !self.unwritten.is_empty() {
            tracing::error!(requests = self.unwritten.len(), "usage was lost: it could not be written");
        }
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the usage records were not written back; the next start does it");
        }
    }

    /// Takes what waits and commits it; `false` once the store is to close.
    fn turn(&mut self, first: Command, queue: &mut mpsc::Receiver<Command>) -> bool {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(command) = next.take() {
            batch.size += 1;
            match command {
                Command::Begin(begun, reply) => batch.begun.push((*begun, reply)),
                Command::Progress(progress) => batch.progress.push(*progress),
                Command::End(ended) => batch.ended.push(*ended),
                Command::Work(work) => {
                    self.commit(std::mem::take(&mut batch));
                    work(&mut self.connection);
                }
                Command::Close => {
                    self.commit(batch);
                    return false;
                }
            }
            if batch.size < BATCH {
                next = queue.try_recv().ok();
            }
        }
        self.commit(batch);
        true
    }

    /// Waits a little, for new commands or for the disk to be well again.
    fn retry(&mut self, queue: &mut mpsc::Receiver<Command>) -> bool {
        match queue.try_recv() {
            Ok(command) => self.turn(command, queue),
            Err(mpsc::error::TryRecvError::Disconnected) => false,
            Err(mpsc::error::TryRecvError::Empty) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a thread of its own, with nothing else to do"
                )]
                std::thread::sleep(RETRY);
                self.commit(Batch::default());
                true
            }
        }
    }

    fn commit(&mut self, mut batch: Batch) {
        batch.ended.append(&mut self.unwritten);
        if batch.begun.is_empty() && batch.progress.is_empty() && batch.ended.is_empty() {
            return;
        }
        let written = self.write(&batch);
        self.well.store(written.is_ok(), Ordering::Release);
        self.commits += 1;
        if let Err(error) = &written {
            tracing::error!(%error, "usage could not be written; its sandboxes are refused until it is");
        }
        for (_, reply) in batch.begun {
            // The request may have gone away meanwhile; its end will tell.
            let _ = reply.send(written.clone());
        }
        match written {
            Ok(()) if batch.ended.is_empty() => {}
            Ok(()) => self.ledger.committed(batch.ended.iter().map(|ended| &ended.begun.charge)),
            Err(_) => self.unwritten = batch.ended,
        }
    }

    /// Writes a batch in one transaction; it is on the disk afterwards if the end of a request is in it.
    fn write(&mut self, batch: &Batch) -> Result<()> {
        let flush = !batch.ended.is_empty();
        if flush != self.flushes {
            write::set_flush(&self.connection, flush)?;
            self.flushes = flush;
        }
        run(&self.connection, "BEGIN IMMEDIATE")?;
        let written = self.write_all(batch).and_then(|()| run(&self.connection, "COMMIT"));
        if written.is_err() {
            // It may have been rolled back already.
            let _ = run(&self.connection, "ROLLBACK");
        }
        written
    }

    fn write_all(&self, batch: &Batch) -> Result<()> {
        for (begun, _) in &batch.begun {
            write::begin(&self.connection, begun)?;
        }
        for progress in &batch.progress {
            write::progress(&self.connection, progress)?;
        }
        for ended in &batch.ended {
            write::end(&self.connection, ended)?;
        }
        Ok(())
    }

    /// Tidies now and then, where nobody waits: a request that goes on will have its figures written.
    fn keep_house(&mut self, queue: &mpsc::Receiver<Command>) {
        let idle = || queue.is_empty() && self.ledger.in_flight() == 0;
        if self.commits < TIDY_WHEN_IDLE || (self.commits < TIDY_AT_ONCE && !idle()) {
            return;
        }
        self.commits = 0;
        if let Err(error) = write::tidy(&self.connection, self.keep, Timestamp::now().as_millisecond()) {
            tracing::warn!(%error, "the usage records could not be tidied");
        }
    }
}
