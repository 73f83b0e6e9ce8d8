//! The time that pools reckon in.

use hostel_pool::Time;
use std::time::{Duration, Instant, SystemTime};

/// The wall clock at the daemon's start, carried on by the monotonic clock: a step of the wall clock moves nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Duration,
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { origin: since_epoch(SystemTime::now()), start: Instant::now() }
    }

    pub(super) fn now(&self) -> Time {
        Time(self.origin + self.start.elapsed())
    }

    /// When this will be, by the monotonic clock.
    pub(super) fn instant(&self, time: Time) -> Instant {
        self.start + time.0.saturating_sub(self.origin)
    }
}

/// A moment of the wall clock, as pools reckon.
pub(super) fn time(moment: SystemTime) -> Time {
    Time(since_epoch(moment))
}

/// A moment as pools reckon, on the wall clock.
pub(crate) fn moment(time: Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + time.0
}

fn since_epoch(moment: SystemTime) -> Duration {
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
