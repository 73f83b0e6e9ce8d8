//! Time as an argument.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A moment, as the time since an epoch that the caller chose. The daemon's is the UNIX epoch, so that what it
/// stores means the same after a restart, and schedules (which need that epoch) fall on the right hours.
///
/// A caller that takes it from a clock that may be set back should add a monotonic clock's time to the moment of its
/// own start. What is here bears a step back as if no time had passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub Duration);

impl Time {
    /// A moment by whole seconds since the epoch.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The time that passed since `earlier`; zero when that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The moment `span` earlier, at the earliest the epoch.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}
