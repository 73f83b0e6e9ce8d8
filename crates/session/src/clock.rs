//! The time of records.

use jiff::{Timestamp, Unit};

/// Now, in whole microseconds, as the databases keep it: what is told before and after it was kept is the same.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Microsecond).unwrap_or(now)
}
