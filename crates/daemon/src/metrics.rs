//! Numbers for Prometheus. What happens is counted where it happens; what is, is asked at each scrape.
//!
//! `docs/metrics.md` lists every name. Labels have few values: names of backends, pools, stages, never of sandboxes.

mod collect;
mod models;
mod serve;

pub(crate) use serve::serve;

use hostel_egress::{Decision, Kind};
use hostel_sandbox::{BackendName, Stage};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::time::Duration;

/// How a sandbox began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Claimed from a pool.
    Warm,
    /// Made on demand.
    Cold,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Created {
    backend: String,
    start: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStage {
    backend: String,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    action: &'static str,
    verdict: &'static str,
    reason: String,
}

/// What is counted while it happens. Clones share it.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Counted>);

struct Counted {
    create: Family<Created, Histogram, fn() -> Histogram>,
    stage: Family<OfStage, Histogram, fn() -> Histogram>,
    failures: Family<Failed, Counter>,
    claim: Family<OfPool, Histogram, fn() -> Histogram>,
    refill: Family<OfPool, Histogram, fn() -> Histogram>,
    wait: Histogram,
    decisions: Family<Decided, Counter>,
}

/// 100 µs to 105 s, doubling.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 21))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Counted {
            create: Family::new_with_constructor(times),
            stage: Family::new_with_constructor(times),
            failures: Family::default(),
            claim: Family::new_with_constructor(times),
            refill: Family::new_with_constructor(times),
            wait: times(),
            decisions: Family::default(),
        }))
    }

    /// A sandbox became ready.
    pub(crate) fn created(&self, backend: &BackendName, start: Start, took: Duration, stages: &[Stage]) {
        let start = match start {
            Start::Warm => "warm",
            Start::Cold => "cold",
        };
        let created = Created { backend: backend.to_string(), start };
        self.0.create.get_or_create(&created).observe(took.as_secs_f64());
        for stage in stages {
            let of = OfStage { backend: backend.to_string(), stage: stage.name };
            self.0.stage.get_or_create(&of).observe(stage.duration.as_secs_f64());
        }
    }

    /// A sandbox could not be made. `reason` is the error's, as clients see it.
    pub(crate) fn not_created(&self, reason: &'static str) {
        self.0.failures.get_or_create(&Failed { reason }).inc();
    }

    /// A claim got a warm sandbox.
    pub(crate) fn claimed(&self, pool: &str, took: Duration) {
        self.0.claim.get_or_create(&OfPool { pool: pool.to_owned() }).observe(took.as_secs_f64());
    }

    /// A pool made a warm sandbox.
    pub(crate) fn refilled(&self, pool: &str, took: Duration) {
        self.0.refill.get_or_create(&OfPool { pool: pool.to_owned() }).observe(took.as_secs_f64());
    }

    /// A pool is gone, and its numbers with it.
    pub(crate) fn forget_pool(&self, pool: &str) {
        let of = OfPool { pool: pool.to_owned() };
        self.0.claim.remove(&of);
        self.0.refill.remove(&of);
    }

    /// A creation waited for room.
    pub(crate) fn waited(&self, took: Duration) {
        self.0.wait.observe(took.as_secs_f64());
    }

    /// Something was decided about a sandbox's network.
    pub(crate) fn decided(&self, decision: &Decision) {
        let action = match decision.kind {
            Kind::Lookup => "lookup",
            Kind::Connect => "connect",
            Kind::Request => "request",
            Kind::Secret => "secret",
        };
        let verdict = if decision.allowed { "allowed" } else { "denied" };
        let decided = Decided { action, verdict, reason: decision.reason.to_string() };
        self.0.decisions.get_or_create(&decided).inc();
    }

    fn register(&self, registry: &mut Registry) {
        let counted = &self.0;
        let seconds = || Unit::Seconds;
        let help = "From the request until the sandbox was ready";
        registry.register_with_unit("sandbox_create", help, seconds(), counted.create.clone());
        let help = "Steps of making or claiming a sandbox";
        registry.register_with_unit("sandbox_stage", help, seconds(), counted.stage.clone());
        let help = "How long claims took that got a warm sandbox";
        registry.register_with_unit("pool_claim", help, seconds(), counted.claim.clone());
        let help = "How long making a warm sandbox took";
        registry.register_with_unit("pool_refill", help, seconds(), counted.refill.clone());
        let help = "How long creations waited for room on the node";
        registry.register_with_unit("admission_wait", help, seconds(), counted.wait.clone());
        let help = "Creations that failed, by the reason of the error";
        registry.register("sandbox_create_failures", help, counted.failures.clone());
        let help = "Decisions about what sandboxes tried to reach";
        registry.register("network_decisions", help, counted.decisions.clone());
    }
}
