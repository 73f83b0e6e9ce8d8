//! The task that writes: it takes what waits, writes it in one transaction, and tells who waited when that is on disk.

use super::{Connection, write};
use crate::error::{Error, Result};
use crate::store::failure::in_time;
use crate::store::work::{Done, Work};
use sqlx::Connection as _;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How much may wait; who comes then waits too.
const QUEUE: usize = 1024;
/// The most in one transaction.
const BATCH: usize = 256;
/// Bytes after which a transaction takes nothing more.
const BATCH_BYTES: usize = 8 << 20;
/// A transaction that takes longer is told: the disk is slow, or somebody else holds the file.
const SLOW: Duration = Duration::from_secs(1);

struct Job {
    work: Work,
    done: oneshot::Sender<Result<Done>>,
}

/// Where to send what is to be written.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Writer {
    /// Starts the task that writes.
    pub(super) fn start(connection: Connection) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(run(connection, queue, closing.clone()));
        Self { jobs, closing, tasks }
    }

    /// Writes. Who stops waiting does not stop what is being written.
    pub(super) async fn write(&self, work: Work) -> Result<Done> {
        let action = work.action();
        let closed = || Error::Store { action, problem: "the store is closed".to_owned() };
        in_time(action, async {
            let (done, result) = oneshot::channel();
            self.jobs.send(Job { work, done }).await.map_err(|_| closed())?;
            result.await.unwrap_or_else(|_| Err(closed()))
        })
        .await
    }

    /// Writes what waits, and ends.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn run(mut connection: Connection, mut queue: mpsc::Receiver<Job>, closing: CancellationToken) {
    loop {
        let first = tokio::select! {
            biased;
            job = queue.recv() => job,
            () = closing.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        let Some(first) = first else { break };
        let batch = gather(first, &mut queue);
        write_batch(&mut connection, batch).await;
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the session store was not closed well; what was written is there");
    }
}

/// What waits, as much as fits into one transaction.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.work.bytes();
    let mut batch = vec![first];
    while batch.len() < BATCH
        && bytes < BATCH_BYTES
        && let Ok(job) = queue.try_recv()
    {
        bytes += job.work.bytes();
        batch.push(job);
    }
    batch
}

async fn write_batch(connection: &mut Connection, batch: Vec<Job>) {
    let begun = Instant::now();
    let written = transaction(connection, &batch).await;
    let took = begun.elapsed();
    if took >= SLOW {
        tracing::warn!(?took, commits = batch.len(), "writing to the session store was slow");
    }
    match written {
        Ok(results) => {
            for (job, result) in batch.into_iter().zip(results) {
                // Who does not wait any more need not know.
                let _ = job.done.send(result);
            }
        }
        Err(error) => {
            let problem = error.to_string();
            tracing::error!(problem, "the session store could not be written");
            for job in batch {
                let error = Error::Store { action: job.work.action(), problem: problem.clone() };
                let _ = job.done.send(Err(error));
            }
        }
    }
}

/// Writes all, each as if alone: what is refused takes nothing of the others with it. An error is that of all.
async fn transaction(
    connection: &mut Connection,
    batch: &[Job],
) -> std::result::Result<Vec<Result<Done>>, sqlx::Error> {
    let written = write_all(connection, batch).await;
    if written.is_err() {
        // SQLite may have done so itself.
        let _ = run_sql(connection, "ROLLBACK").await;
    }
    written
}

async fn write_all(
    connection: &mut Connection,
    batch: &[Job],
) -> std::result::Result<Vec<Result<Done>>, sqlx::Error> {
    run_sql(connection, "BEGIN IMMEDIATE").await?;
    if let [job] = batch {
        // Alone in its transaction it needs no mark to go back to.
        let result = write::apply(connection, &job.work).await;
        if result.is_ok() {
            run_sql(connection, "COMMIT").await?;
        } else {
            // SQLite may have done so itself.
            let _ = run_sql(connection, "ROLLBACK").await;
        }
        return Ok(vec![result]);
    }
    let mut results = Vec::with_capacity(batch.len());
    for job in batch {
        run_sql(connection, "SAVEPOINT work").await?;
        let result = write::apply(connection, &job.work).await;
        if result.is_err() {
            run_sql(connection, "ROLLBACK TO work").await?;
        }
        run_sql(connection, "RELEASE work").await?;
        results.push(result);
    }
    run_sql(connection, "COMMIT").await?;
    Ok(results)
}

async fn run_sql(connection: &mut Connection, sql: &'static str) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(|_| ())
}
