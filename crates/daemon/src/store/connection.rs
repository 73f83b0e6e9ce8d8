//! The SQLite connection: opening it, and the statements over sandboxes and settings.

use super::change::{Prepared, Row, StoredSandbox};
use super::requests::KnownRequests;
use super::schema;
use crate::error::{Error, Result};
use crate::record::Cursor;
use bytes::Bytes;
use hostel_sandbox::SandboxId;
use rusqlite::OptionalExtension as _;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The connection that reads and writes. Lives on the store's thread.
pub(super) struct Connection {
    pub(super) sqlite: rusqlite::Connection,
    pub(super) known: KnownRequests,
}

impl Connection {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error: rusqlite::Error| Error::store(&format!("open {}", path.display()), error);
        let mut sqlite = rusqlite::Connection::open(path).map_err(failed)?;
        sqlite.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        // Checkpoints are made beside: they are the only writes that wait for the disk.
        sqlite
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0;
                 PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;",
            )
            .map_err(failed)?;
        sqlite.set_prepared_statement_cache_capacity(64);
        schema::migrate(&mut sqlite)?;
        let connection = Self { sqlite, known: KnownRequests::default() };
        connection.know_requests()?;
        Ok(connection)
    }

    pub(super) fn identity(&self) -> Result<String> {
        self.setting("identity")?.ok_or_else(|| Error::store("open", "the records have no identity"))
    }

    pub(super) fn setting(&self, name: &str) -> Result<Option<String>> {
        self.sqlite
            .query_row("SELECT value FROM settings WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(|error| Error::store("read a setting", error))
    }

    pub(super) fn set_setting(&self, name: &str, value: &str) -> Result<()> {
        self.sqlite
            .execute("INSERT OR REPLACE INTO settings VALUES (?1, ?2)", [name, value])
            .map(|_| ())
            .map_err(|error| Error::store("write a setting", error))
    }

    pub(super) fn sandboxes(&self) -> Result<Vec<StoredSandbox>> {
        let kept = self.kept("SELECT id, record, handle FROM sandboxes")?;
        Ok(kept
            .into_iter()
            .map(|(record, handle)| StoredSandbox { record: Arc::new(record), handle })
            .collect())
    }

    /// Records with their handles, of one of the tables that have both.
    pub(super) fn kept<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<(T, Bytes)>> {
        let failed = |error: rusqlite::Error| Error::store("read sandboxes", error);
        let mut statement = self.sqlite.prepare(sql).map_err(failed)?;
        let rows = statement
            .query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .map_err(failed)?;
        rows.map(|row| {
            let (id, record, handle) = row.map_err(failed)?;
            let record = serde_json::from_str(&record)
                .map_err(|error| Error::store(&format!("read the record of {id}"), error))?;
            Ok((record, Bytes::from(handle)))
        })
        .collect()
    }

    /// Writes one into such a table.
    pub(super) fn keep(&self, sql: &str, row: &Row) -> Result<()> {
        self.sqlite
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute((row.id.as_str(), &row.record, &row.handle[..])))
            .map(|_| ())
            .map_err(|error| Error::store("write a change", error))
    }

    /// Removes one from such a table.
    pub(super) fn drop_kept(&self, sql: &str, id: &SandboxId) -> Result<()> {
        self.sqlite
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([id.as_str()]))
            .map(|_| ())
            .map_err(|error| Error::store("write a change", error))
    }

    /// Writes one change inside the open transaction and gives its events their cursors.
    pub(super) fn apply(&self, change: &mut Prepared) -> Result<()> {
        for row in &change.put {
            self.keep(
                "INSERT INTO sandboxes VALUES (?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET record = ?2, handle = ?3",
                row,
            )?;
        }
        for id in &change.remove {
            self.drop_kept("DELETE FROM sandboxes WHERE id = ?1", id)?;
        }
        self.apply_warm(change)?;
        for (event, text) in &mut change.events {
            event.cursor = self.append_event(text)?;
        }
        if let Some((key, request)) = &change.request {
            self.keep_request(key, request)?;
        }
        Ok(())
    }

    fn append_event(&self, text: &str) -> Result<Cursor> {
        self.sqlite
            .prepare_cached("INSERT INTO events (event) VALUES (?1)")
            .and_then(|mut statement| statement.insert([text]))
            .map(i64::unsigned_abs)
            .map_err(|error| Error::store("write an event", error))
    }

    /// Runs statements that take no parameters: transactions and savepoints.
    pub(super) fn run(&self, sql: &str) -> Result<()> {
        self.sqlite
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map(|_| ())
            .map_err(|error| Error::store(sql, error))
    }

    /// Writes the log back into the database file and empties it; for an orderly end.
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.sqlite
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| Error::store("checkpoint", error))
    }
}
