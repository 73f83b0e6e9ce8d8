//! What a database says, as our error.

use crate::error::{Error, Result};
use std::time::Duration;

/// The longest that a call of the store may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// The longest that a call waits for a connection, in which it may be opened.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The error of what was being done.
pub(super) fn failed(action: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| {
        let problem = match error {
            // What is said of an address may quote it, with its password.
            sqlx::Error::Configuration(_) => "the address of the database is wrong".to_owned(),
            sqlx::Error::PoolTimedOut => format!("no connection within {} s", ACQUIRE_TIMEOUT.as_secs()),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => "the store is closed".to_owned(),
            error => error.to_string(),
        };
        Error::Store { action, problem }
    }
}

/// Waits for what is being done, not for ever.
pub(super) async fn in_time<T>(action: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        Err(Error::Store { action, problem: format!("no answer within {} s", DEADLINE.as_secs()) })
    })
}
