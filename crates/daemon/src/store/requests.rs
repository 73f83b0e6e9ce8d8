//! Requests that may be repeated: who asked what under which id, and what came of it.

use super::connection::Connection;
use crate::error::{Error, Result};
use crate::lock::lock;
use rusqlite::OptionalExtension as _;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a request id means the same request.
pub(crate) const REQUESTS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// How many are kept, the newest. Who asks again does so within seconds.
const MOST_REQUESTS: usize = 100_000;

/// Which requests may be kept, so that one that comes for the first time, as nearly all do, need not be looked for.
/// Clones share it. It may name too many, never too few.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownRequests(Arc<Mutex<HashSet<u64>>>);

impl KnownRequests {
    fn hash(principal: &str, method: &str, request_id: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (principal, method, request_id).hash(&mut hasher);
        hasher.finish()
    }

    fn hash_of(key: &RequestKey) -> u64 {
        Self::hash(&key.principal, key.method, &key.request_id)
    }

    fn add(&self, key: &RequestKey) {
        lock(&self.0).insert(Self::hash_of(key));
    }

    fn forget(&self, hashes: &[u64]) {
        let mut known = lock(&self.0);
        for hash in hashes {
            known.remove(hash);
        }
    }

    fn replace(&self, hashes: HashSet<u64>) {
        *lock(&self.0) = hashes;
    }

    fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether there may be a request with this key.
    pub(super) fn may_hold(&self, key: &RequestKey) -> bool {
        lock(&self.0).contains(&Self::hash_of(key))
    }
}

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

    /// Keeps a request; [`Error::RequestAnswered`] where there is one with this key.
    pub(super) fn keep_request(&self, key: &RequestKey, request: &StoredRequest) -> Result<()> {
        let written = self
            .sqlite
            .prepare_cached(
                "INSERT INTO requests VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET body = ?4, outcome = ?5, time = ?6 WHERE time <= ?7",
            )
            .and_then(|mut statement| {
                statement.execute((
                    &key.principal,
                    key.method,
                    &key.request_id,
                    &request.body,
                    &request.outcome,
                    seconds(SystemTime::now()),
                    oldest(),
                ))
            })
            .map_err(|error| Error::store("keep a request", error))?;
        if written == 0 {
            return Err(Error::RequestAnswered { request_id: key.request_id.clone() });
        }
        // Before the commit, so that nobody misses it after.
        self.known.add(key);
        Ok(())
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

    /// Forgets requests that are too old to count, and the oldest where there are too many.
    pub(super) fn trim_requests(&self) -> Result<()> {
        self.drop_requests("time <= ?1", oldest())?;
        // To look which are the newest takes long, and mostly there are far fewer.
        if self.known.len() > MOST_REQUESTS {
            let newest = "time < (SELECT time FROM requests ORDER BY time DESC LIMIT 1 OFFSET ?1)";
            self.drop_requests(newest, i64::try_from(MOST_REQUESTS).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }

    fn drop_requests(&self, which: &str, parameter: i64) -> Result<()> {
        let sql = format!("DELETE FROM requests WHERE {which} RETURNING principal, method, request_id");
        let gone: Vec<u64> = self
            .sqlite
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_map([parameter], hash_of_row)?.collect())
            .map_err(|error| Error::store("trim requests", error))?;
        self.known.forget(&gone);
        Ok(())
    }

    /// Reads which requests there are.
    pub(super) fn know_requests(&self) -> Result<()> {
        let failed = |error: rusqlite::Error| Error::store("read the requests", error);
        let mut statement =
            self.sqlite.prepare("SELECT principal, method, request_id FROM requests").map_err(failed)?;
        let hashes = statement.query_map([], hash_of_row).and_then(Iterator::collect).map_err(failed)?;
        self.known.replace(hashes);
        Ok(())
    }
}

fn hash_of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    let (principal, method, id): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(KnownRequests::hash(&principal, &method, &id))
}

fn oldest() -> i64 {
    seconds(SystemTime::now()) - REQUESTS_KEPT.as_secs().cast_signed()
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
