//! What is, at the moment of a scrape: sandboxes, pools, room.

use crate::pools::PoolView;
use crate::sandboxes::Sandboxes;
use hostel_pool::admission::AdmissionStatus;
use hostel_pool::{Health, Resources};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::BTreeMap;
use std::fmt::{Debug, Error, Formatter};

pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

pub(super) struct Now(pub(super) Sandboxes);

impl Debug for Now {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result<(), Error> {
        f.write_str("Now")
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.sandboxes(&mut encoder)?;
        let pools: Vec<PoolView> = self.0.pools().all().iter().map(|pool| pool.view()).collect();
        sizes(&mut encoder, &pools)?;
        counters(&mut encoder, &pools)?;
        room(&mut encoder, &self.0.capacity().status())?;
        match self.0.reach().gateway() {
            Ok(gateway) => super::models::encode(&mut encoder, &gateway.snapshot()),
            Err(_) => Ok(()),
        }
    }
}

impl Now {
    fn sandboxes(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut counts: BTreeMap<(String, String), f64> = BTreeMap::new();
        for record in self.0.all().iter().map(|entry| entry.record()) {
            *counts.entry((record.backend.to_string(), record.state().to_string())).or_default() += 1.0;
        }
        let rows = counts.iter().map(|((backend, state), count)| {
            (vec![("backend", backend.as_str()), ("state", state.as_str())], *count)
        });
        gauge(encoder, "sandboxes", "Sandboxes with a record, by state", rows.collect())
    }
}

fn sizes(encoder: &mut DescriptorEncoder<'_>, pools: &[PoolView]) -> Result<(), Error> {
    let per_state = pools.iter().flat_map(|pool| {
        let status = &pool.status;
        let states = [
            ("ready", status.ready - status.old.min(status.ready)),
            ("old", status.old),
            ("creating", status.creating),
            ("removing", status.removing),
        ];
        states.map(|(state, count)| (vec![("pool", name(pool)), ("state", state)], f64::from(count)))
    });
    gauge(
        encoder,
        "pool_sandboxes",
        "Sandboxes of a pool: ready, old (ready, to be replaced), creating, removing",
        per_state.collect(),
    )?;
    let health = pools.iter().flat_map(|pool| {
        let is = pool.status.health;
        HEALTH.map(|(health, label)| {
            (vec![("pool", name(pool)), ("health", label)], f64::from(u8::from(health == is)))
        })
    });
    gauge(encoder, "pool_health", "1 for what the pool's health is, 0 for what it is not", health.collect())?;
    let mut of_each = |metric: &str, help: &str, value: &dyn Fn(&PoolView) -> f64| {
        gauge(
            encoder,
            metric,
            help,
            pools.iter().map(|pool| (vec![("pool", name(pool))], value(pool))).collect(),
        )
    };
    of_each("pool_target", "How many the pool tries to keep warm", &|pool| f64::from(pool.status.target))?;
    of_each("pool_arrivals_per_second", "Claims per second, as the sizing sees it", &|pool| {
        pool.status.arrivals_per_second
    })?;
    of_each("pool_oldest_age_seconds", "Age of the oldest warm sandbox", &|pool| {
        pool.status.oldest_age.unwrap_or_default().as_secs_f64()
    })?;
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    let idle_memory = |pool: &PoolView| pool.status.idle_memory_bytes.unwrap_or_default() as f64;
    of_each(
        "pool_idle_memory_bytes",
        "What warm sandboxes use, where the pool has a bound of it",
        &idle_memory,
    )?;
    of_each("pool_saturated", "1 while claims come faster than the pool can refill", &|pool| {
        f64::from(u8::from(pool.status.saturated))
    })
}

const HEALTH: [(Health, &str); 5] = [
    (Health::Healthy, "healthy"),
    (Health::Refilling, "refilling"),
    (Health::Failing, "failing"),
    (Health::Draining, "draining"),
    (Health::Drained, "drained"),
];

