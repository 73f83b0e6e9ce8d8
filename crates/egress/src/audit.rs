//! The audit log: one JSON line for each decision, each bound to the one before by its hash.
//!
//! A line is `{"sequence":N,"previous":"HEX","hash":"HEX","record":{…}}`, where `hash` is SHA-256 over the previous
//! hash (32 bytes), the sequence (8 bytes, big-endian) and the record's text as it stands. The first line's previous
//! hash is zero. What is changed, removed or put in between is found by [`verify`]; lines removed from the end are
//! not, unless the last hash was kept elsewhere.
//!
//! A decision is written before what it allows happens, so that the daemon's death takes nothing. When it is also on
//! the disk is what [`Flush`] says: a power cut takes at most what was not.

use crate::decision::{Decision, Recorder};
use crate::error::{Error, Result};
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

mod chain;
mod file;
mod flusher;
mod verify;

use flusher::Shared;
pub use verify::{Verified, verify};

/// How long a decision waits to be on the disk.
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

/// When decisions that were written are brought to the disk (fdatasync(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Each before what it allows happens; those that come together go together.
    Each,
    /// All of them, so long after the first at the latest. A power cut takes as much of the log's end.
    Within(Duration),
}

impl Default for Flush {
    /// Within a second.
    fn default() -> Self {
        Self::Within(Duration::from_secs(1))
    }
}

/// Settings of an audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// The file. Full ones are kept beside it, named with their first sequence: `audit.jsonl.00000000000000000001`.
    pub path: PathBuf,
    /// What happens to a decision that cannot be recorded.
    pub on_failure: OnFailure,
    /// When decisions are brought to the disk.
    pub flush: Flush,
    /// Bytes after which a new file is begun, at least 4096.
    pub rotate_bytes: u64,
    /// How many full files are kept; older ones are removed. 0: all.
    pub keep: usize,
}

impl AuditSettings {
    /// The usual settings for a file: refusing, on the disk within a second, 64 MiB a file, all kept.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            on_failure: OnFailure::Refuse,
            flush: Flush::default(),
            rotate_bytes: 64 << 20,
            keep: 0,
        }
    }
}

/// Writes decisions to a file, and has a thread that brings them to the disk.
///
/// Writing is done where a decision is recorded, without a change of threads: it is one short write(2) into the
/// kernel's cache. So give the sandboxes' connections threads of their own ([`crate::Settings::runtimes`]), on which
/// nothing else has to wait for a slow disk.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    on_failure: OnFailure,
    flush: Flush,
    shared: Arc<Shared>,
    /// There until it is dropped.
    flusher: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens a log, or begins it, and goes on with its chain. It has a thread of its own.
    ///
    /// # Errors
    /// [`Error::Audit`] where it cannot be written; [`Error::AuditBroken`] where its end is not what this wrote.
    pub fn open(settings: AuditSettings) -> Result<Self> {
        let AuditSettings { path, on_failure, flush, .. } = settings.clone();
        let shared = Arc::new(Shared::new(file::Log::open(settings)?));
        let flushing = Arc::clone(&shared);
        let flusher = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || flushing.keep_flushing(flush))
            .map_err(|error| Error::audit(&path, error))?;
        Ok(Self { path, on_failure, flush, shared, flusher: Some(flusher) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn write(&self, decision: &Decision) -> std::result::Result<(), String> {
        let record = serde_json::to_string(decision).map_err(|error| error.to_string())?;
        let written = self.shared.append(&record).map_err(|error| error.to_string())?;
        match self.flush {
            Flush::Within(_) => Ok(()),
            Flush::Each => tokio::time::timeout(PATIENCE, self.shared.flushed(written))
                .await
                .unwrap_or_else(|_| Err(format!("it was not on the disk within {} s", PATIENCE.as_secs()))),
        }
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
        // The thread ends after it brought to the disk what is written.
        self.shared.close();
        if self.flusher.take().is_some_and(|flusher| flusher.join().is_err()) {
            tracing::error!("the audit log's thread ended badly");
        }
    }
}
