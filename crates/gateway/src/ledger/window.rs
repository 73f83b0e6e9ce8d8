//! A sum over the last minute, in a fixed amount of memory.

/// One bucket a second, and one more, so that 60 whole seconds are always covered.
const BUCKETS: u64 = 61;

/// What was added in the last 60 seconds. It may count up to a second too long, never too short.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// By second modulo [`BUCKETS`]; empty until something is added.
    buckets: Vec<u64>,
    newest: u64,
    sum: u64,
}

impl Window {
    pub(super) fn add(&mut self, amount: u64, second: u64) {
        if amount == 0 {
            return;
        }
        self.advance(second);
        if self.buckets.is_empty() {
            self.buckets = vec![0; 61];
            self.newest = second;
        }
        let index = index(self.newest);
        self.buckets[index] = self.buckets[index].saturating_add(amount);
        self.sum = self.sum.saturating_add(amount);
    }

    /// `None` while the sum is below the limit, otherwise the seconds (1 to 61) until it will be.
    pub(super) fn wait(&mut self, limit: u64, second: u64) -> Option<u64> {
        self.advance(second);
        if self.sum < limit {
            return None;
        }
        let mut left = self.sum;
        for (wait, oldest) in (self.newest + 1..).take(61).enumerate() {
            left = left.saturating_sub(self.buckets.get(index(oldest)).copied().unwrap_or(0));
            if left < limit {
                return Some(u64::try_from(wait).unwrap_or(0) + 1);
            }
        }
        Some(BUCKETS)
    }

    fn advance(&mut self, second: u64) {
        if self.buckets.is_empty() || second <= self.newest {
            return;
        }
        if second - self.newest >= BUCKETS {
            self.buckets.clear();
            self.sum = 0;
            return;
        }
        for passed in self.newest + 1..=second {
            self.sum = self.sum.saturating_sub(std::mem::take(&mut self.buckets[index(passed)]));
        }
        self.newest = second;
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % BUCKETS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_a_minute_old_counts_no_more() {
        let mut window = Window::default();
        assert_eq!(window.wait(2, 5), None);
        window.add(1, 5);
        window.add(1, 7);
        assert_eq!(window.wait(2, 7), Some(59), "until second 66, when second 5 is gone");
        assert_eq!(window.wait(2, 65), Some(1));
        assert_eq!(window.wait(2, 66), None);
        assert_eq!(window.wait(1, 66), Some(2));
        assert_eq!(window.wait(0, 500), Some(61), "a limit of nothing");
    }

    proptest! {
        #[test]
        fn no_sixty_seconds_hold_more_than_the_limit(
            steps in prop::collection::vec(0_u64..20, 1..200), limit in 1_u64..10
        ) {
            let (mut window, mut second, mut begun) = (Window::default(), 0, Vec::<u64>::new());
            for step in steps {
                second += step;
                if window.wait(limit, second).is_none() {
                    window.add(1, second);
                    begun.push(second);
                }
            }
            for (index, first) in begun.iter().enumerate() {
                let within = begun[index..].iter().filter(|later| **later - first < 60).count();
                prop_assert!(u64::try_from(within).unwrap() <= limit);
            }
        }
    }
}
