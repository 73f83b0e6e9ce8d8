//! Usage, as the engine reads it from the control groups.

use bollard::models::{ContainerBlkioStatEntry, ContainerMemoryStats, ContainerStatsResponse};
use hostel_sandbox::stats::SandboxStats;
use std::time::Duration;

/// Memory that the kernel takes back where it is short, as version 2 of control groups calls it.
const CACHES: [&str; 3] = ["active_file", "inactive_file", "slab_reclaimable"];

/// Memory that stays in use however short it is, where the engine tells.
pub(crate) fn held_memory(memory: &ContainerMemoryStats) -> Option<u64> {
    let cached = |name: &&str| memory.stats.as_ref()?.get(*name).copied();
    let cached = CACHES.iter().filter_map(cached).fold(0, u64::saturating_add);
    Some(memory.usage?.saturating_sub(cached))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_not_held() {
        let counted = [("anon", 50), ("active_file", 20), ("inactive_file", 15), ("slab_reclaimable", 5)];
        let stats = counted.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        let memory =
            ContainerMemoryStats { usage: Some(100), stats: Some(stats), ..ContainerMemoryStats::default() };
        assert_eq!(held_memory(&memory), Some(60));
        assert_eq!(held_memory(&ContainerMemoryStats { stats: None, ..memory }), Some(100));
        assert_eq!(held_memory(&ContainerMemoryStats::default()), None);
    }
}
