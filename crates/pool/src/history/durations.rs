//! How long making took, summarised.

use std::time::Duration;

/// Number of classes.
pub(super) const CLASSES: usize = 48;
/// Above this many, all counts are halved, so that what is new weighs more.
const MOST: u64 = 4096;

/// Counts of durations in classes that grow by √2: up to 1 ms, 1.4 ms, 2 ms, … 4 hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durations {
    pub(super) counts: [u32; CLASSES],
}

impl Default for Durations {
    fn default() -> Self {
        Self { counts: [0; CLASSES] }
    }
}

/// The duration that stands for a class, in seconds: its geometric middle.
fn middle(class: usize) -> f64 {
    0.001 * 2f64.powf((class as f64 - 0.5) / 2.0)
}

impl Durations {
    pub(super) fn record(&mut self, took: Duration) {
        let class = (took.as_secs_f64() / 0.001).max(1e-9).log2().mul_add(2.0, 0.0).ceil();
        // A float to integer cast saturates, so below the first class is the first, above the last is the last.
        let class = (class.max(0.0) as usize).min(CLASSES - 1);
        self.counts[class] = self.counts[class].saturating_add(1);
        if self.count() > MOST {
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// How many durations it stands for.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().copied().map(u64::from).sum()
    }

    fn moment(&self, of: impl Fn(f64) -> f64) -> f64 {
        let sum: f64 =
            self.counts.iter().enumerate().map(|(class, count)| f64::from(*count) * of(middle(class))).sum();
        sum / self.count().max(1) as f64
    }

    /// The mean, within a fifth. `None` when nothing is recorded.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_secs_f64(self.moment(|seconds| seconds)))
    }

    /// The standard deviation, to the width of a class. `None` when nothing is recorded.
    #[must_use]
    pub fn deviation(&self) -> Option<Duration> {
        let mean = self.mean()?.as_secs_f64();
        let variance = self.moment(|seconds| (seconds - mean) * (seconds - mean));
        Some(Duration::from_secs_f64(variance.max(0.0).sqrt()))
    }

    /// The duration below which the share `share`, 0 to 1, of all lie. `None` when nothing is recorded.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut seen = 0.0;
        let mut last = None;
        for (class, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            seen += f64::from(*count);
            last = Some(Duration::from_secs_f64(middle(class)));
            if seen >= wanted {
                break;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_near_the_facts() {
        let mut durations = Durations::default();
        assert_eq!(durations.quantile(0.5), None);
        for millis in [100u64, 200, 300] {
            (0..100).for_each(|_| durations.record(Duration::from_millis(millis)));
        }
        let mean = durations.mean().unwrap().as_secs_f64();
        assert!((0.16..0.24).contains(&mean), "{mean}");
        let deviation = durations.deviation().unwrap().as_secs_f64();
        assert!((0.05..0.12).contains(&deviation), "{deviation}");
        let p99 = durations.quantile(0.99).unwrap().as_secs_f64();
        assert!((0.25..0.36).contains(&p99), "{p99}");
        durations.record(Duration::ZERO);
        durations.record(Duration::MAX);
        (0..5000).for_each(|_| durations.record(Duration::from_secs(1)));
        assert!(durations.count() <= MOST);
    }
}
