//! Pools of warm sandboxes, and what other sizes would have done.

use hostel_sandbox::process::{ProcessSpec, TerminalSize};
use hostel_sandbox::{BackendName, ResourceLimits, TemplateId};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// Warm sandboxes of one template on one backend, as they were when the daemon told about them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What it shall be.
    pub spec: PoolSpec,
    /// What it is.
    pub status: PoolStatus,
    /// What it did.
    pub counters: PoolCounters,
    /// When it was made.
    pub create_time: Option<Timestamp>,
    /// When `spec` last changed.
    pub update_time: Option<Timestamp>,
}

/// What a pool shall be. What is `None` is the daemon's default in a request; the daemon's answers say it, except
/// for `pinned_size` and `warm_process`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolSpec {
    /// The backend; the node's default where absent. Cannot be changed later.
    pub backend: Option<BackendName>,
    /// The template.
    pub template: TemplateId,
    /// The limits that warm sandboxes are made with.
    pub limits: ResourceLimits,
    /// The fewest to keep warm, 0 to `max_size`.
    pub min_size: u32,
    /// The most to keep warm, 1 to 10000.
    pub max_size: u32,
    /// How many to keep warm whatever the demand, `min_size` to `max_size`. `None`: demand decides.
    pub pinned_size: Option<u32>,
    /// How many to keep beyond what the demand asks for. Default 2.
    pub headroom: Option<u32>,
    /// How many are made at the same time, 1 to 64. Default 2.
    pub refill_concurrency: Option<u32>,
    /// How long refills wait after a claim, at most 60 seconds. Default 50 milliseconds.
    #[serde(rename = "refill_delay_seconds", serialize_with = "seconds")]
    pub refill_delay: Option<Duration>,
    /// The age at which a warm sandbox is replaced, 10 seconds or more. Default 1 hour.
    #[serde(rename = "max_age_seconds", serialize_with = "seconds")]
    pub max_age: Option<Duration>,
    /// How often a warm sandbox is checked, 1 second or more. Default 30 seconds.
    #[serde(rename = "health_check_interval_seconds", serialize_with = "seconds")]
    pub health_check_interval: Option<Duration>,
    /// The most memory that the warm ones may use together, in bytes, 8 MiB or more. `None`: no bound.
    pub max_idle_memory_bytes: Option<u64>,
    /// The share of claims that shall find a warm sandbox, 0.5 to 0.9999. Default 0.99.
    pub target_hit_rate: Option<f64>,
    /// How long the demand must ask for less before the pool shrinks. Default 5 minutes.
    #[serde(rename = "scale_down_delay_seconds", serialize_with = "seconds")]
    pub scale_down_delay: Option<Duration>,
    /// Hours of the week at which it keeps more, at most 64.
    pub schedules: Vec<PoolSchedule>,
    /// A process that waits in each warm sandbox, under the id `warm`.
    #[serde(serialize_with = "process")]
    pub warm_process: Option<ProcessSpec>,
    /// Whether it serves only creations that name it.
    pub named_only: bool,
    /// Whether to stop refilling and remove what is warm.
    pub draining: bool,
}

impl PoolSpec {
    /// A pool of one template and these sizes, with everything else as it is by default.
    #[must_use]
    pub fn new(template: TemplateId, min_size: u32, max_size: u32) -> Self {
        Self {
            backend: None,
            template,
            limits: ResourceLimits::default(),
            min_size,
            max_size,
            pinned_size: None,
            headroom: None,
            refill_concurrency: None,
            refill_delay: None,
            max_age: None,
            health_check_interval: None,
            max_idle_memory_bytes: None,
            target_hit_rate: None,
            scale_down_delay: None,
            schedules: Vec::new(),
            warm_process: None,
            named_only: false,
            draining: false,
        }
    }
}

/// Spans are numbers of seconds, as everywhere.
fn seconds<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(to)
}

