//! Usage, as the engine reads it from the control groups.

use bollard::models::{ContainerBlkioStatEntry, ContainerStatsResponse};
use hostel_sandbox::stats::SandboxStats;
use std::time::Duration;

/// Translates what the engine says.
pub(crate) fn read(found: ContainerStatsResponse) -> SandboxStats {
    let mut stats = SandboxStats::unknown();
    if let Some(cpu) = found.cpu_stats {
        stats.cpu_time = cpu.cpu_usage.and_then(|usage| usage.total_usage).map(Duration::from_nanos);
        let throttled = cpu.throttling_data.and_then(|throttling| throttling.throttled_time);
        stats.cpu_throttled = throttled.map(Duration::from_nanos);
    }
    if let Some(memory) = found.memory_stats {
        stats.memory_bytes = memory.usage;
        // Version 2 has no peak here.
        stats.memory_peak_bytes = memory.max_usage;
    }
    stats.pids = found.pids_stats.and_then(|pids| pids.current);
    let entries = found.blkio_stats.and_then(|io| io.io_service_bytes_recursive).unwrap_or_default();
    stats.io_read_bytes = Some(sum(&entries, "read"));
    stats.io_write_bytes = Some(sum(&entries, "write"));
    stats
}

fn sum(entries: &[ContainerBlkioStatEntry], operation: &str) -> u64 {
    let same = |entry: &&ContainerBlkioStatEntry| {
        entry.op.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(operation))
    };
    entries.iter().filter(same).filter_map(|entry| entry.value).sum()
}
