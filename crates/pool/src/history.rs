//! The demand that a pool recorded: how many claims in which second, and how long making took.
//!
//! A record of a second is one byte where it is near the one before and small, else an escape and two varints. It
//! keeps [`MAX_SPAN`] or [`MAX_BYTES`], whichever is less: three days of claims in every second, or seven days of
//! sparser ones. Bytes to decode may come from anywhere.

mod codec;
mod durations;

pub use codec::HistoryError;
pub use durations::Durations;

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Most bytes of records that are kept.
pub const MAX_BYTES: usize = 256 * 1024;
/// How far back records are kept.
pub const MAX_SPAN: Duration = Duration::from_secs(7 * 86_400);
/// Seconds after which nothing is recorded: 34,000 years.
const LAST_SECOND: u64 = 1 << 40;

/// Claims of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrivals {
    /// The second since the epoch.
    pub second: u64,
    /// How many claims, at least 1.
    pub count: u32,
}

/// Recorded demand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Records, oldest first, each with the gap in seconds to the one before.
    records: VecDeque<u8>,
    /// The second that the gap of the first record counts from.
    start: u64,
    /// The second of the last record in `records`.
    last: u64,
    /// The second that is being counted.
    open: Option<Arrivals>,
    durations: Durations,
}

impl History {
    /// No demand.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a claim. Time that goes back counts for the latest second.
    pub fn arrived(&mut self, now: Time) {
        let second = now.0.as_secs().min(LAST_SECOND);
        match &mut self.open {
            Some(open) if second <= open.second => open.count = open.count.saturating_add(1),
            Some(_) => {
                self.close();
                self.open = Some(Arrivals { second, count: 1 });
            }
            None => self.open = Some(Arrivals { second: second.max(self.last), count: 1 }),
        }
    }

    /// Records how long making a sandbox took.
    pub fn made(&mut self, took: Duration) {
        self.durations.record(took);
    }

    /// How long making took.
    #[must_use]
    pub fn durations(&self) -> &Durations {
        &self.durations
    }

    /// Seconds with claims, oldest first.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrivals> + '_ {
        let mut bytes = self.records.iter().copied();
        let mut second = self.start;
        let closed = std::iter::from_fn(move || {
            let (gap, count) = codec::read_record(&mut bytes)?;
            second = second.saturating_add(gap);
            Some(Arrivals { second, count })
        });
        closed.chain(self.open)
    }

    /// How many bytes the records take.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.records.len()
    }

    /// Whether no claim is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.open.is_none()
    }

    /// Puts the second that is being counted to the records, and drops what is too old or too much.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if self.records.is_empty() {
            self.start = open.second;
            self.last = open.second;
        }
        codec::write_record(open.second.saturating_sub(self.last), open.count, |byte| {
            self.records.push_back(byte);
        });
        self.last = open.second;
        let oldest = self.last.saturating_sub(MAX_SPAN.as_secs());
        loop {
            // The gap of the first record leads to it, the next gap leads on from there.
            let mut bytes = self.records.iter().copied();
            let before = bytes.len();
            let Some((gap, _)) = codec::read_record(&mut bytes) else { break };
            let (used, first) = (before - bytes.len(), self.start.saturating_add(gap));
            if first >= oldest && self.records.len() <= MAX_BYTES {
                break;
            }
            self.records.drain(..used);
            self.start = first;
        }
    }

    /// The history as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut closed = self.clone();
        closed.close();
        codec::encode(&closed)
    }

    /// Reads what [`History::encode`] wrote.
    ///
    /// # Errors
    /// [`HistoryError`] where the bytes are not that; nothing is taken from them then.
    pub fn decode(bytes: &[u8]) -> Result<Self, HistoryError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(seconds: &[(u64, u32)]) -> History {
        let mut history = History::new();
        for (second, count) in seconds {
            for _ in 0..*count {
                history.arrived(Time::from_secs(*second));
            }
        }
        history
    }

    fn list(history: &History) -> Vec<(u64, u32)> {
        history.arrivals().map(|arrivals| (arrivals.second, arrivals.count)).collect()
    }

    #[test]
    fn seconds_are_counted_and_come_back() {
        let seconds = [(1_795_000_000, 3), (1_795_000_001, 1), (1_795_000_100, 40), (1_795_400_000, 2)];
        let mut history = of(&seconds);
        history.made(Duration::from_millis(200));
        assert_eq!(list(&history), seconds);
        let decoded = History::decode(&history.encode()).unwrap();
        assert_eq!(list(&decoded), seconds);
        assert_eq!(decoded.durations(), history.durations());
        // It can be continued, also by a clock that was set back.
        let mut continued = decoded;
        continued.arrived(Time::from_secs(5));
        assert_eq!(list(&continued).last(), Some(&(1_795_400_000, 1)));
    }

    #[test]
    fn a_span_that_nothing_recorded_is_refused() {
        let mut bytes = of(&[(5, 1)]).encode();
        codec::write_record(MAX_SPAN.as_secs(), 1, |byte| bytes.push(byte));
        assert!(History::decode(&bytes).is_ok());
        codec::write_record(1, 1, |byte| bytes.push(byte));
        assert_eq!(History::decode(&bytes), Err(HistoryError::Damaged));
        assert_eq!(History::decode(b"HPH2"), Err(HistoryError::Unknown));
    }

    #[test]
    fn what_is_old_or_too_much_goes() {
        let mut history = History::new();
        for second in 0..700_000u64 {
            history.arrived(Time::from_secs(second));
        }
        assert!(history.len_bytes() <= MAX_BYTES);
        assert_eq!(list(&history).len(), MAX_BYTES + 1, "and the second that is being counted");
        history.arrived(Time::from_secs(700_000 + 6 * 86_400));
        history.arrived(Time::from_secs(700_000 + 8 * 86_400));
        history.arrived(Time::from_secs(700_001 + 8 * 86_400));
        assert_eq!(history.arrivals().count(), 3);
    }

    proptest! {
        #[test]
        fn any_demand_survives_the_way_through_bytes(
            gaps in prop::collection::vec((0u64..12_000, 1u32..300), 0..50)
        ) {
            let mut second = 1_700_000_000;
            let mut history = History::new();
            for (gap, count) in gaps {
                second += gap;
                (0..count).for_each(|_| history.arrived(Time::from_secs(second)));
                history.made(Duration::from_millis(u64::from(count)));
            }
            let decoded = History::decode(&history.encode()).unwrap();
            prop_assert_eq!(list(&decoded), list(&history));
            prop_assert_eq!(decoded.encode(), history.encode());
        }

        #[test]
        fn hostile_bytes_are_refused_or_harmless(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            mark in any::<bool>(),
        ) {
            if mark && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(b"HPH1");
            }
            if let Ok(mut history) = History::decode(&bytes) {
                let before = history.arrivals().count();
                history.arrived(Time::from_secs(2_000_000_000));
                prop_assert!(history.arrivals().count() <= before + 1);
                prop_assert_eq!(History::decode(&history.encode()).is_ok(), true);
            }
        }
    }
}
