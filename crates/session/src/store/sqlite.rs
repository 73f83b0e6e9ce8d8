//! Sessions in a SQLite database: one connection writes, others read.

#[path = "shared/read.rs"]
mod read;
#[path = "shared/rows.rs"]
mod rows;
#[path = "shared/store.rs"]
mod store;
#[path = "shared/write.rs"]
mod write;
mod writer;

use super::failure::{ACQUIRE_TIMEOUT, failed};
use super::migrate;
use super::work::{Done, Work};
use crate::error::{Error, Result};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;
use writer::Writer;

type Database = sqlx::Sqlite;
type Connection = sqlx::SqliteConnection;
type Pooled = sqlx::pool::PoolConnection<Database>;
type Row = sqlx::sqlite::SqliteRow;
type Query<'q> = sqlx::query::Query<'q, Database, sqlx::sqlite::SqliteArguments>;

/// Holds for a session with any of the tags.
const ANY_TAG: &str =
    "EXISTS (SELECT 1 FROM json_each(tags) AS tag WHERE tag.value IN (SELECT value FROM json_each(TAGS)))";
/// Milliseconds from the start of a session to its completion.
const DURATION_MS: &str = "(completed_at - started_at) / 1000.0";
/// Connections that read.
const READERS: u32 = 4;
/// How long to wait for another process that writes, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The log of changes is cut to this when it was written back.
const LOG_LIMIT: &str = "67108864";

/// Sessions in a SQLite database.
pub(super) struct Stored {
    name: String,
    readers: sqlx::SqlitePool,
    writer: Writer,
}

impl Stored {
    /// Opens the database, and makes it where there is none.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        prepare(path).map_err(|error| Error::Store {
            action: "open the database",
            problem: format!("{}: {error}", path.display()),
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("journal_size_limit", LOG_LIMIT)
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(failed("open the database"))?;
        migrate::sqlite(&mut connection).await?;
        let name = write::name(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(options.read_only(true));
        Ok(Self { name, readers, writer: Writer::start(connection) })
    }

    /// Writes, together with what others write at the time.
    async fn write(&self, work: Work) -> Result<Done> {
        self.writer.write(work).await
    }

    async fn end(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}

/// Makes the file so that only its owner may read it, and the directory likewise where there is none. The files that
/// SQLite puts beside it take after it.
fn prepare(path: &Path) -> std::io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}
