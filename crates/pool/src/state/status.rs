//! What a pool is now.

use super::{Pool, Pressure};
use crate::time::Time;
use std::time::Duration;

/// How a pool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has its target size.
    Healthy,
    /// It has less and is refilling, or there is no room to replace old ones before one of them goes.
    Refilling,
    /// Refills fail, and it lacks some, or has old ones that it cannot replace.
    Failing,
    /// It removes what is warm and does not refill.
    Draining,
    /// It is drained and empty.
    Drained,
}

/// Why the last refill failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFailure {
    /// What the backend said.
    pub message: String,
    /// When.
    pub time: Time,
}

/// Longest message of a failure that is kept, in characters.
const MAX_MESSAGE: usize = 1000;

impl LastFailure {
    pub(super) fn new(message: &str, time: Time) -> Self {
        Self { message: message.chars().take(MAX_MESSAGE).collect(), time }
    }
}

/// What a pool is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// How it does.
    pub health: Health,
    /// How many it tries to keep warm.
    pub target: u32,
    /// How many are warm and can be claimed.
    pub ready: u32,
    /// Those of `ready` that are to be replaced, for their age or their generation.
    pub old: u32,
    /// How many are being made.
    pub creating: u32,
    /// How many are being removed.
    pub removing: u32,
    /// Claims per second, as the sizing sees it.
    pub arrivals_per_second: f64,
    /// The variance of claims over their mean, as the sizing sees it: 1 is chance, more is bursts.
    pub dispersion: f64,
    /// Whether there are more claims than `refill_concurrency` can make: no size gives the hit rate then.
    pub saturated: bool,
    /// The time to make one, as the sizing sees it. `None` before the first.
    pub create_duration: Option<Duration>,
    /// The age of the oldest warm one.
    pub oldest_age: Option<Duration>,
    /// What the ready ones use of memory, in bytes. `None` where that is not measured.
    pub idle_memory_bytes: Option<u64>,
    /// Why the last refill failed. `None` when it did not.
    pub last_failure: Option<LastFailure>,
    /// When refilling is tried again after failures. `None` when it is not held back.
    pub retry_time: Option<Time>,
    /// What holds the size down, also for a while after it eased.
    pub pressure: Pressure,
}

impl Pool {
    /// What the pool is at `now`.
    #[must_use]
    pub fn status(&self, now: Time) -> Status {
        let now = self.now.max(now);
        let target = self.target(now);
        Status {
            health: self.health(target),
            target,
            ready: self.shelf.len_claimable(),
            old: self.shelf.len_old(),
            creating: self.creating(),
            removing: u32::try_from(self.removing.len() + self.failed.len()).unwrap_or(u32::MAX),
            arrivals_per_second: self.sizer.rate(now),
            dispersion: self.sizer.dispersion(),
            saturated: self.sizer.is_saturated(),
            create_duration: self.sizer.make_time(),
            oldest_age: self.shelf.oldest().map(|made| now.since(made)),
            idle_memory_bytes: self.idle_memory(),
            last_failure: self.last_failure.clone(),
            retry_time: self.retry_time(now),
            pressure: self.held_pressure(now),
        }
    }

    fn health(&self, target: u32) -> Health {
        if self.spec.draining {
            let leaving = !self.removing.is_empty() || !self.failed.is_empty();
            let empty = self.shelf.len() == 0 && self.creating() == 0 && !leaving;
            return if empty { Health::Drained } else { Health::Draining };
        }
        if self.is_failing() && self.shelf.len_fresh() < target {
            Health::Failing
        } else if self.shelf.len_claimable() < target || self.cramped {
            Health::Refilling
        } else {
            Health::Healthy
        }
    }
}
