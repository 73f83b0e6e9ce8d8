//! The audit log: one JSON line for each decision, each bound to the one before by its hash.
//!
//! A line is `{"sequence":N,"previous":"HEX","hash":"HEX","record":{…}}`, where `hash` is SHA-256 over the previous
//! hash (32 bytes), the sequence (8 bytes, big-endian) and the record's text as it stands. The first line's previous
//! hash is zero. What is changed, removed or put in between is found by [`verify`]; lines removed from the end are
//! not, unless the last hash was kept elsewhere.

use crate::decision::{Decision, Recorder};
use crate::error::{Error, Result};
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

mod chain;
mod file;
mod verify;

pub use verify::{Verified, verify};

/// Decisions that may wait to be written.
const QUEUE: usize = 4096;
/// How long a decision waits to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// What happens to a decision that cannot be recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// What was being decided is refused.
    #[default]
    Refuse,
    /// It goes on, with a warning.
    Continue,
}

/// Settings of an audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// The file. Full ones are kept beside it, named with their first sequence: `audit.jsonl.00000000000000000001`.
    pub path: PathBuf,
    /// What happens to a decision that cannot be recorded.
    pub on_failure: OnFailure,
    /// Bytes after which a new file is begun, at least 4096.
    pub rotate_bytes: u64,
    /// How many full files are kept; older ones are removed. 0: all.
    pub keep: usize,
}

impl AuditSettings {
    /// The usual settings for a file: refusing, 64 MiB a file, all kept.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), on_failure: OnFailure::Refuse, rotate_bytes: 64 << 20, keep: 0 }
    }
}

/// Writes decisions to a file, many at a time, and answers when they are on the disk.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    on_failure: OnFailure,
    /// Both are there until it is dropped.
    queue: Option<mpsc::Sender<Entry>>,
    writer: Option<JoinHandle<()>>,
}

/// A record and who waits for it.
struct Entry {
    record: String,
    done: oneshot::Sender<std::result::Result<(), String>>,
}

impl AuditLog {
    /// Opens a log, or begins it, and goes on with its chain. It has a thread of its own.
    ///
    /// # Errors
    /// [`Error::Audit`] where it cannot be written; [`Error::AuditBroken`] where its end is not what this wrote.
    pub fn open(settings: AuditSettings) -> Result<Self> {
        let (path, on_failure) = (settings.path.clone(), settings.on_failure);
        let mut log = file::Log::open(settings)?;
        let (sender, mut entries) = mpsc::channel::<Entry>(QUEUE);
        let write = move || {
            let mut batch = Vec::new();
            while entries.blocking_recv_many(&mut batch, QUEUE) > 0 {
                let written = log.append(batch.iter().map(|entry| entry.record.as_str()));
                let answer = written.map_err(|error| error.to_string());
                for entry in batch.drain(..) {
                    // Who no longer waits was refused.
                    let _ = entry.done.send(answer.clone());
                }
            }
        };
        let writer = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(write)
            .map_err(|error| Error::audit(&path, error))?;
        Ok(Self { path, on_failure, queue: Some(sender), writer: Some(writer) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn write(&self, decision: &Decision) -> std::result::Result<(), String> {
        let record = serde_json::to_string(decision).map_err(|error| error.to_string())?;
        let queue = self.queue.as_ref().ok_or("it is closed")?;
        let (done, written) = oneshot::channel();
        let exchange = async {
            queue.send(Entry { record, done }).await.map_err(|_| "its writer ended".to_owned())?;
            written.await.map_err(|_| "its writer ended".to_owned())?
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("it was not written within {} s", PATIENCE.as_secs())))
    }
}

#[async_trait]
impl Recorder for AuditLog {
    async fn record(&self, decision: &Decision) -> Result<()> {
        match (self.write(decision).await, self.on_failure) {
            (Ok(()), _) => Ok(()),
            (Err(problem), OnFailure::Refuse) => Err(Error::audit(&self.path, problem)),
            (Err(problem), OnFailure::Continue) => {
                tracing::warn!(path = %self.path.display(), problem, "a decision is not recorded");
                Ok(())
            }
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        // The thread ends when the queue does, after it wrote what is in it.
        self.queue.take();
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the audit log's thread ended badly");
        }
    }
}
