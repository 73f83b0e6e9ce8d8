//! How many to keep warm: the controller. `docs/pools.md` has the model in plain words.

mod demand;
mod lead;
mod model;

pub use lead::{Lead, MakeTimes};
pub use model::required;

use crate::history::History;
use crate::spec::PoolSpec;
use crate::time::Time;
use demand::Demand;
use std::time::Duration;

/// The demand is looked at no more often than this, so that a claim costs no arithmetic.
const PAUSE: Duration = Duration::from_millis(100);
/// And no less often than this while it may have fallen without an event that says so.
const INTERVAL: Duration = Duration::from_secs(5);
/// How much of a stored history is replayed at the start.
const REPLAYED: Duration = Duration::from_secs(3600);

/// Decides how many a pool shall hold, from claims and make times.
#[derive(Debug, Clone)]
pub struct Sizer {
    demand: Demand,
    make_times: MakeTimes,
    /// What the demand asks for, headroom not included, after the delay of scaling down.
    held: u32,
    /// Since when the demand asks for less than `held`, and the most it asked for since.
    less: Option<(Time, u32)>,
    /// When the demand was looked at last.
    looked: Option<Time>,
    /// Whether something arrived since.
    stirred: bool,
    saturated: bool,
}

impl Sizer {
    /// A controller that has seen nothing.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            demand: Demand::new(now),
            make_times: MakeTimes::default(),
            held: 0,
            less: None,
            looked: None,
            stirred: false,
            saturated: false,
        }
    }

    /// A controller that knows the last hour of `history`.
    #[must_use]
    pub fn from_history(history: &History, now: Time) -> Self {
        let begin = now.before(REPLAYED);
        let mut sizer = Self::new(begin);
        if let (Some(mean), Some(deviation)) = (history.durations().mean(), history.durations().deviation()) {
            sizer.make_times = MakeTimes::known(mean, deviation);
        }
        for arrivals in history.arrivals() {
            let at = Time::from_secs(arrivals.second);
            if at >= begin && at <= now {
                (0..arrivals.count.min(crate::spec::MAX_SIZE)).for_each(|_| sizer.arrived(at));
            }
        }
        sizer
    }

    /// Goes on from a size that was decided before, headroom not included: it counts until the demand asked for less
    /// during the delay of scaling down.
    pub fn hold(&mut self, size: u32) {
        self.held = self.held.max(size);
    }

    /// A claim came.
    pub fn arrived(&mut self, now: Time) {
        self.demand.arrived(now);
        self.stirred = true;
    }

    /// A sandbox was made.
    pub fn made(&mut self, took: Duration) {
        self.make_times.record(took);
    }

    /// Looks at the demand again, unless it just did. Cheap to call often.
    pub fn look(&mut self, spec: &PoolSpec, now: Time) {
        let due = self.looked.is_none_or(|looked| {
            let since = now.since(looked);
            since >= INTERVAL || (self.stirred && since >= PAUSE)
        });
        if due {
            self.look_now(spec, now);
        }
    }

    /// Looks at the demand again, for example because the specification changed.
    pub fn look_now(&mut self, spec: &PoolSpec, now: Time) {
        let rate = self.demand.rate(now);
        let lead = Lead::new(&self.make_times, rate, spec.refill_concurrency);
        let lead_time = lead.time().saturating_add(spec.refill_delay);
        self.demand.use_window(lead_time, now);
        self.saturated = lead.is_saturated();
        let wanted = required(rate, self.demand.dispersion(), lead_time, spec.target_hit_rate, spec.max_size)
            .min(self.demand.most_ever_useful(lead_time, now));
        self.looked = Some(now);
        self.stirred = false;
        self.follow(wanted, spec.scale_down_delay, now);
    }

    /// Goes up to `wanted` at once, and down to the most that was wanted during `delay`.
    fn follow(&mut self, wanted: u32, delay: Duration, now: Time) {
        if wanted >= self.held {
            self.held = wanted;
            self.less = None;
            return;
        }
        let (since, most) = self.less.unwrap_or((now, wanted));
        let most = most.max(wanted);
        if now.since(since) >= delay {
            // What was the most during the delay is safe to go down to; a new delay begins there.
            self.held = most;
            self.less = (wanted < most).then_some((now, wanted));
        } else {
            self.less = Some((since, most));
        }
    }

    /// How many to keep warm, by specification and demand, at `now`.
    #[must_use]
    pub fn target(&self, spec: &PoolSpec, now: Time) -> u32 {
        if let Some(pinned) = spec.pinned_size {
            return pinned.min(spec.max_size);
        }
        let demanded = self.held.saturating_add(spec.headroom);
        demanded.max(spec.min_size_at(now)).min(spec.max_size)
    }

    /// When it wants to look again though nothing happens.
    #[must_use]
    pub fn next_look(&self) -> Option<Time> {
        let looked = self.looked?;
        if self.stirred {
            return Some(looked.after(PAUSE));
        }
        (self.held > 0).then(|| looked.after(INTERVAL))
    }

    /// Claims per second, as the sizing sees it.
    #[must_use]
    pub fn rate(&self, now: Time) -> f64 {
        self.demand.rate(now)
    }

    /// How much burstier than chance claims come: 1 is chance.
    #[must_use]
    pub fn dispersion(&self) -> f64 {
        self.demand.dispersion()
    }

    /// The time to make one. `None` before the first.
    #[must_use]
    pub fn make_time(&self) -> Option<Duration> {
        self.make_times.mean()
    }

    /// Whether the demand is more than `refill_concurrency` can make: then no size gives the hit rate.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.saturated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_to_the_most_of_the_delay() {
        let mut sizer = Sizer::new(Time::default());
        let mut follow = |wanted, second| {
            sizer.follow(wanted, Duration::from_secs(60), Time::from_secs(second));
            sizer.held
        };
        assert_eq!(follow(10, 0), 10);
        assert_eq!((follow(3, 1), follow(7, 30), follow(2, 60)), (10, 10, 10));
        assert_eq!((follow(2, 61), follow(2, 120)), (7, 7));
        assert_eq!(follow(2, 121), 2);
        assert_eq!((follow(5, 122), follow(4, 123), follow(5, 170), follow(4, 190)), (5, 5, 5, 5));
    }
}
