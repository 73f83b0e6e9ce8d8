//! What a pool did.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a pool did since it was made. Numbers only grow; the owner stores them and gives them back at
/// [`Pool::restore`](crate::Pool::restore).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Claims that got a warm sandbox. Each claim is one hit or one miss.
    pub hits: u64,
    /// Claims that got none, and as a rule became cold starts: those that found none, those that did not fit, and those
    /// that could not be served as they asked.
    pub misses: u64,
    /// Those of `misses` that did not fit, for example because of their limits.
    pub misses_unfit: u64,
    /// Warm sandboxes that were taken for a claim and not given, for whatever reason.
    pub claim_failures: u64,
    /// Sandboxes made.
    pub created: u64,
    /// Attempts to make one that failed.
    pub refill_failures: u64,
    /// Warm sandboxes replaced because of their age or a changed template.
    pub recycled: u64,
    /// Warm sandboxes that failed a check, died, or failed at the claim.
    pub unhealthy: u64,
    /// Warm sandboxes removed because fewer were wanted: less demand, pressure, draining.
    pub surplus: u64,
    /// How long claims took in all.
    pub claim_time: Duration,
    /// How long sandboxes waited in all, claimed or not. A wait is added when it ends.
    pub idle_time: Duration,
}

impl Counters {
    /// What came since `earlier`, an older value of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
            misses_unfit: self.misses_unfit.saturating_sub(earlier.misses_unfit),
            claim_failures: self.claim_failures.saturating_sub(earlier.claim_failures),
            created: self.created.saturating_sub(earlier.created),
            refill_failures: self.refill_failures.saturating_sub(earlier.refill_failures),
            recycled: self.recycled.saturating_sub(earlier.recycled),
            unhealthy: self.unhealthy.saturating_sub(earlier.unhealthy),
            surplus: self.surplus.saturating_sub(earlier.surplus),
            claim_time: self.claim_time.saturating_sub(earlier.claim_time),
            idle_time: self.idle_time.saturating_sub(earlier.idle_time),
        }
    }
}
