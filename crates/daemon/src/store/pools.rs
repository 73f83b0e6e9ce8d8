//! Pools and their warm sandboxes in the database.

use super::change::{Prepared, StoredWarm};
use super::connection::Connection;
use super::requests::{RequestKey, StoredRequest};
use crate::error::{Error, Result};
use crate::record::PoolRecord;
use hostel_pool::{Counters, PoolName};

/// A pool as the store keeps it.
#[derive(Debug, Clone)]
pub(crate) struct StoredPool {
    pub record: PoolRecord,
    pub counters: Counters,
    /// The demand that it met, as [`hostel_pool::History`] encodes it. Absent in what is written: as it is.
    pub history: Option<Vec<u8>>,
}

impl Connection {
    pub(super) fn pools(&self) -> Result<Vec<StoredPool>> {
        let failed = |error: rusqlite::Error| Error::store("read pools", error);
        let mut statement =
            self.sqlite.prepare("SELECT name, record, counters, history FROM pools").map_err(failed)?;
        let rows = statement
            .query_map([], |row| {
                let (name, record): (String, String) = (row.get(0)?, row.get(1)?);
                let (counters, history): (String, Vec<u8>) = (row.get(2)?, row.get(3)?);
                Ok((name, record, counters, history))
            })
            .map_err(failed)?;
        rows.map(|row| {
            let (name, record, counters, history) = row.map_err(failed)?;
            let damaged = |error| Error::store(&format!("read the pool {name}"), error);
            let record = serde_json::from_str(&record).map_err(damaged)?;
            let counters = serde_json::from_str(&counters).map_err(damaged)?;
            Ok(StoredPool { record, counters, history: Some(history) })
        })
        .collect()
    }

    pub(super) fn warm(&self) -> Result<Vec<StoredWarm>> {
        let kept = self.kept("SELECT id, record, handle FROM warm")?;
        Ok(kept.into_iter().map(|(record, handle)| StoredWarm { record, handle }).collect())
    }

    pub(super) fn keep_pools(
        &self,
        pools: &[StoredPool],
        request: Option<&(RequestKey, StoredRequest)>,
    ) -> Result<()> {
        let unwritable = |error| Error::store("write a pool", error);
        self.run("BEGIN IMMEDIATE")?;
        let written = pools.iter().try_for_each(|pool| {
            let record = serde_json::to_string(&pool.record).map_err(unwritable)?;
            let counters = serde_json::to_string(&pool.counters).map_err(unwritable)?;
            self.sqlite
                .prepare_cached(
                    "INSERT OR REPLACE INTO pools VALUES (?1, ?2, ?3,
                     COALESCE(?4, (SELECT history FROM pools WHERE name = ?1), x''))",
                )
                .and_then(|mut statement| {
                    statement.execute((pool.record.name.as_str(), record, counters, &pool.history))
                })
                .map(|_| ())
                .map_err(|error| Error::store("write a pool", error))
        });
        let written = written
            .and_then(|()| request.map_or(Ok(()), |(key, request)| self.keep_request(key, request)))
            .and_then(|()| self.run("COMMIT"));
        written.inspect_err(|_| {
            // Nothing is open any more where the commit itself had undone it.
            let _ = self.run("ROLLBACK");
        })
    }

    pub(super) fn forget_pool(&self, name: &PoolName) -> Result<()> {
        self.sqlite
            .execute("DELETE FROM pools WHERE name = ?1", [name.as_str()])
            .map(|_| ())
            .map_err(|error| Error::store("forget a pool", error))
    }

    /// The part of a change that is about warm sandboxes, inside the open transaction.
    pub(super) fn apply_warm(&self, change: &Prepared) -> Result<()> {
        for row in &change.put_warm {
            self.keep(
                "INSERT INTO warm VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET record = ?2, handle = ?3",
                row,
            )?;
        }
        for id in &change.remove_warm {
            self.drop_kept("DELETE FROM warm WHERE id = ?1", id)?;
        }
        Ok(())
    }
}
