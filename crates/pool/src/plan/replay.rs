//! A pool in fast motion: only how many are ready and when the next ones will be.

use super::PlanOptions;
use crate::history::{Arrivals, Durations, History};
use crate::random::Random;
use crate::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Without a claim for so long, the size is looked at again.
const STEP: f64 = 5.0;
const MAX_WAITS: usize = 100_000;
/// Most claims that are replayed, the newest: 33 a second for a week. It bounds the time a replay takes.
const MAX_CLAIMS: u64 = 20_000_000;

/// What a replay found.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// Ready sandboxes × seconds.
    pub(super) idle_seconds: f64,
    pub(super) seconds: f64,
    pub(super) most_target: u32,
    target_seconds: f64,
    /// Waits of misses, in seconds; after [`MAX_WAITS`] an even sample of them.
    waits: Vec<f64>,
}

impl Tally {
    pub(super) fn claims(&self) -> u64 {
        self.hits + self.misses
    }

    pub(super) fn hit_rate(&self) -> f64 {
        if self.claims() == 0 { 1.0 } else { self.hits as f64 / self.claims() as f64 }
    }

    pub(super) fn mean_ready(&self) -> f64 {
        if self.seconds > 0.0 { self.idle_seconds / self.seconds } else { 0.0 }
    }

    pub(super) fn mean_target(&self) -> f64 {
        if self.seconds > 0.0 { self.target_seconds / self.seconds } else { f64::from(self.most_target) }
    }

    fn wait_of(&mut self, wait: f64, random: &mut Random) {
        self.misses += 1;
        if self.waits.len() < MAX_WAITS {
            self.waits.push(wait);
            return;
        }
        let place = (random.unit() * self.misses as f64) as usize;
        if let Some(kept) = self.waits.get_mut(place) {
            *kept = wait;
        }
    }

    /// The wait that the share `share` of claims does not exceed.
    pub(super) fn wait(&self, share: f64) -> Duration {
        let beyond = share - self.hit_rate();
        if beyond <= 0.0 || self.waits.is_empty() {
            return Duration::ZERO;
        }
        let mut waits = self.waits.clone();
        let rank = (beyond / (1.0 - self.hit_rate()) * waits.len() as f64).ceil() as usize;
        let index = rank.clamp(1, waits.len()) - 1;
        let (_, wait, _) = waits.select_nth_unstable_by(index, f64::total_cmp);
        Duration::from_secs_f64(*wait)
    }
}

/// The state of a replay. Times are microseconds since the first claim, so that they order as integers.
pub(super) struct Replay {
    now: u64,
    ready: u32,
    /// When those in the making will be ready, and how long each takes, in microseconds.
    making: BinaryHeap<Reverse<(u64, u64)>>,
    made: Vec<Duration>,
    makers: usize,
    /// How long refills wait after a claim, and until when they do.
    delay: u64,
    waits_until: Option<u64>,
    target: u32,
    times: Times,
    random: Random,
    tally: Tally,
}

/// How long making takes.
struct Times {
    fixed: Option<u64>,
    /// 256 quantiles of what was recorded.
    quantiles: Vec<u64>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4).clamp(1, u64::MAX / 4)
}

impl Times {
    fn new(durations: &Durations, given: Option<Duration>) -> Self {
        let quantile = |index: u32| durations.quantile((f64::from(index) + 0.5) / 256.0);
        let quantiles: Vec<u64> = (0..256).filter_map(quantile).map(micros).collect();
        let given = given.map(micros);
        let fixed = if quantiles.is_empty() { given.or(Some(1_000_000)) } else { given };
        Self { fixed, quantiles }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let index = (random.unit() * self.quantiles.len() as f64) as usize;
        self.quantiles.get(index).copied().unwrap_or(1_000_000)
    }
}

/// When a replay begins: the first second that it looks at, beyond all where it looks at none.
pub(super) fn begin(history: &History, options: &PlanOptions) -> Time {
    let since = options.since.unwrap_or_default();
    let mut total: u64 = history.arrivals().map(|arrivals| u64::from(arrivals.count)).sum();
    let first = history.arrivals().find(|arrivals| {
        let replayed = total <= MAX_CLAIMS && Time::from_secs(arrivals.second) >= since;
        total -= u64::from(arrivals.count);
        replayed
    });
    let beyond = || history.arrivals().last().map_or(0, |last| last.second + 1);
    Time::from_secs(first.map_or_else(beyond, |arrivals| arrivals.second))
}

