//! What happened, counted for metrics.

use crate::store::End;
use crate::usage::Tokens;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Models that are counted apart; further ones are `other`. Their names come from outside.
const MAX_MODELS: usize = 100;
/// Upper bounds of the buckets of a [`Histogram`], in microseconds; what is above is in none.
pub const BUCKETS_MICROS: [u64; 16] = [
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    60_000_000,
    600_000_000,
];

/// How long something took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many took at most as long as the bound of the same index in [`BUCKETS_MICROS`], and longer than the one
    /// before it.
    pub buckets: [u64; BUCKETS_MICROS.len()],
    /// How many there were.
    pub count: u64,
    /// Their sum, in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(index) = BUCKETS_MICROS.iter().position(|bound| micros <= *bound) {
            self.buckets[index] += 1;
        }
        self.count += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }
}

/// Requests of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKind {
    /// `done`, `client_gone`, `upstream_cut` or `unanswered`.
    pub outcome: &'static str,
    /// The status that was passed on; 0 where there was none.
    pub status: u16,
    /// The model that answered; empty where none said so.
    pub model: String,
    /// The upstream that answered; empty where none did.
    pub upstream: String,
}

/// Everything that was counted since the gateway was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests to models that are over.
    pub requests: BTreeMap<RequestKind, u64>,
    /// Tokens by model.
    pub tokens: BTreeMap<String, Tokens>,
    /// Money by model, in micro-USD.
    pub cost_micros: BTreeMap<String, u64>,
    /// Requests that were not forwarded, by reason: `budget_cost`, `rate_requests`, `token`, `path`, ….
    pub refusals: BTreeMap<&'static str, u64>,
    /// Attempts beyond the first at the same upstream, by upstream.
    pub retries: BTreeMap<String, u64>,
    /// Times that the next upstream was tried, by the upstream that failed.
    pub failovers: BTreeMap<String, u64>,
    /// From a request's arrival, with its body, to the head of the response.
    pub first_byte: Histogram,
    /// From a request's arrival to its admission: waiting for a place and for a commit.
    pub admission: Histogram,
    /// From a request's arrival to the end of its response.
    pub duration: Histogram,
    /// Requests that are admitted and not over.
    pub in_flight: u64,
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counters>);

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self, in_flight: usize) -> Counters {
        let mut counters = self.lock().clone();
        counters.in_flight = u64::try_from(in_flight).unwrap_or(u64::MAX);
        counters
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        *self.lock().refusals.entry(reason).or_default() += 1;
    }

    pub(crate) fn retried(&self, upstream: &str) {
        *self.lock().retries.entry(upstream.to_owned()).or_default() += 1;
    }

    pub(crate) fn failed_over(&self, upstream: &str) {
        *self.lock().failovers.entry(upstream.to_owned()).or_default() += 1;
    }

    pub(crate) fn admitted(&self, after: Duration) {
        self.lock().admission.add(after);
    }

    pub(crate) fn answered(&self, after: Duration) {
        self.lock().first_byte.add(after);
    }

    pub(crate) fn ended(&self, end: End, status: Option<u16>, upstream: &str, model: &str, took: Duration) {
        let mut counters = self.lock();
        let model = counters.model(model);
        let kind = RequestKind {
            outcome: end.as_str(),
            status: status.unwrap_or(0),
            model,
            upstream: upstream.to_owned(),
        };
        *counters.requests.entry(kind).or_default() += 1;
        counters.duration.add(took);
    }

    pub(crate) fn used(&self, model: &str, tokens: &Tokens, cost_micros: u64) {
        let mut counters = self.lock();
        let model = counters.model(model);
        *counters.cost_micros.entry(model.clone()).or_default() += cost_micros;
        let sum = counters.tokens.entry(model).or_default();
        sum.input += tokens.input;
        sum.output += tokens.output;
        sum.cache_write_5m += tokens.cache_write_5m;
        sum.cache_write_1h += tokens.cache_write_1h;
        sum.cache_read += tokens.cache_read;
    }
}

impl Counters {
    fn model(&self, model: &str) -> String {
        if self.tokens.len() < MAX_MODELS || self.tokens.contains_key(model) { model } else { "other" }
            .to_owned()
    }
}
