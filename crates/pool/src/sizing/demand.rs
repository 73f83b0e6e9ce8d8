//! What claims come, from the claims that came.

use crate::spec::MAX_SIZE;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// How far back the rate looks that rises fast.
const FAST: f64 = 30.0;
/// How far back the rate looks that falls slowly, and the measure of bursts.
const SLOW: f64 = 600.0;
/// How fast the memory of the largest burst fades.
const PEAK: f64 = 3600.0;
/// Burstier than this is not believed.
const MOST_DISPERSION: f64 = 10_000.0;
const MOST_WINDOW: u64 = 64;

/// A rate that looks back over about `span` seconds: each claim adds to it, and it fades exponentially.
#[derive(Debug, Clone)]
struct FadingRate {
    span: f64,
    value: f64,
    at: Time,
}

impl FadingRate {
    fn at(&self, now: Time) -> f64 {
        self.value * (-now.since(self.at).as_secs_f64() / self.span).exp()
    }

    fn arrived(&mut self, now: Time) {
        self.value = self.at(now) + 1.0 / self.span;
        self.at = self.at.max(now);
    }
}

/// Mean and variance of the counts in windows of one length, fading. The variance is half the mean square of the
/// differences between neighbours (the Allan variance): what rises or falls over many windows is a change of the rate,
/// which is seen elsewhere, and no burst.
#[derive(Debug, Clone)]
struct Windows {
    /// In seconds, a power of two: near the lead time, where bursts matter.
    length: u64,
    begin: Time,
    count: u64,
    /// The count of the window before.
    previous: f64,
    weight: f64,
    mean: f64,
    variance: f64,
}

impl Windows {
    fn fade(&self, windows: f64) -> f64 {
        (-(self.length as f64) * windows / SLOW).exp()
    }

    /// Closes windows that ended by `now`.
    fn advance(&mut self, now: Time) {
        let ended = now.since(self.begin).as_secs() / self.length;
        if ended == 0 {
            return;
        }
        self.close(self.count as f64);
        if ended > 1 {
            // The others were empty: the first of them differs from the one before, the rest from nothing.
            self.close(0.0);
            let kept = self.fade((ended - 2) as f64);
            self.weight = kept * self.weight + 1.0 - kept;
            self.mean *= kept;
            self.variance *= kept;
        }
        self.begin = self.begin.after(Duration::from_secs(ended.saturating_mul(self.length)));
        self.count = 0;
    }

    fn close(&mut self, count: f64) {
        let (kept, difference) = (self.fade(1.0), count - self.previous);
        self.weight = kept * self.weight + 1.0 - kept;
        self.mean = kept * self.mean + (1.0 - kept) * count;
        self.variance = kept * self.variance + (1.0 - kept) * difference * difference / 2.0;
        self.previous = count;
    }

    fn dispersion(&self) -> f64 {
        // Few windows say nothing about bursts.
        let seen = -(1.0 - self.weight.min(0.999_999)).ln() * SLOW / self.length as f64;
        if seen < 10.0 || self.mean <= 0.0 {
            return 1.0;
        }
        (self.variance / self.mean).clamp(1.0, MOST_DISPERSION)
    }

    fn change(&mut self, length: u64, now: Time) {
        self.advance(now);
        let (dispersion, ratio) = (self.dispersion(), length as f64 / self.length as f64);
        // The mean goes with the length; how bursty it is is taken over until there is something better.
        self.length = length;
        self.mean *= ratio;
        self.previous *= ratio;
        self.variance = dispersion * self.mean;
    }
}

/// The demand as seen so far.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    fast: FadingRate,
    slow: FadingRate,
    windows: Windows,
    /// When claims came within the last window, newest last.
    recent: VecDeque<Time>,
    /// The most claims that were within one window, fading.
    peak: f64,
    peak_at: Time,
}

impl Demand {
    pub(super) fn new(now: Time) -> Self {
        let rate = |span| FadingRate { span, value: 0.0, at: now };
        Self {
            fast: rate(FAST),
            slow: rate(SLOW),
            windows: Windows {
                length: 1,
                begin: now,
                count: 0,
                previous: 0.0,
                weight: 0.0,
                mean: 0.0,
                variance: 0.0,
            },
            recent: VecDeque::new(),
            peak: 0.0,
            peak_at: now,
        }
    }