fn counters(encoder: &mut DescriptorEncoder<'_>, pools: &[PoolView]) -> Result<(), Error> {
    let claims = pools.iter().flat_map(|pool| {
        let counters = &pool.since_start;
        let outcomes = [
            ("hit", counters.hits),
            ("miss", counters.misses - counters.misses_unfit.min(counters.misses)),
            ("unfit", counters.misses_unfit),
        ];
        outcomes.map(|(outcome, count)| (vec![("pool", name(pool)), ("outcome", outcome)], count))
    });
    counter(
        encoder,
        "pool_claims",
        "Claims: hit, miss (none could be given), unfit (other limits)",
        claims.collect(),
    )?;
    let removed = pools.iter().flat_map(|pool| {
        let counters = &pool.since_start;
        let reasons = [
            ("recycled", counters.recycled),
            ("unhealthy", counters.unhealthy),
            ("surplus", counters.surplus),
        ];
        reasons.map(|(reason, count)| (vec![("pool", name(pool)), ("reason", reason)], count))
    });
    counter(encoder, "pool_removed", "Warm sandboxes removed unused", removed.collect())?;
    let mut of_each = |metric: &str, help: &str, value: &dyn Fn(&PoolView) -> u64| {
        counter(
            encoder,
            metric,
            help,
            pools.iter().map(|pool| (vec![("pool", name(pool))], value(pool))).collect(),
        )
    };
    of_each("pool_created", "Warm sandboxes made", &|pool| pool.since_start.created)?;
    of_each("pool_refill_failures", "Attempts to make one that failed", &|pool| {
        pool.since_start.refill_failures
    })?;
    of_each("pool_claim_failures", "Warm sandboxes that a claim took and nobody got", &|pool| {
        pool.since_start.claim_failures
    })?;
    of_each("pool_idle_milliseconds", "How long warm sandboxes waited in all", &|pool| {
        u64::try_from(pool.since_start.idle_time.as_millis()).unwrap_or(u64::MAX)
    })
}

fn room(encoder: &mut DescriptorEncoder<'_>, status: &AdmissionStatus) -> Result<(), Error> {
    let amounts = |of: &Resources| -> Vec<(Labels<'static>, f64)> {
        #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
        [
            ("memory_bytes", of.memory_bytes),
            ("cpu_millis", of.cpu_millis),
            ("pids", of.pids),
            ("disk_bytes", of.disk_bytes),
            ("sandboxes", of.sandboxes),
        ]
        .map(|(resource, amount)| (vec![("resource", resource)], amount as f64))
        .to_vec()
    };
    gauge(encoder, "node_budget", "What the node has for sandboxes", amounts(&status.budget))?;
    gauge(encoder, "node_ceiling", "What may be promised of it, with overcommit", amounts(&status.ceiling))?;
    gauge(encoder, "node_taken", "What is promised", amounts(&status.taken))?;
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    let waiting = [("cold", status.waiting_cold), ("refill", status.waiting_refill)]
        .map(|(kind, count)| (vec![("kind", kind)], count as f64));
    gauge(encoder, "admission_queue", "Requests that wait for room", waiting.to_vec())?;
    let longest = vec![(Vec::new(), status.longest_wait.as_secs_f64())];
    gauge(encoder, "admission_longest_wait_seconds", "How long the oldest of them waits", longest)
}

fn name(pool: &PoolView) -> &str {
    pool.record.name.as_str()
}

pub(super) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: Vec<(Labels<'_>, f64)>,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    rows.iter().try_for_each(|(labels, value)| ConstGauge::new(*value).encode(metric.encode_family(labels)?))
}

pub(super) fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: Vec<(Labels<'_>, u64)>,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    rows.iter()
        .try_for_each(|(labels, value)| ConstCounter::new(*value).encode(metric.encode_family(labels)?))
}
