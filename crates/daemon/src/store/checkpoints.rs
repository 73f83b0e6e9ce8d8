//! The write-ahead log is written back into the database file by a thread of its own: that waits for the disk, and no
//! commit waits for it.

use crate::error::{Error, Result};
use rusqlite::Connection;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// The thread.
pub(super) struct Checkpoints {
    ask: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// Starts it over a database that is open already.
    pub(super) fn start(path: &Path) -> Result<Self> {
        let failed = |error: rusqlite::Error| Error::store("open for checkpoints", error);
        let connection = Connection::open(path).map_err(failed)?;
        connection
            .execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=NORMAL;")
            .map_err(failed)?;
        // One that waits is as good as many.
        let (ask, asked) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || {
                while asked.recv().is_ok() {
                    if let Err(error) = write_back(&connection) {
                        tracing::warn!(%error, "the records could not be written back");
                    }
                }
            })
            .map_err(|error| Error::store("start the thread for checkpoints", error))?;
        Ok(Self { ask, thread })
    }

    /// Has the log written back soon.
    pub(super) fn ask(&self) {
        // Full: the one that waits does it.
        let _ = self.ask.try_send(());
    }

    /// Ends the thread, after what it does now.
    pub(super) fn end(self) {
        drop(self.ask);
        if self.thread.join().is_err() {
            tracing::error!("the thread for checkpoints panicked");
        }
    }
}

/// Writes the log back, as far as nobody uses it, and keeps nobody from writing meanwhile.
pub(super) fn write_back(connection: &Connection) -> Result<()> {
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        .map_err(|error| Error::store("checkpoint", error))
}
