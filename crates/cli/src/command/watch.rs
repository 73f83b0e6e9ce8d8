//! `hostel sandbox watch` and `hostel sandbox stats`: what goes on until it is stopped.

use super::{Context, Outcome, SUCCESS};
use crate::args::{StatsArgs, WatchArgs};
use crate::failure::Failure;
use crate::output::{self, human, table};
use hostel_client::WatchSandboxes;
use hostel_client::domain::SandboxState;
use hostel_client::model::{SandboxChange, SandboxEvent, SandboxStats};

pub(crate) async fn sandboxes(context: &Context, args: WatchArgs) -> Outcome {
    let client = context.connect().await?;
    let watch = WatchSandboxes { cursor: args.from, sandbox_ids: args.ids, label_selector: args.label };
    let mut events = client.watch_sandboxes(&watch).await?;
    loop {
        match events.next().await {
            Ok(Some(event)) => {
                if context.json {
                    output::json(&event)?
                } else {
                    output::line(&told(&event))?
                }
            }
            Err(error) if !error.is_connection() => return Err(error.into()),
            Ok(None) | Err(_) => {
                let cursor = events.cursor();
                let again =
                    if cursor.is_empty() { String::new() } else { format!("; go on with --from {cursor}") };
                return Err(Failure::other("CONNECTION_LOST", format!("the daemon ended the watch{again}")));
            }
        }
    }
}

fn told(event: &SandboxEvent) -> String {
    let name = |state: Option<SandboxState>| state.map_or_else(|| "-".to_owned(), |state| state.to_string());
    let time = event.time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"));
    let kind = match event.kind {
        SandboxChange::Created => "created",
        SandboxChange::StateChanged => "changed",
        SandboxChange::Updated => "updated",
        SandboxChange::Deleted => "deleted",
    };
    let change = match (event.old_state, event.new_state) {
        (old, new) if old == new => name(new),
        (None, new) => name(new),
        (old, new) => format!("{} → {}", name(old), name(new)),
    };
    human::printable(&format!(
        "{time}  {}  {kind}  {change}  {} by {}",
        event.sandbox_id, event.reason, event.actor
    ))
}

pub(crate) async fn stats(context: &Context, args: StatsArgs) -> Outcome {
    let client = context.connect().await?;
    if !args.watch {
        let stats = client.sandbox_stats(&args.id).await?;
        if context.json {
            output::json(&stats)?
        } else {
            output::line(&described(&stats))?
        }
        return Ok(SUCCESS);
    }
    let mut watch = client.watch_stats(&args.id, args.interval).await?;
    let mut before: Option<SandboxStats> = None;
    if !context.json {
        output::line(&row(["CPU", "MEMORY", "PIDS", "DISK", "READ", "WRITTEN"].map(str::to_owned)))?;
    }
    while let Some(stats) = watch.next().await? {
        if context.json {
            output::json(&stats)?
        } else {
            output::line(&measured(&stats, before.as_ref()))?
        }
        before = Some(stats);
    }
    Ok(SUCCESS)
}

fn row(cells: [String; 6]) -> String {
    let [cpu, memory, pids, disk, read, written] = cells;
    format!("{cpu:>7}  {memory:>21}  {pids:>9}  {disk:>21}  {read:>9}  {written:>9}")
}

fn measured(stats: &SandboxStats, before: Option<&SandboxStats>) -> String {
    let size = |bytes| human::size(Some(bytes));
    row([
        cpu_share(stats, before),
        human::usage(stats.memory_bytes, stats.memory_limit_bytes, size),
        human::usage(stats.pids, stats.pids_limit, |number| number.to_string()),
        human::usage(stats.disk_bytes, stats.disk_limit_bytes, size),
        human::size(stats.io_read_bytes),
        human::size(stats.io_write_bytes),
    ])
}

/// Processor time since the measurement before, in percent of one core.
fn cpu_share(stats: &SandboxStats, before: Option<&SandboxStats>) -> String {
    let used =
        stats.cpu_seconds.zip(before.and_then(|before| before.cpu_seconds)).map(|(now, then)| now - then);
    let passed = stats
        .time
        .zip(before.and_then(|before| before.time))
        .map(|(now, then)| now.duration_since(then).as_secs_f64())
        .filter(|passed| *passed > 0.0);
    used.zip(passed).map_or_else(|| "-".to_owned(), |(used, passed)| format!("{:.0}%", used / passed * 100.0))
}

fn described(stats: &SandboxStats) -> String {
    let size = |bytes| human::size(Some(bytes));
    let number = |number: u64| number.to_string();
    let some = |value: Option<u64>, show: &dyn Fn(u64) -> String| value.map_or_else(String::new, show);
    table::facts(&[
        ("cpu time", human::cpu_time(stats.cpu_seconds)),
        ("throttled", stats.cpu_throttled_seconds.map_or_else(String::new, |time| format!("{time:.3}s"))),
        ("memory", human::usage(stats.memory_bytes, stats.memory_limit_bytes, size)),
        ("memory peak", some(stats.memory_peak_bytes, &size)),
        ("oom kills", some(stats.oom_kills, &number)),
        ("pids", human::usage(stats.pids, stats.pids_limit, number)),
        ("disk", human::usage(stats.disk_bytes, stats.disk_limit_bytes, size)),
        ("inodes", human::usage(stats.disk_inodes, stats.disk_inodes_limit, number)),
        ("read", some(stats.io_read_bytes, &size)),
        ("written", some(stats.io_write_bytes, &size)),
    ])
}
