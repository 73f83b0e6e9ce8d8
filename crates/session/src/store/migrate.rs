//! The schema, step by step. A step that was released never changes: another follows.

use super::failure::in_time;
use crate::error::{Error, Result};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

/// Brings a SQLite database to the latest schema.
pub(super) async fn sqlite(connection: &mut sqlx::SqliteConnection) -> Result<()> {
    let steps = migrator(&[
        ("sessions", include_str!("../../migrations/sqlite/0001_sessions.sql")),
        ("store", include_str!("../../migrations/sqlite/0002_store.sql")),
        ("journaled", include_str!("../../migrations/sqlite/0003_journaled.sql")),
    ]);
    in_time(ACTION, async { steps.run(connection).await.map_err(failed) }).await
}

/// Brings a PostgreSQL database to the latest schema; servers that start together wait for each other.
pub(super) async fn postgres(connection: &mut sqlx::PgConnection) -> Result<()> {
    let steps = migrator(&[
        ("sessions", include_str!("../../migrations/postgres/0001_sessions.sql")),
        ("store", include_str!("../../migrations/postgres/0002_store.sql")),
        ("journaled", include_str!("../../migrations/postgres/0003_journaled.sql")),
    ]);
    in_time(ACTION, async { steps.run(connection).await.map_err(failed) }).await
}

const ACTION: &str = "migrate the database";

fn migrator(steps: &[(&'static str, &'static str)]) -> Migrator {
    let steps = steps.iter().zip(1..).map(|(&(name, sql), version)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(steps.collect())
}

fn failed(error: MigrateError) -> Error {
    let problem = match error {
        MigrateError::VersionMissing(version) => {
            format!("it has version {version} of the schema: a newer server wrote it, use that one")
        }
        error => error.to_string(),
    };
    Error::Store { action: ACTION, problem }
}
