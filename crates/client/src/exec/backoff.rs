//! When to try again after a connection broke.

use std::time::Duration;
use tokio::time::Instant;

/// What to do when the connection to the daemon breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// How long to try, counted from the break. Zero: not at all.
    pub total: Duration,
    /// How long to wait before the first try. It doubles with each.
    pub first_delay: Duration,
    /// The longest wait between two tries.
    pub longest_delay: Duration,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(30),
            first_delay: Duration::from_millis(20),
            longest_delay: Duration::from_secs(1),
        }
    }
}

impl ReconnectPolicy {
    /// Never tries again.
    #[must_use]
    pub fn never() -> Self {
        Self { total: Duration::ZERO, ..Self::default() }
    }
}

/// A connection that lived this long was a good one: the next break begins anew.
const GOOD: Duration = Duration::from_secs(1);

/// Where we are with trying again.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: ReconnectPolicy,
    broken_since: Option<Instant>,
    delay: Duration,
    attached_since: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(policy: ReconnectPolicy) -> Self {
        Self { policy, broken_since: None, delay: policy.first_delay, attached_since: None }
    }

    /// We are attached.
    pub(crate) fn attached(&mut self) {
        self.attached_since = Some(Instant::now());
    }

    /// Something came through.
    pub(crate) fn progress(&mut self) {
        self.broken_since = None;
        self.delay = self.policy.first_delay;
    }

    /// The connection broke or could not be made: how long to wait before the next try; `Err` with the time spent
    /// when that was enough.
    pub(crate) fn broke(&mut self) -> Result<Duration, Duration> {
        if self.attached_since.take().is_some_and(|since| since.elapsed() >= GOOD) {
            self.progress();
        }
        let spent = self.broken_since.get_or_insert_with(Instant::now).elapsed();
        if spent >= self.policy.total {
            return Err(spent);
        }
        let delay = self.delay.min(self.policy.total - spent);
        self.delay = (self.delay * 2).min(self.policy.longest_delay);
        Ok(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_are_bounded_in_time_and_begin_anew_after_a_good_connection() {
        let mut backoff = Backoff::new(ReconnectPolicy::default());
        let start = Instant::now();
        let mut tries = 0;
        while let Ok(delay) = backoff.broke() {
            tokio::time::sleep(delay).await;
            // Attached for a moment only, again and again: that is no progress.
            backoff.attached();
            tries += 1;
        }
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        assert!((30..40).contains(&tries), "{tries}");
        backoff.attached();
        tokio::time::sleep(GOOD).await;
        assert_eq!(backoff.broke(), Ok(Duration::from_millis(20)));
        assert!(Backoff::new(ReconnectPolicy::never()).broke().is_err());
    }
}
