//! Statements over events.

use super::EVENTS_KEPT;
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::record::{Cursor, Event};

impl Connection {
    /// The cursor of the newest event ever written, also where it is no longer kept.
    pub(super) fn latest_cursor(&self) -> Result<Cursor> {
        self.sqlite
            .query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'", [], |row| {
                row.get::<_, i64>(0)
            })
            .map(i64::unsigned_abs)
            .map_err(|error| Error::store("read the newest event", error))
    }

    pub(super) fn events_after(&self, cursor: Cursor, limit: usize) -> Result<Vec<Event>> {
        let failed = |error: rusqlite::Error| Error::store("read events", error);
        let latest = self.latest_cursor()?;
        let first: Option<i64> =
            self.sqlite.query_row("SELECT min(cursor) FROM events", [], |row| row.get(0)).map_err(failed)?;
        let oldest = first.map_or(latest, |first| first.unsigned_abs() - 1);
        if cursor < oldest || cursor > latest {
            return Err(Error::CursorExpired { cursor: cursor.to_string() });
        }
        let mut statement = self
            .sqlite
            .prepare_cached("SELECT cursor, event FROM events WHERE cursor > ?1 ORDER BY cursor LIMIT ?2")
            .map_err(failed)?;
        let rows = statement
            .query_map((cursor.cast_signed(), i64::try_from(limit).unwrap_or(i64::MAX)), |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })
            .map_err(failed)?;
        rows.map(|row| {
            let (cursor, text) = row.map_err(failed)?;
            let mut event: Event =
                serde_json::from_str(&text).map_err(|error| Error::store("read an event", error))?;
            event.cursor = cursor.unsigned_abs();
            Ok(event)
        })
        .collect()
    }

    /// Forgets all but the newest [`EVENTS_KEPT`].
    pub(super) fn trim_events(&self) -> Result<()> {
        let oldest = self.latest_cursor()?.saturating_sub(EVENTS_KEPT);
        self.sqlite
            .execute("DELETE FROM events WHERE cursor <= ?1", [oldest.cast_signed()])
            .map(|_| ())
            .map_err(|error| Error::store("trim events", error))
    }
}
