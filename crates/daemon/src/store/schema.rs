//! The tables, and how older ones become these.

use crate::error::{Error, Result};
use rusqlite::Connection;

/// Each step brings the database from `user_version` = its index to the next. Steps are never changed, only added.
pub(super) const MIGRATIONS: &[&str] = &[
    r"
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE sandboxes (id TEXT PRIMARY KEY, record TEXT NOT NULL, handle BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE events (cursor INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL);
    CREATE TABLE requests (
        principal TEXT NOT NULL, method TEXT NOT NULL, request_id TEXT NOT NULL,
        body BLOB NOT NULL, outcome TEXT NOT NULL, time INTEGER NOT NULL,
        PRIMARY KEY (principal, method, request_id)
    ) WITHOUT ROWID;
    CREATE INDEX requests_by_time ON requests (time);
    INSERT INTO settings VALUES ('identity', lower(hex(randomblob(4))));
",
    r"
    CREATE TABLE pools (
        name TEXT PRIMARY KEY, record TEXT NOT NULL, counters TEXT NOT NULL, history BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE warm (id TEXT PRIMARY KEY, record TEXT NOT NULL, handle BLOB NOT NULL) WITHOUT ROWID;
",
    // Rows of more than a quarter of a page, as most records are, have a page of their own behind each row where there
    // is no row id.
    r"
    CREATE TABLE sandboxes_3 (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL, handle BLOB NOT NULL);
    INSERT INTO sandboxes_3 SELECT id, record, handle FROM sandboxes;
    DROP TABLE sandboxes;
    ALTER TABLE sandboxes_3 RENAME TO sandboxes;
    CREATE TABLE warm_3 (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL, handle BLOB NOT NULL);
    INSERT INTO warm_3 SELECT id, record, handle FROM warm;
    DROP TABLE warm;
    ALTER TABLE warm_3 RENAME TO warm;
",
];

/// Brings the database to the newest version.
pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    let failed = |error: rusqlite::Error| Error::store("bring the records up to date", error);
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let newest = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if version > newest {
        return Err(Error::store(
            "open",
            format!(
                "the records are of version {version}, newer than this hosteld knows ({newest}): use a newer hosteld"
            ),
        ));
    }
    for (step, reached) in MIGRATIONS.iter().zip(1u32..).filter(|(_, reached)| *reached > version) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "user_version", reached).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}
