//! Requests that may be repeated: who asked what under which id, and what came of it.

use super::connection::Connection;
use crate::error::{Error, Result};
use rusqlite::OptionalExtension as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a request id means the same request.
pub(crate) const REQUESTS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Names one request: ids of different callers and methods never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RequestKey {
    pub principal: String,
    pub method: &'static str,
    pub request_id: String,
}

/// What is kept of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRequest {
    /// SHA-256 of its body without the request id.
    pub body: [u8; 32],
    /// What it made, in the words of its method: an id, or JSON.
    pub outcome: String,
}

impl Connection {
    pub(super) fn request(&self, key: &RequestKey) -> Result<Option<StoredRequest>> {
        self.sqlite
            .prepare_cached(
                "SELECT body, outcome FROM requests
                 WHERE principal = ?1 AND method = ?2 AND request_id = ?3 AND time > ?4",
            )
            .and_then(|mut statement| {
                statement
                    .query_row((&key.principal, key.method, &key.request_id, oldest()), |row| {
                        Ok(StoredRequest { body: row.get(0)?, outcome: row.get(1)? })
                    })
                    .optional()
            })
            .map_err(|error| Error::store("read a request", error))
    }

    pub(super) fn keep_request(&self, key: &RequestKey, request: &StoredRequest) -> Result<()> {
        self.sqlite
            .prepare_cached("INSERT OR REPLACE INTO requests VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
            .and_then(|mut statement| {
                statement.execute((
                    &key.principal,
                    key.method,
                    &key.request_id,
                    &request.body,
                    &request.outcome,
                    seconds(SystemTime::now()),
                ))
            })
            .map(|_| ())
            .map_err(|error| Error::store("keep a request", error))
    }

    pub(super) fn claim_request(
        &self,
        key: &RequestKey,
        request: &StoredRequest,
    ) -> Result<Option<StoredRequest>> {
        if let Some(earlier) = self.request(key)? {
            return Ok(Some(earlier));
        }
        self.keep_request(key, request)?;
        Ok(None)
    }

    pub(super) fn release_request(&self, key: &RequestKey) -> Result<()> {
        self.sqlite
            .execute(
                "DELETE FROM requests WHERE principal = ?1 AND method = ?2 AND request_id = ?3",
                (&key.principal, key.method, &key.request_id),
            )
            .map(|_| ())
            .map_err(|error| Error::store("forget a request", error))
    }

    /// Forgets requests that are too old to count.
    pub(super) fn trim_requests(&self) -> Result<()> {
        self.sqlite
            .execute("DELETE FROM requests WHERE time <= ?1", [oldest()])
            .map(|_| ())
            .map_err(|error| Error::store("trim requests", error))
    }
}

fn oldest() -> i64 {
    seconds(SystemTime::now()) - REQUESTS_KEPT.as_secs().cast_signed()
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
