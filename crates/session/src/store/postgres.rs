//! Sessions in a PostgreSQL database: every piece of work is a transaction on a pool of connections.

#[path = "shared/read.rs"]
mod read;
#[path = "shared/rows.rs"]
mod rows;
#[path = "shared/store.rs"]
mod store;
#[path = "shared/write.rs"]
mod write;

use super::failure::{ACQUIRE_TIMEOUT, DEADLINE, failed};
use super::migrate;
use super::work::{Done, Work};
use crate::error::{Error, Result};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

type Database = sqlx::Postgres;
type Connection = sqlx::PgConnection;
type Pooled = sqlx::pool::PoolConnection<Database>;
type Row = sqlx::postgres::PgRow;
type Query<'q> = sqlx::query::Query<'q, Database, sqlx::postgres::PgArguments>;

/// Holds for a session with any of the tags.
const ANY_TAG: &str = "tags ?| TAGS";
/// Milliseconds from the start of a session to its completion.
const DURATION_MS: &str = "EXTRACT(EPOCH FROM completed_at - started_at) * 1000";
/// Connections: writes of different sessions go on side by side, and share flushes to disk.
const CONNECTIONS: u32 = 16;

/// Sessions in a PostgreSQL database.
pub(super) struct Stored {
    name: String,
    /// It writes too.
    readers: sqlx::PgPool,
}

impl Stored {
    /// Connects, and makes the tables where there are none.
    pub(super) async fn open(options: PgConnectOptions) -> Result<Self> {
        // The server gives up what we no longer wait for, and lets go of what a dead server of ours held.
        let options = options.disable_statement_logging().application_name("hostel-sessiond").options([
            ("statement_timeout", "30s"),
            ("lock_timeout", "20s"),
            ("idle_in_transaction_session_timeout", "60s"),
            ("synchronous_commit", "on"),
        ]);
        let readers = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        let mut connection = readers.acquire().await.map_err(failed("open the database"))?;
        migrate::postgres(&mut connection).await?;
        let name = write::name(&mut connection).await?;
        drop(connection);
        Ok(Self { name, readers })
    }

    /// Writes in a transaction of its own.
    async fn write(&self, work: Work) -> Result<Done> {
        let action = work.action();
        let mut connection = self.readers.acquire().await.map_err(failed(action))?;
        let written = tokio::time::timeout(DEADLINE, transaction(&mut connection, &work)).await;
        written.unwrap_or_else(|_| {
            // It may hang for ever: it is closed, not asked to end.
            drop(connection.detach());
            Err(Error::Store { action, problem: format!("no answer within {} s", DEADLINE.as_secs()) })
        })
    }

    async fn end(&self) {
        self.readers.close().await;
    }
}

async fn transaction(connection: &mut Connection, work: &Work) -> Result<Done> {
    let mut transaction = connection.begin().await.map_err(failed(work.action()))?;
    // On error, what was written is taken back before the connection is used again.
    let done = write::apply(&mut transaction, work).await?;
    transaction.commit().await.map_err(failed(work.action()))?;
    Ok(done)
}
