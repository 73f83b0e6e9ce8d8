//! Samples, and taking them in turns.

use crate::report::{Summary, Unit};
use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Values of one kind, to three digits.
pub(crate) struct Samples(Histogram<u64>);

impl Samples {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Histogram::new(3).context("make a histogram")?))
    }

    pub(crate) fn add(&mut self, value: u64) -> Result<()> {
        self.0.record(value).context("record a sample")
    }

    pub(crate) fn add_duration(&mut self, duration: Duration) -> Result<()> {
        self.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn summary(&self, unit: Unit) -> Summary {
        Summary {
            unit,
            count: self.0.len(),
            min: self.0.min(),
            p50: self.0.value_at_quantile(0.50),
            p95: self.0.value_at_quantile(0.95),
            p99: self.0.value_at_quantile(0.99),
            max: self.0.max(),
        }
    }
}

/// Bytes per second.
pub(crate) fn throughput(bytes: u64, duration: Duration) -> u64 {
    let nanoseconds = duration.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

/// What one sample yields: nanoseconds, or bytes per second.
pub(crate) type Sample<'a> = Pin<Box<dyn Future<Output = Result<u64>> + 'a>>;

/// One of several things that are measured in turns.
pub(crate) struct Case<'a> {
    /// What it belongs to.
    pub(crate) section: &'static str,
    /// Its name for programs, such as `hostel` or `bwrap`.
    pub(crate) name: &'static str,
    /// Its name for people.
    pub(crate) label: String,
    /// What its samples are.
    pub(crate) unit: Unit,
    /// Takes one sample.
    pub(crate) take: Box<dyn FnMut() -> Sample<'a> + 'a>,
}

impl<'a> Case<'a> {
    /// Something of which each sample takes time. What it must do before the clock starts, it does itself.
    pub(crate) fn timed<F, R>(
        section: &'static str,
        name: &'static str,
        label: impl Into<String>,
        mut run: F,
    ) -> Self
    where
        F: FnMut() -> R + 'a,
        R: Future<Output = Result<Duration>> + 'a,
    {
        let take = move || -> Sample<'a> {
            let sample = run();
            Box::pin(async move { Ok(u64::try_from(sample.await?.as_nanos()).unwrap_or(u64::MAX)) })
        };
        Self { section, name, label: label.into(), unit: Unit::Nanoseconds, take: Box::new(take) }
    }

    /// Something that moves `bytes`.
    pub(crate) fn moving<F, R>(
        section: &'static str,
        name: &'static str,
        label: impl Into<String>,
        bytes: u64,
        mut run: F,
    ) -> Self
    where
        F: FnMut() -> R + 'a,
        R: Future<Output = Result<Duration>> + 'a,
    {
        let take = move || -> Sample<'a> {
            let sample = run();
            Box::pin(async move { Ok(throughput(bytes, sample.await?)) })
        };
        Self { section, name, label: label.into(), unit: Unit::BytesPerSecond, take: Box::new(take) }
    }
}

/// What came of a case.
pub(crate) struct Measured {
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    pub(crate) label: String,
    /// Of what succeeded, if anything did.
    pub(crate) summary: Option<Summary>,
    /// What failed, with how often and why at first.
    pub(crate) failure: Option<String>,
}

/// A case that failed so often is not tried again.
const ENOUGH_FAILURES: usize = 5;

/// Takes samples of all cases in turns: each round takes one of each, in an order drawn anew, so that what the
/// machine does besides meets all alike, and no case always comes after the same other. `pause` lets what one
/// leaves behind be cleared away before the next. A case that fails again and again is left out from then on.
pub(crate) async fn interleave(
    cases: Vec<Case<'_>>,
    warm_up: usize,
    rounds: usize,
    pause: Duration,
) -> Result<Vec<Measured>> {
    let mut turns = Vec::with_capacity(cases.len());
    for case in cases {
        turns.push(Turn { case, samples: Samples::new()?, taken: 0, failures: 0, first_failure: None });
    }
    let mut shuffle = Shuffle(0x9e37_79b9_7f4a_7c15);
    for round in 0..warm_up + rounds {
        for index in shuffle.order(turns.len()) {
            let turn = &mut turns[index];
            if turn.failures >= ENOUGH_FAILURES {
                continue;
            }
            tokio::time::sleep(pause).await;
            turn.taken += 1;
            match (turn.case.take)().await {
                Ok(value) if round >= warm_up => turn.samples.add(value)?,
                Ok(_) => {}
                Err(error) => {
                    turn.failures += 1;
                    turn.first_failure.get_or_insert(error);
                }
            }
        }
    }
    Ok(turns.into_iter().map(Turn::end).collect())
}

/// A case under way.
struct Turn<'a> {
    case: Case<'a>,
    samples: Samples,
    taken: usize,
    failures: usize,
    first_failure: Option<anyhow::Error>,
}

impl Turn<'_> {
    fn end(self) -> Measured {
        let (failures, taken) = (self.failures, self.taken);
        let summary = self.samples.summary(self.case.unit);
        Measured {
            section: self.case.section,
            name: self.case.name,
            summary: (summary.count > 0).then_some(summary),
            failure: self
                .first_failure
                .map(|error| format!("{}: {failures} of {taken} times: {error:#}", self.case.label)),
            label: self.case.label,
        }
    }
}

/// Draws orders, the same ones in each run.
struct Shuffle(u64);

impl Shuffle {
    fn order(&mut self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        for last in (1..length).rev() {
            let bound = u64::try_from(last + 1).unwrap_or(1);
            order.swap(last, usize::try_from(self.next() % bound).unwrap_or(0));
        }
        order
    }

    /// Marsaglia's xorshift (2003): plenty for this.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_each_case_once_and_orders_differ() {
        let mut shuffle = Shuffle(1);
        let orders: Vec<Vec<usize>> = (0..20).map(|_| shuffle.order(5)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert!(orders.iter().any(|order| order != &orders[0]));
    }

    #[test]
    fn throughput_is_per_second() {
        assert_eq!(throughput(1 << 30, Duration::from_millis(500)), 2 << 30);
        assert_eq!(throughput(0, Duration::ZERO), 0);
    }

    #[tokio::test]
    async fn warm_up_does_not_count_and_failures_are_kept() {
        let cases = vec![
            Case::timed("s", "fine", "fine", || async { Ok(Duration::from_micros(7)) }),
            Case::timed("s", "broken", "broken", || async { anyhow::bail!("no") }),
        ];
        let done = interleave(cases, 3, 5, Duration::ZERO).await.unwrap();
        let summary = done[0].summary.unwrap();
        assert_eq!((summary.count, summary.unit), (5, Unit::Nanoseconds));
        assert!((6_990..=7_010).contains(&summary.p50));
        assert!(done[1].summary.is_none());
        assert_eq!(done[1].failure.as_deref(), Some("broken: 5 of 5 times: no"));
    }
}