    pub(super) fn arrived(&mut self, now: Time) {
        self.fast.arrived(now);
        self.slow.arrived(now);
        self.windows.advance(now);
        self.windows.count = self.windows.count.saturating_add(1);
        let begin = now.before(Duration::from_secs(self.windows.length));
        while self.recent.front().is_some_and(|oldest| *oldest < begin)
            || self.recent.len() >= MAX_SIZE as usize
        {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.peak = self.peak_at(now).max(self.recent.len() as f64);
        self.peak_at = self.peak_at.max(now);
    }

    /// Claims per second: up at once, down slowly.
    pub(super) fn rate(&self, now: Time) -> f64 {
        self.fast.at(now).max(self.slow.at(now))
    }

    /// The variance of counts over their mean: 1 is chance, more is bursts.
    pub(super) fn dispersion(&self) -> f64 {
        self.windows.dispersion()
    }

    fn peak_at(&self, now: Time) -> f64 {
        self.peak * (-now.since(self.peak_at).as_secs_f64() / PEAK).exp()
    }

    /// A quarter more than the most that ever came within a window, and one: the tail of the model goes on beyond
    /// what happens, when all bursts have about the same size.
    pub(super) fn most_ever_useful(&self, lead: Duration, now: Time) -> u32 {
        let windows = (lead.as_secs_f64() / self.windows.length as f64).max(1.0);
        // The cast saturates.
        (self.peak_at(now) * windows).mul_add(1.25, 1.0).ceil() as u32
    }

    /// Counts from now on in windows of about this lead time.
    pub(super) fn use_window(&mut self, lead: Duration, now: Time) {
        self.windows.advance(now);
        let seconds = lead.as_secs().saturating_add(u64::from(lead.subsec_nanos() > 0));
        let length = seconds.clamp(1, MOST_WINDOW).next_power_of_two();
        if length != self.windows.length {
            self.windows.change(length, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(times: impl Iterator<Item = f64>) -> (Demand, Time) {
        let mut demand = Demand::new(Time::default());
        let mut now = Time::default();
        for time in times {
            now = Time(Duration::from_secs_f64(time));
            demand.arrived(now);
        }
        (demand, now)
    }

    #[test]
    fn an_even_demand_is_seen_as_it_is() {
        let (mut demand, now) = feed((1..20_000).map(|index| f64::from(index) / 5.0));
        assert!((4.9..5.2).contains(&demand.rate(now)), "{}", demand.rate(now));
        assert!(demand.dispersion() < 1.1, "{}", demand.dispersion());
        let later = now.after(Duration::from_secs(600));
        assert!((1.6..2.1).contains(&demand.rate(later)), "{}", demand.rate(later));
        demand.use_window(Duration::from_secs(1), later);
        assert!(demand.dispersion() < 1.5, "that it ended is no burst: {}", demand.dispersion());
    }

    #[test]
    fn bursts_are_seen_and_bound_the_size() {
        let (demand, now) = feed((1..200).flat_map(|burst| (0..50).map(move |_| f64::from(burst) * 60.0)));
        assert!((30.0..60.0).contains(&demand.dispersion()), "{}", demand.dispersion());
        assert!(
            (60..70).contains(&demand.most_ever_useful(Duration::ZERO, now)),
            "{}",
            demand.most_ever_useful(Duration::ZERO, now)
        );
    }

    #[test]
    fn a_rise_is_seen_within_half_a_minute() {
        let quiet = (1..60).map(|index| f64::from(index) * 60.0);
        let loud = (1..300).map(|index| 3600.0 + f64::from(index) / 10.0);
        let (demand, now) = feed(quiet.chain(loud));
        assert!(demand.rate(now) > 6.0, "{}", demand.rate(now));
    }

    #[test]
    fn a_change_of_the_window_keeps_what_is_known() {
        let (mut demand, now) =
            feed((1..200).flat_map(|burst| (0..50).map(move |_| f64::from(burst) * 60.0)));
        let before = demand.dispersion();
        demand.use_window(Duration::from_secs(7), now);
        assert!((demand.dispersion() - before).abs() < before / 10.0);
    }
}
