//! The tables.

use super::run;
use crate::error::{Error, Result};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

const VERSION: i64 = 2;
/// For another process that looks into the file.
const BUSY: Duration = Duration::from_secs(5);

/// `state` of a request: `open` until it is over, then how it ended.
/// `budgets` are the label budgets it counts towards, as `[["name","period"],…]`.
const TABLES: &str = "
CREATE TABLE requests (
  id INTEGER PRIMARY KEY,
  started INTEGER NOT NULL,          -- milliseconds of Unix time
  ended INTEGER,
  sandbox TEXT NOT NULL,
  session TEXT NOT NULL,             -- x-claude-code-session-id, or empty
  labels TEXT NOT NULL,              -- a JSON object
  budgets TEXT NOT NULL,
  state TEXT NOT NULL,
  status INTEGER,                    -- of HTTP, once the upstream answered
  upstream TEXT NOT NULL DEFAULT '',
  model TEXT NOT NULL DEFAULT '',
  input INTEGER NOT NULL DEFAULT 0,
  output INTEGER NOT NULL DEFAULT 0,
  cache_write_5m INTEGER NOT NULL DEFAULT 0,
  cache_write_1h INTEGER NOT NULL DEFAULT 0,
  cache_read INTEGER NOT NULL DEFAULT 0,
  cost_micros INTEGER NOT NULL DEFAULT 0,
  estimated INTEGER NOT NULL DEFAULT 0  -- whether nobody told some of these figures
);
CREATE INDEX requests_started ON requests (started);
CREATE INDEX requests_open ON requests (state) WHERE state = 'open';
CREATE TABLE sandboxes (
  sandbox TEXT PRIMARY KEY,
  requests INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  cost_micros INTEGER NOT NULL,
  updated INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE budgets (
  name TEXT PRIMARY KEY,
  definition TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE budget_spent (
  name TEXT NOT NULL REFERENCES budgets (name) ON DELETE CASCADE,
  period TEXT NOT NULL,
  requests INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  cost_micros INTEGER NOT NULL,
  PRIMARY KEY (name, period)
) WITHOUT ROWID;
PRAGMA user_version = 2;
";
const FROM_1: &str =
    "ALTER TABLE requests ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0; PRAGMA user_version = 2;";

/// Opens the connection that writes.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let failed = |error: rusqlite::Error| Error::store(&format!("open {}", path.display()), error);
    let connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    // The thread writes the log back itself, when nobody waits.
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;
             PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;",
        )
        .map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    match version {
        0 => run(&connection, &format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?,
        1 => run(&connection, &format!("BEGIN IMMEDIATE; {FROM_1} COMMIT;"))?,
        VERSION => {}
        newer => {
            return Err(Error::Store {
                detail: format!("{} is of version {newer}; this program knows {VERSION}", path.display()),
            });
        }
    }
    Ok(connection)
}

/// Opens a connection for a report.
pub(super) fn open_to_read(path: &Path) -> Result<Connection> {
    let failed = |error: rusqlite::Error| Error::store(&format!("read {}", path.display()), error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    Ok(connection)
}
