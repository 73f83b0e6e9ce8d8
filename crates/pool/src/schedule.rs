//! Hours of the week at which a pool keeps more.

use crate::time::Time;
use hostel_sandbox::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const MINUTES_OF_DAY: u16 = 24 * 60;
const SECONDS_OF_DAY: u64 = 86_400;

/// A day of the week, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Weekday {
    /// All, Monday first.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// The day of the week of a day counted from the UNIX epoch, which was a Thursday.
    fn of_day(day: u64) -> Self {
        let index = usize::try_from((day + 3) % 7).unwrap_or_default();
        Self::ALL[index]
    }
}

/// Hours of the week at which the least size of a pool is higher. Of several that hold, the greatest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The days it begins on, UTC. Empty: every day.
    #[serde(default)]
    pub days: Vec<Weekday>,
    /// When it begins, in minutes after midnight UTC, 0 to 1439.
    pub from_minute: u16,
    /// When it ends, in minutes after midnight UTC, 0 to 1440, and not `from_minute`. Before `from_minute`: on the
    /// next day.
    pub to_minute: u16,
    /// The fewest to keep warm then, up to `max_size`.
    pub min_size: u32,
}

impl Schedule {
    /// Checks the values; `field` is its place in the specification, as `spec.schedules[0]`.
    pub(crate) fn validate(&self, field: &str, max_size: u32) -> Result<()> {
        if self.from_minute >= MINUTES_OF_DAY {
            return Err(Error::invalid(format!("{field}.from_minute"), "minutes of a day are 0 to 1439"));
        }
        if self.to_minute > MINUTES_OF_DAY {
            return Err(Error::invalid(format!("{field}.to_minute"), "the end of a day is 0 to 1440"));
        }
        if self.to_minute == self.from_minute {
            return Err(Error::invalid(
                format!("{field}.to_minute"),
                "is the same as from_minute; for the whole day write 0 to 1440",
            ));
        }
        if self.days.len() > Weekday::ALL.len() {
            return Err(Error::invalid(format!("{field}.days"), "a week has 7 days"));
        }
        if self.min_size > max_size {
            return Err(Error::invalid(
                format!("{field}.min_size"),
                format!("{} is above max_size, {max_size}", self.min_size),
            ));
        }
        Ok(())
    }

    fn length(&self) -> Duration {
        let (from, to) = (u64::from(self.from_minute), u64::from(self.to_minute));
        let minutes = if to > from { to - from } else { to + u64::from(MINUTES_OF_DAY) - from };
        Duration::from_secs(minutes * 60)
    }

    /// When it begins on a day counted from the epoch; nothing when it does not on that day of the week.
    fn begin(&self, day: u64) -> Option<Time> {
        let listed = self.days.is_empty() || self.days.contains(&Weekday::of_day(day));
        let midnight = day.saturating_mul(SECONDS_OF_DAY);
        listed.then(|| Time::from_secs(midnight.saturating_add(u64::from(self.from_minute) * 60)))
    }

    /// Whether it holds at `now`.
    #[must_use]
    pub fn holds(&self, now: Time) -> bool {
        let today = now.0.as_secs() / SECONDS_OF_DAY;
        // It may have begun yesterday and run over midnight.
        [today.checked_sub(1), Some(today)]
            .into_iter()
            .flatten()
            .filter_map(|day| self.begin(day))
            .any(|begin| begin <= now && now < begin.after(self.length()))
    }

    /// When it begins or ends next after `now`.
    #[must_use]
    pub fn next_change(&self, now: Time) -> Option<Time> {
        let today = now.0.as_secs() / SECONDS_OF_DAY;
        (today.saturating_sub(1)..=today + 7)
            .filter_map(|day| self.begin(day))
            .flat_map(|begin| [begin, begin.after(self.length())])
            .filter(|change| *change > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21, a Saturday.
    const SATURDAY: u64 = 20_778;

    fn at(day: u64, minute: u64) -> Time {
        Time::from_secs(day * SECONDS_OF_DAY + minute * 60)
    }

    #[test]
    fn it_holds_on_its_days_and_over_midnight() {
        assert_eq!(Weekday::of_day(0), Weekday::Thu);
        assert_eq!(Weekday::of_day(SATURDAY), Weekday::Sat);
        let night = Schedule { days: vec![Weekday::Sat], from_minute: 1380, to_minute: 60, min_size: 3 };
        assert!(!night.holds(at(SATURDAY, 1379)));
        assert!(night.holds(at(SATURDAY, 1380)) && night.holds(at(SATURDAY + 1, 59)));
        assert!(!night.holds(at(SATURDAY + 1, 60)) && !night.holds(at(SATURDAY + 1, 1380)));
        assert_eq!(night.next_change(at(SATURDAY + 1, 0)), Some(at(SATURDAY + 1, 60)));
        assert_eq!(night.next_change(at(SATURDAY + 1, 60)), Some(at(SATURDAY + 7, 1380)));
    }

    #[test]
    fn wrong_hours_are_named() {
        let good = Schedule { days: vec![], from_minute: 0, to_minute: 1440, min_size: 3 };
        assert!(good.validate("s", 3).is_ok() && good.holds(at(SATURDAY, 1439)));
        for (bad, field) in [
            (Schedule { from_minute: 1440, ..good.clone() }, "s.from_minute"),
            (Schedule { to_minute: 1441, ..good.clone() }, "s.to_minute"),
            (Schedule { to_minute: 0, ..good.clone() }, "s.to_minute"),
            (Schedule { min_size: 4, ..good.clone() }, "s.min_size"),
        ] {
            assert!(bad.validate("s", 3).unwrap_err().to_string().starts_with(field));
        }
    }
}
