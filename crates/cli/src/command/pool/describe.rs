//! What a pool shall be, is and did, for people.

use super::health;
use crate::args::schedule;
use crate::output::{human, table};
use hostel_client::domain::ResourceLimits;
use hostel_client::model::{Pool, PoolCounters, PoolSpec, PoolStatus};

/// Characters of a command.
const COMMAND_WIDTH: usize = 80;

/// All that there is to tell about a pool.
pub(super) fn describe(pool: &Pool) -> String {
    let Pool { spec, status, counters, .. } = pool;
    let ago = |time| human::age(Some(time)) + " ago";
    let spans = |span: Option<_>| span.map(human::duration).unwrap_or_default();
    let schedules: Vec<_> = spec.schedules.iter().map(schedule::text).collect();
    let process = spec.warm_process.as_ref();
    table::facts(&[
        ("name", pool.name.clone()),
        ("health", health(status.health).to_owned()),
        ("now", now(status)),
        (
            "last failure",
            status.last_failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
        ),
        (
            "saturated",
            if status.saturated { "yes: raise --refill-concurrency".to_owned() } else { String::new() },
        ),
        ("retry", status.retry_time.map(|time| human::until(Some(time))).unwrap_or_default()),
        ("template", spec.template.to_string()),
        ("backend", spec.backend.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("serves", if spec.named_only { "who names it".to_owned() } else { String::new() }),
        ("size", size(spec)),
        ("schedules", schedules.join("\n")),
        ("target hit rate", spec.target_hit_rate.map(human::percent).unwrap_or_default()),
        ("shrinks after", spans(spec.scale_down_delay)),
        ("refill", refill(spec)),
        ("replaced after", spans(spec.max_age)),
        ("checked every", spans(spec.health_check_interval)),
        ("idle memory", idle_memory(spec, status)),
        ("limits", limits(&spec.limits)),
        ("warm process", process.map(|one| human::command(&one.argv, COMMAND_WIDTH)).unwrap_or_default()),
        ("demand", demand(status)),
        ("oldest", status.oldest_age_seconds.map(human::brief).unwrap_or_default()),
        ("claims", claims(counters)),
        ("made", made(counters)),
        ("waited", format!("{} in all", human::brief(counters.idle_seconds))),
        ("created", pool.create_time.map(ago).unwrap_or_default()),
        ("changed", pool.update_time.map(ago).unwrap_or_default()),
    ])
}

fn now(status: &PoolStatus) -> String {
    let (making, removing) = (more(status.creating, "being made"), more(status.removing, "being removed"));
    format!("{} ready of {}{making}{removing}", status.ready, status.target_size)
}

fn size(spec: &PoolSpec) -> String {
    let bounds = format!("{} to {}", spec.min_size, spec.max_size);
    match (spec.pinned_size, spec.headroom) {
        (Some(pinned), _) => format!("pinned at {pinned} ({bounds})"),
        (None, Some(headroom)) => format!("{bounds}, by demand and {headroom} more"),
        (None, None) => format!("{bounds}, by demand"),
    }
}

fn refill(spec: &PoolSpec) -> String {
    let most = spec.refill_concurrency.map(|most| format!("{most} at a time"));
    let delay = spec.refill_delay.map(|delay| format!("{} after a claim", human::duration(delay)));
    most.into_iter().chain(delay).collect::<Vec<_>>().join(", ")
}

fn idle_memory(spec: &PoolSpec, status: &PoolStatus) -> String {
    let Some(most) = spec.max_idle_memory_bytes else { return String::new() };
    let used = status
        .idle_memory_bytes
        .map_or_else(|| "not measured yet".to_owned(), |used| human::size(Some(used)));
    format!("{used}, at most {}", human::size(Some(most)))
}

fn limits(limits: &ResourceLimits) -> String {
    let size =
        |name: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{name} {}", human::size(Some(bytes))));
    let number = |name: &str, number: Option<u64>| number.map(|number| format!("{name} {number}"));
    let cpus = limits.cpu_millis.map(|millis| format!("cpus {}", human::cores(millis.into())));
    let parts = [
        size("memory", limits.memory_bytes),
        cpus,
        number("pids", limits.pids.map(u64::from)),
        size("disk", limits.disk_bytes),
        number("inodes", limits.disk_inodes),
        number("open files", limits.open_files.map(u64::from)),
        size("output a second", limits.output_bytes_per_second),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn demand(status: &PoolStatus) -> String {
    let takes = status.create_seconds.map(|time| format!(", {} to make one", human::brief(time)));
    format!("{:.2} claims a second{}", status.arrivals_per_second, takes.unwrap_or_default())
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn claims(counters: &PoolCounters) -> String {
    let Some(rate) = counters.hit_rate() else { return "none yet".to_owned() };
    let each = human::brief(counters.claim_seconds / counters.hits.max(1) as f64);
    let mean = if counters.hits == 0 { String::new() } else { format!(", {each} each") };
    let unfit = more(counters.misses_unfit, "that did not fit");
    let failed = more(counters.claim_failures, "hits that could not be given");
    let (hits, misses) = (counters.hits, counters.misses);
    format!("hits {hits}{mean}; misses {misses}{unfit}; {} hit{failed}", human::percent(rate))
}

fn made(counters: &PoolCounters) -> String {
    let parts = [
        (counters.refill_failures, "attempts failed"),
        (counters.recycled, "replaced for age or template"),
        (counters.unhealthy, "removed unwell"),
        (counters.surplus, "removed as too many"),
    ];
    let told = parts.into_iter().map(|(number, what)| more(number, what));
    counters.created.to_string() + &told.collect::<String>()
}

fn more(number: impl Into<u64>, what: &str) -> String {
    let number = number.into();
    if number == 0 { String::new() } else { format!(", {number} {what}") }
}