/// A process in the spelling of the API.
fn process<S: Serializer>(spec: &Option<ProcessSpec>, to: S) -> Result<S::Ok, S::Error> {
    let spelled = spec.as_ref().map(|spec| Spelled {
        command: &spec.argv,
        env: &spec.env,
        working_directory: spec.cwd.as_deref(),
        user: spec.user.as_deref(),
        terminal: spec.terminal,
        stdin: spec.stdin,
        timeout_seconds: spec.timeout.map(|timeout| timeout.as_secs_f64()),
    });
    spelled.serialize(to)
}

#[derive(Serialize)]
struct Spelled<'a> {
    command: &'a [String],
    env: &'a BTreeMap<String, String>,
    working_directory: Option<&'a str>,
    user: Option<&'a str>,
    terminal: Option<TerminalSize>,
    stdin: bool,
    timeout_seconds: Option<f64>,
}

/// A day of the week, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
}

/// Hours of the week at which a pool keeps more. Of several that hold, the greatest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolSchedule {
    /// The days it begins on. Empty: every day.
    pub days: Vec<Weekday>,
    /// When it begins, in minutes after midnight UTC, 0 to 1439.
    pub from_minute: u32,
    /// When it ends, in minutes after midnight UTC, 0 to 1440. Before `from_minute`: on the next day.
    pub to_minute: u32,
    /// The fewest to keep warm then, at most `max_size`.
    pub min_size: u32,
}

/// How a pool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolHealth {
    /// The daemon did not say, or with a word that this version does not know.
    Unknown,
    /// It has its target size.
    Healthy,
    /// It has less and is refilling.
    Refilling,
    /// Refills fail. Claims work, as cold starts.
    Failing,
    /// It removes what is warm and does not refill.
    Draining,
    /// It is drained and empty.
    Drained,
}

/// What a pool is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolStatus {
    /// How it does.
    pub health: PoolHealth,
    /// How many it tries to keep warm.
    pub target_size: u32,
    /// How many are warm and can be claimed.
    pub ready: u32,
    /// How many are being made.
    pub creating: u32,
    /// How many are being removed.
    pub removing: u32,
    /// Claims per second, as the sizing sees it.
    pub arrivals_per_second: f64,
    /// The time to make one, as the sizing sees it, in seconds.
    pub create_seconds: Option<f64>,
    /// The age of the oldest warm one, in seconds. `None` when there is none.
    pub oldest_age_seconds: Option<f64>,
    /// Why the last refill failed. `None` when it did not.
    pub last_failure: Option<Failure>,
    /// When refilling is tried again after failures. `None` when it is not held back.
    pub retry_time: Option<Timestamp>,
    /// Whether claims come faster than sandboxes can be made: no size gives the hit rate then.
    pub saturated: bool,
    /// What the warm ones use of memory, in bytes. Absent where the pool has no bound of it.
    pub idle_memory_bytes: Option<u64>,
}

/// Why something failed that nobody asked for directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The reason for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
}

/// What a pool did since it was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PoolCounters {
    /// Claims that got a warm sandbox.
    pub hits: u64,
    /// Claims that became cold starts, or failed because of what they asked for.
    pub misses: u64,
    /// Those of `misses` that did not fit, for example because of their limits.
    pub misses_unfit: u64,
    /// Warm sandboxes that a claim took and nobody got.
    pub claim_failures: u64,
    /// Sandboxes made.
    pub created: u64,
    /// Attempts to make one that failed.
    pub refill_failures: u64,
    /// Replaced for their age or a changed template.
    pub recycled: u64,
    /// Removed because a check failed.
    pub unhealthy: u64,
    /// Removed because fewer were wanted.
    pub surplus: u64,
    /// How long claims took in all, in seconds.
    pub claim_seconds: f64,
    /// How long sandboxes waited in all, in seconds.
    pub idle_seconds: f64,
}

