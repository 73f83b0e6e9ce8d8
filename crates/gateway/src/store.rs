//! The usage database: one row for every request to a model, totals, and label budgets.
//!
//! One thread owns the writing connection (WAL, `synchronous=FULL`); what waits is committed together. A request's
//! row is sent once the request is out, and written, without a flush, before a byte goes back, so that it outlives the
//! process; its final figures are flushed to the disk, and only then does the ledger hear of it. Reports read on
//! connections of their own.

mod read;
mod schema;
mod write;
mod writer;

pub(crate) use write::{Begun, End, Ended, Progress};
pub(crate) use writer::{Commands, Permit, Written};

use crate::budget::{LabelBudget, Spent};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::report::{Query, UsageRow};
use hostel_sandbox::SandboxId;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What was kept, as it is found at the start.
pub(crate) struct Kept {
    pub budgets: Vec<(LabelBudget, Spent)>,
    /// The next free row id.
    pub next_id: u64,
}

/// A handle to the store.
pub(crate) struct Store {
    commands: Commands,
    path: PathBuf,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Store {
    /// Opens or creates `usage.db`, closes what an earlier process left open, and starts the thread.
    ///
    /// # Errors
    /// [`Error::Store`] where the database cannot be opened, is damaged, or is of a newer version.
    pub(crate) fn open(directory: &Path, keep: Duration, ledger: Arc<Ledger>) -> Result<(Self, Kept)> {
        std::fs::create_dir_all(directory)
            .map_err(|error| Error::store(&format!("create {}", directory.display()), error))?;
        let path = directory.join("usage.db");
        let mut connection = schema::open(&path)?;
        let interrupted = write::close_open_rows(&mut connection)?;
        if interrupted > 0 {
            tracing::warn!(interrupted, "requests were in flight when the gateway ended");
        }
        let kept = Kept { budgets: read::budgets(&connection)?, next_id: read::next_id(&connection)? };
        let (commands, thread) = writer::start(connection, ledger, keep)?;
        Ok((Self { commands, path, thread: Mutex::new(Some(thread)) }, kept))
    }

    /// Where rows are sent.
    pub(crate) fn commands(&self) -> &Commands {
        &self.commands
    }

    /// What a sandbox has spent, everything that was sent before included.
    pub(crate) async fn spent(&self, sandbox: &SandboxId) -> Result<Spent> {
        let sandbox = sandbox.clone();
        self.commands.work(move |connection| read::spent(connection, &sandbox)).await
    }

    /// Has what a sandbox spent forgotten, before whatever is sent afterwards.
    pub(crate) async fn forget(&self, sandbox: &SandboxId) {
        let sandbox = sandbox.clone();
        self.commands.work_behind(move |connection| write::forget(connection, &sandbox)).await;
    }

    /// Forgets what all sandboxes but these spent.
    pub(crate) async fn forget_all_but(&self, known: Vec<SandboxId>) -> Result<()> {
        self.commands.work(move |connection| write::forget_all_but(connection, &known)).await
    }

    /// Keeps a new budget.
    pub(crate) async fn create_budget(&self, budget: LabelBudget) -> Result<()> {
        self.commands.work(move |connection| write::create_budget(connection, &budget)).await
    }

    /// Changes a budget; its counters stay.
    pub(crate) async fn update_budget(&self, budget: LabelBudget) -> Result<()> {
        self.commands.work(move |connection| write::update_budget(connection, &budget)).await
    }

    /// What a budget has spent in a period.
    pub(crate) async fn budget_spent(&self, name: &str, period: &str) -> Result<Spent> {
        let (name, period) = (name.to_owned(), period.to_owned());
        self.commands.work(move |connection| read::budget_spent(connection, &name, &period)).await
    }

    /// Forgets a budget and its counters.
    pub(crate) async fn delete_budget(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.commands.work(move |connection| write::delete_budget(connection, &name)).await
    }

    /// Reports on what is committed, everything that was sent before included.
    pub(crate) async fn usage(&self, query: Query) -> Result<Vec<UsageRow>> {
        self.commands.work(|_| Ok(())).await?;
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let connection = schema::open_to_read(&path)?;
            read::usage(&connection, &query)
        });
        reading.await.map_err(|error| Error::store("report", error))?
    }

    /// Writes everything and ends the thread.
    pub(crate) async fn close(&self) {
        self.commands.close().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let joined = tokio::task::spawn_blocking(move || thread.map(std::thread::JoinHandle::join)).await;
        if !matches!(joined, Ok(None | Some(Ok(())))) {
            tracing::error!("the thread of the usage records panicked");
        }
    }
}

/// A number as SQLite keeps it; what is above 2^63 is cut, which no real counter reaches.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Runs statements that give no rows.
fn run(connection: &Connection, sql: &str) -> Result<()> {
    connection.execute_batch(sql).map_err(|error| Error::store(sql, error))
}

#[cfg(test)]
mod tests;
