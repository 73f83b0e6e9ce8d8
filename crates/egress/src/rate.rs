//! Limits of how often.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many a second, with a second's worth at once.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    left: f64,
    filled: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, left: per_second, filled: Instant::now() }
    }

    /// Takes one, or tells how long until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + since * self.per_second).min(self.per_second);
        self.filled = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64((1.0 - self.left) / self.per_second))
    }
}

/// Which refusals are recorded each, and how many were not: a program that is refused thousands of times a second must
/// not fill the disk with it.
#[derive(Debug)]
pub(crate) struct Refusals {
    rate: Rate,
    /// Since the last time that their number was recorded.
    passed_over: u64,
}

/// What becomes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    Each,
    /// With others; `first` where it is the first of them.
    AsNumber {
        first: bool,
    },
}

impl Refusals {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { rate: Rate::new(per_second), passed_over: 0 }
    }

    /// Counts one.
    pub(crate) fn add(&mut self, now: Instant) -> Recorded {
        if self.rate.take(now).is_none() {
            return Recorded::Each;
        }
        self.passed_over += 1;
        Recorded::AsNumber { first: self.passed_over == 1 }
    }

    /// How many were passed over since this was last asked.
    pub(crate) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.passed_over)
    }
}

/// How many questions, and of how many names, were asked in the running minute. What tunnels data out through
/// questions needs many different names of one parent.
#[derive(Debug)]
pub(crate) struct Questions {
    began: Instant,
    count: u32,
    /// Whether each was recorded.
    names: HashMap<String, bool>,
    parents: HashMap<String, u32>,
}

/// Limits of questions in a minute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuestionLimits {
    pub(crate) all: u32,
    pub(crate) names: u32,
    pub(crate) below_one: u32,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Questions {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), count: 0, names: HashMap::new(), parents: HashMap::new() }
    }

    /// Counts a question; false where it is one too many.
    pub(crate) fn take(&mut self, name: &str, limits: QuestionLimits, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= MINUTE {
            *self = Self { began: now, ..Self::new() };
        }
        self.count = self.count.saturating_add(1);
        if self.count > limits.all {
            return false;
        }
        if self.names.contains_key(name) {
            return true;
        }
        let below = self.parents.get(parent(name)).copied().unwrap_or(0);
        if self.names.len() >= limits.names as usize || below >= limits.below_one {
            return false;
        }
        self.names.insert(name.to_owned(), false);
        *self.parents.entry(parent(name).to_owned()).or_default() += 1;
        true
    }

    /// Notes that a question for a name that was counted is in the record.
    pub(crate) fn record(&mut self, name: &str) {
        if let Some(recorded) = self.names.get_mut(name) {
            *recorded = true;
        }
    }

    /// Whether a question for this name was counted and recorded in the running minute.
    pub(crate) fn is_recorded(&self, name: &str, now: Instant) -> bool {
        now.saturating_duration_since(self.began) < MINUTE && self.names.get(name) == Some(&true)
    }
}

/// The last two labels.
fn parent(name: &str) -> &str {
    name.rmatch_indices('.').nth(1).map_or(name, |(index, _)| &name[index + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fill_again() {
        let mut rate = Rate::new(2);
        let start = Instant::now();
        assert!(rate.take(start).is_none() && rate.take(start).is_none());
        assert_eq!(rate.take(start).map(|wait| wait.as_millis()), Some(500));
        assert!(rate.take(start + Duration::from_millis(600)).is_none());
    }

    #[test]
    fn refusals_beyond_the_rate_are_a_number() {
        let (mut refusals, now) = (Refusals::new(2), Instant::now());
        let all: Vec<_> = (0..4).map(|_| refusals.add(now)).collect();
        let number = |first| Recorded::AsNumber { first };
        assert_eq!(all, [Recorded::Each, Recorded::Each, number(true), number(false)]);
        assert_eq!((refusals.take(), refusals.take()), (2, 0));
        assert_eq!(refusals.add(now), number(true));
    }

    #[test]
    fn many_names_of_one_parent_are_too_many() {
        let limits = QuestionLimits { all: 100, names: 20, below_one: 5 };
        let (mut questions, now) = (Questions::new(), Instant::now());
        let asked = (0..10).filter(|n| questions.take(&format!("{n}.example.com"), limits, now)).count();
        assert_eq!(asked, 5);
        assert!(questions.take("0.example.com", limits, now) && questions.take("example.org", limits, now));
        assert!(!questions.is_recorded("0.example.com", now));
        questions.record("0.example.com");
        assert!(questions.is_recorded("0.example.com", now));
        assert!(!questions.is_recorded("0.example.com", now + MINUTE));
        assert!(questions.take("9.example.com", limits, now + MINUTE));
        assert!(!questions.is_recorded("0.example.com", now + MINUTE));
        assert_eq!((parent("a.b.c.d"), parent("c.d"), parent("d")), ("c.d", "c.d", "d"));
    }
}
