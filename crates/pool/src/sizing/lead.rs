//! How long a replacement takes.

use std::time::Duration;

/// Assumed until the first sandbox was made.
const ASSUMED: f64 = 1.0;
/// The weight of the newest make time once there are more than ten.
const WEIGHT: f64 = 0.1;
/// Most load of the makers that the formula for waiting is used for; beyond, it goes to infinity.
const MOST_LOAD: f64 = 0.95;
/// Longest lead time, in seconds.
const LONGEST: f64 = 86_400.0;

/// Mean and deviation of make times, the newest weighing most.
#[derive(Debug, Clone, Default)]
pub struct MakeTimes {
    count: u32,
    mean: f64,
    variance: f64,
}

impl MakeTimes {
    /// What is known from before.
    #[must_use]
    pub fn known(mean: Duration, deviation: Duration) -> Self {
        let deviation = deviation.as_secs_f64();
        Self { count: 10, mean: mean.as_secs_f64(), variance: deviation * deviation }
    }

    /// One more.
    pub fn record(&mut self, took: Duration) {
        self.count = self.count.saturating_add(1);
        let weight = WEIGHT.max(1.0 / f64::from(self.count));
        let difference = took.as_secs_f64() - self.mean;
        self.mean += weight * difference;
        self.variance = (1.0 - weight) * weight.mul_add(difference * difference, self.variance);
    }

    /// The mean. `None` before the first.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| seconds(self.mean))
    }

    fn mean_seconds(&self) -> f64 {
        if self.count == 0 { ASSUMED } else { self.mean.max(1e-6) }
    }
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(if value.is_finite() { value.clamp(0.0, LONGEST) } else { LONGEST })
}

/// The time from the beginning of a refill until it is ready.
#[derive(Debug, Clone, Copy)]
pub struct Lead {
    time: Duration,
    saturated: bool,
}

impl Lead {
    /// The mean make time, one deviation, and the wait for a free maker: with load `ρ = rate × mean / makers`, about
    /// `mean / makers × ρ^(√(2(makers + 1)) − 1) / (1 − ρ) × (1 + (deviation / mean)²) / 2` (Sakasegawa's
    /// approximation for a queue with several servers).
    #[must_use]
    pub fn new(times: &MakeTimes, rate: f64, makers: u32) -> Self {
        let mean = times.mean_seconds();
        let makers = f64::from(makers.max(1));
        let load = rate * mean / makers;
        let bounded = load.clamp(0.0, MOST_LOAD);
        let spread = 1.0 + times.variance / (mean * mean);
        let power = (2.0 * (makers + 1.0)).sqrt() - 1.0;
        let wait = mean / makers * bounded.powf(power) / (1.0 - bounded) * spread / 2.0;
        Self { time: seconds(mean + times.variance.sqrt() + wait), saturated: load > MOST_LOAD }
    }

    /// The time.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Whether makers cannot keep up.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.saturated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_maker_takes_longer() {
        let mut times = MakeTimes::default();
        assert_eq!(times.mean(), None);
        (0..50).for_each(|_| times.record(Duration::from_millis(200)));
        let idle = Lead::new(&times, 0.01, 2);
        assert!((195..206).contains(&idle.time().as_millis()), "{idle:?}");
        let busy = Lead::new(&times, 9.0, 2);
        assert!(busy.time() > idle.time() * 3 && !busy.is_saturated(), "{busy:?}");
        assert!(Lead::new(&times, 11.0, 2).is_saturated());
        assert!(!Lead::new(&times, 11.0, 8).is_saturated());
    }

    #[test]
    fn one_queue_with_one_maker_is_exact() {
        // M/M/1 at half load waits for one service time.
        let times = MakeTimes { count: 5, mean: 1.0, variance: 1.0 };
        let lead = Lead::new(&times, 0.5, 1).time().as_secs_f64();
        assert!((lead - 3.0).abs() < 1e-9, "{lead}");
    }
}