/// Where in a second its claims come: anywhere, and the same in each replay, so that rows can be compared.
fn spread(arrivals: Arrivals, offsets: &mut Vec<u64>) {
    let mut random = Random::new(arrivals.second);
    offsets.clear();
    offsets.extend((0..arrivals.count).map(|_| (random.unit() * 1e6) as u64));
    offsets.sort_unstable();
}

impl Replay {
    pub(super) fn new(history: &History, options: &PlanOptions, size: u32) -> Self {
        Self {
            now: 0,
            ready: size,
            making: BinaryHeap::new(),
            made: Vec::new(),
            makers: options.spec.refill_concurrency.max(1) as usize,
            delay: u64::try_from(options.spec.refill_delay.as_micros()).unwrap_or(0),
            waits_until: None,
            target: size,
            times: Times::new(history.durations(), options.make_time),
            random: Random::new(u64::from(size)),
            tally: Tally { most_target: size, ..Tally::default() },
        }
    }

    pub(super) fn claims(&self) -> u64 {
        self.tally.claims()
    }

    /// How long those took that were made since the last time.
    pub(super) fn take_made(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.made)
    }

    /// Replays all of it. `target` says the size, and is asked after each claim and now and then.
    pub(super) fn run(
        mut self,
        history: &History,
        options: &PlanOptions,
        mut target: impl FnMut(Time, &mut Self) -> u32,
    ) -> Tally {
        let begin = begin(history, options);
        let first = begin.0.as_secs();
        let step = (STEP * 1e6) as u64;
        let mut offsets = Vec::new();
        for arrivals in history.arrivals().filter(|arrivals| arrivals.second >= first) {
            if options.stop.load(Ordering::Relaxed) {
                break;
            }
            let second = (arrivals.second - first).saturating_mul(1_000_000);
            spread(arrivals, &mut offsets);
            for offset in &offsets {
                // One second may be recorded in two parts: before a restart, and after it.
                let at = (second + offset).max(self.now);
                while at - self.now > step {
                    self.advance(self.now + step);
                    self.resize(begin, &mut target);
                }
                self.advance(at);
                self.claim();
                self.resize(begin, &mut target);
            }
        }
        self.tally
    }

    fn resize(&mut self, begin: Time, target: &mut impl FnMut(Time, &mut Self) -> u32) {
        let now = begin.after(Duration::from_micros(self.now));
        self.target = target(now, self);
        self.made.clear();
        self.tally.most_target = self.tally.most_target.max(self.target);
        self.ready = self.ready.min(self.target);
        self.refill();
    }

    fn refill(&mut self) {
        if self.waits_until.is_some_and(|until| until > self.now) {
            return;
        }
        self.waits_until = None;
        while self.making.len() < self.makers
            && self.ready as usize + self.making.len() < self.target as usize
        {
            let takes = self.times.draw(&mut self.random);
            self.making.push(Reverse((self.now.saturating_add(takes), takes)));
        }
    }

    fn advance(&mut self, to: u64) {
        // Where refills wait, none is in the making.
        if let Some(until) = self.waits_until.filter(|until| *until <= to) {
            self.pass(until);
            self.refill();
        }
        while let Some(Reverse((at, takes))) = self.making.peek().copied()
            && at <= to
        {
            self.making.pop();
            self.pass(at);
            self.made.push(Duration::from_micros(takes));
            self.ready = self.ready.saturating_add(1).min(self.target);
            self.refill();
        }
        self.pass(to);
    }

    fn pass(&mut self, to: u64) {
        let seconds = to.saturating_sub(self.now) as f64 / 1e6;
        self.tally.idle_seconds += seconds * f64::from(self.ready);
        self.tally.target_seconds += seconds * f64::from(self.target);
        self.tally.seconds += seconds;
        self.now = self.now.max(to);
    }

    fn claim(&mut self) {
        if self.ready > 0 {
            self.ready -= 1;
            self.tally.hits += 1;
            if self.delay > 0 && self.waits_until.is_none() && self.making.is_empty() {
                self.waits_until = Some(self.now.saturating_add(self.delay));
            }
        } else {
            self.waits_until = None;
            let wait = self.times.draw(&mut self.random) as f64 / 1e6;
            self.tally.wait_of(wait, &mut self.random);
        }
    }
}
