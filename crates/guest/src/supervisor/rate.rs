//! How fast all processes together may write output: a token bucket.

use std::time::{Duration, Instant};

/// Least number of bytes worth waking up for.
const QUANTUM: u64 = 16 << 10;

/// Tokens are bytes.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u64,
    tokens: u64,
    filled: Instant,
}

impl Rate {
    /// `per_second` of 0 is unlimited.
    pub(crate) fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second, tokens: per_second, filled: now }
    }

    /// Bytes that may be read now.
    pub(crate) fn available(&mut self, now: Instant) -> usize {
        if self.per_second == 0 {
            return usize::MAX;
        }
        let since = now.saturating_duration_since(self.filled);
        let new = u128::from(self.per_second) * since.as_nanos() / 1_000_000_000;
        if new > 0 {
            self.tokens =
                self.tokens.saturating_add(u64::try_from(new).unwrap_or(u64::MAX)).min(self.per_second);
            self.filled = now;
        }
        if self.tokens < self.quantum() { 0 } else { usize::try_from(self.tokens).unwrap_or(usize::MAX) }
    }

    fn quantum(&self) -> u64 {
        QUANTUM.min(self.per_second / 16).max(1)
    }

    /// So many bytes were read.
    pub(crate) fn take(&mut self, bytes: usize) {
        if self.per_second > 0 {
            self.tokens = self.tokens.saturating_sub(bytes as u64);
        }
    }

    /// When it is worth reading again.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let wanted = self.quantum().saturating_sub(self.tokens);
        let nanoseconds = u128::from(wanted) * 1_000_000_000 / u128::from(self.per_second.max(1));
        now + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
            .max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_fills_with_time_and_never_overflows() {
        let now = Instant::now();
        let mut rate = Rate::new(1000, now);
        assert_eq!(rate.available(now), 1000);
        rate.take(1000);
        assert_eq!(rate.available(now), 0);
        assert_eq!(rate.available(now + Duration::from_millis(100)), 100);
        assert!(rate.next(now) > now);
        assert_eq!(rate.available(now + Duration::from_secs(3600)), 1000);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let now = Instant::now();
        let mut rate = Rate::new(0, now);
        rate.take(1 << 40);
        assert_eq!(rate.available(now), usize::MAX);
    }
}
