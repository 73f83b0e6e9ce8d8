//! Waiting longer after each failure.

use crate::random::Random;
use crate::time::Time;
use std::time::Duration;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// Failures are forgotten when none came for this long after a retry.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// Failures in a row and until when to wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    failures: u32,
    retry: Option<Time>,
}

impl Backoff {
    /// Something failed. What fails while waiting was begun before: it says nothing new and does not count.
    pub(super) fn failed(&mut self, random: &mut Random, now: Time) {
        if self.waits_until(now).is_some() {
            return;
        }
        self.forget(now);
        let longest = FIRST.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LONGEST);
        self.failures = self.failures.saturating_add(1).min(31);
        // Half to all of it, so that pools that failed together do not come back together.
        self.retry = Some(now.after(longest.mul_f64(0.5 + random.unit() / 2.0)));
    }

    /// Something worked. While waiting, it was begun before the failure and says nothing.
    pub(super) fn worked(&mut self, now: Time) -> bool {
        let counts = self.waits_until(now).is_none();
        if counts {
            *self = Self::default();
        }
        counts
    }

    /// Whether the wait of the last failure was over at `moment`.
    pub(super) fn began_before(&self, moment: Time) -> bool {
        self.retry.is_some_and(|retry| retry <= moment)
    }

    /// Forgets failures that are long ago.
    pub(super) fn forget(&mut self, now: Time) {
        if self.retry.is_some_and(|retry| now.since(retry) > FORGOTTEN) {
            *self = Self::default();
        }
    }

    /// Until when to wait, if at all.
    pub(super) fn waits_until(&self, now: Time) -> Option<Time> {
        self.retry.filter(|retry| *retry > now)
    }

    /// Whether the last thing that counted was a failure.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_end_with_success() {
        let (mut backoff, mut random, mut now) = (Backoff::default(), Random::new(7), Time::from_secs(100));
        let mut waits = Vec::new();
        for _ in 0..40 {
            backoff.failed(&mut random, now);
            let retry = backoff.waits_until(now).unwrap();
            waits.push(retry.since(now));
            assert!(!backoff.worked(now), "begun before the failure");
            backoff.failed(&mut random, now);
            assert_eq!(backoff.waits_until(now), Some(retry), "counts once");
            now = retry;
        }
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits[39] >= LONGEST / 2 && waits.iter().all(|wait| *wait <= LONGEST));
        assert!(backoff.is_failing() && backoff.worked(now) && !backoff.is_failing());
    }
}
