//! Limits of how often.

use std::collections::{HashMap, HashSet};
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

/// How many questions, and of how many names, were asked in the running minute. What tunnels data out through
/// questions needs many different names of one parent.
#[derive(Debug)]
pub(crate) struct Questions {
    began: Instant,
    count: u32,
    names: HashSet<String>,
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
        Self { began: Instant::now(), count: 0, names: HashSet::new(), parents: HashMap::new() }
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
        if self.names.contains(name) {
            return true;
        }
        let below = self.parents.get(parent(name)).copied().unwrap_or(0);
        if self.names.len() >= limits.names as usize || below >= limits.below_one {
            return false;
        }
        self.names.insert(name.to_owned());
        *self.parents.entry(parent(name).to_owned()).or_default() += 1;
        true
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
    fn many_names_of_one_parent_are_too_many() {
        let limits = QuestionLimits { all: 100, names: 20, below_one: 5 };
        let (mut questions, now) = (Questions::new(), Instant::now());
        let asked = (0..10).filter(|n| questions.take(&format!("{n}.example.com"), limits, now)).count();
        assert_eq!(asked, 5);
        assert!(questions.take("0.example.com", limits, now) && questions.take("example.org", limits, now));
        assert!(questions.take("9.example.com", limits, now + MINUTE));
        assert_eq!((parent("a.b.c.d"), parent("c.d"), parent("d")), ("c.d", "c.d", "d"));
    }
}