impl PoolCounters {
    /// The share of claims that got a warm sandbox, 0 to 1. `None` before the first claim.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn hit_rate(&self) -> Option<f64> {
        let claims = self.hits.saturating_add(self.misses);
        (claims > 0).then(|| self.hits as f64 / claims as f64)
    }
}

/// A pool that changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolEvent {
    /// It as it is; when it was deleted, as it was last.
    pub pool: Pool,
    /// Whether it was deleted.
    pub deleted: bool,
    /// When this was so.
    pub time: Option<Timestamp>,
}

/// What other sizes would have done with the demand that a pool met.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolPlan {
    /// Fixed sizes in ascending order, the pool's own controller last.
    pub rows: Vec<PlanRow>,
    /// When the replayed demand begins.
    pub start_time: Option<Timestamp>,
    /// When it ends.
    pub end_time: Option<Timestamp>,
    /// Claims in it.
    pub claims: u64,
    /// The time to make one that was assumed, in seconds. `None`: the daemon had measured none.
    pub create_seconds: Option<f64>,
}

impl PoolPlan {
    /// The smallest of the fixed sizes that reaches this hit rate.
    #[must_use]
    pub fn smallest_size(&self, hit_rate: f64) -> Option<u32> {
        self.rows.iter().filter(|row| row.hit_rate >= hit_rate).filter_map(|row| row.size).min()
    }
}

/// One size, replayed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanRow {
    /// The fixed size. `None`: the pool's own controller.
    pub size: Option<u32>,
    /// The share of claims that would have found a warm sandbox, 0 to 1.
    pub hit_rate: f64,
    /// The median of how long a claim would have waited, in seconds.
    pub wait_p50_seconds: f64,
    /// The 99th percentile of it, in seconds.
    pub wait_p99_seconds: f64,
    /// Memory of sandboxes that waited, on average over the time, in bytes.
    pub idle_memory_bytes: u64,
    /// How long sandboxes would have waited in all, in seconds.
    pub idle_seconds: f64,
    /// The mean size.
    pub mean_size: f64,
    /// The greatest size.
    pub largest_size: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_spans_in_seconds_and_processes_as_the_api_spells_them() {
        let spec = PoolSpec {
            max_age: Some(Duration::from_millis(90_500)),
            warm_process: Some(ProcessSpec { argv: vec!["cat".to_owned()], ..ProcessSpec::default() }),
            schedules: vec![PoolSchedule {
                days: vec![Weekday::Mon],
                from_minute: 1,
                to_minute: 2,
                min_size: 3,
            }],
            ..PoolSpec::new(TemplateId::parse("host").unwrap(), 1, 2)
        };
        let json = serde_json::to_value(&spec).unwrap();
        assert_eq!(json["max_age_seconds"], 90.5);
        assert_eq!(json["scale_down_delay_seconds"], serde_json::Value::Null);
        assert_eq!(json["warm_process"]["command"][0], "cat");
        assert_eq!(json["schedules"][0]["days"][0], "mon");
    }

    #[test]
    fn the_smallest_size_that_is_enough_is_found() {
        let row = |size, hit_rate| PlanRow {
            size,
            hit_rate,
            wait_p50_seconds: 0.0,
            wait_p99_seconds: 0.0,
            idle_memory_bytes: 0,
            idle_seconds: 0.0,
            mean_size: 0.0,
            largest_size: 0,
        };
        let rows = vec![row(Some(0), 0.0), row(Some(2), 0.99), row(Some(4), 1.0), row(None, 1.0)];
        let plan = PoolPlan { rows, start_time: None, end_time: None, claims: 1, create_seconds: None };
        assert_eq!((plan.smallest_size(0.99), plan.smallest_size(0.995)), (Some(2), Some(4)));
        assert_eq!(plan.smallest_size(1.1), None);
        assert_eq!(PoolCounters::default().hit_rate(), None);
        assert_eq!(PoolCounters { hits: 3, misses: 1, ..PoolCounters::default() }.hit_rate(), Some(0.75));
    }
}
