//! Reads what a cell uses.

use super::{Cgroups, Controller};
use hostel_sandbox::stats::SandboxStats;
use std::path::PathBuf;
use std::time::Duration;

impl Cgroups {
    /// How many processes of a cell the kernel has ended for memory, as far as it tells.
    pub(crate) fn oom_kills(&self, cell: &str) -> Option<u64> {
        let file = if self.unified_controls { "memory.events" } else { "memory.oom_control" };
        Fields::read(self.memory()?.join(cell).join(file)).get("oom_kill")
    }

    /// Fills in what the groups of a cell know.
    pub(crate) fn read_usage(&self, cell: &str, stats: &mut SandboxStats) {
        let unified = self.unified.as_ref().map(|path| path.join(cell));
        let legacy = |controller| self.legacy(controller).map(|path| path.join(cell));
        if let Some(group) = &unified {
            let cpu = Fields::read(group.join("cpu.stat"));
            stats.cpu_time = cpu.get("usage_usec").map(Duration::from_micros);
            stats.cpu_throttled = cpu.get("throttled_usec").map(Duration::from_micros);
        }
        if stats.cpu_time.is_none() {
            stats.cpu_time = legacy(Controller::CpuAccounting)
                .and_then(|group| number(group.join("cpuacct.usage")))
                .map(Duration::from_nanos);
        }
        stats.oom_kills = self.oom_kills(cell);
        if self.unified_controls {
            let Some(group) = unified else { return };
            stats.memory_bytes = number(group.join("memory.current"));
            stats.memory_peak_bytes = number(group.join("memory.peak"));
            stats.pids = number(group.join("pids.current"));
            let io = std::fs::read_to_string(group.join("io.stat")).unwrap_or_default();
            stats.io_read_bytes = Some(sum_of(&io, "rbytes="));
            stats.io_write_bytes = Some(sum_of(&io, "wbytes="));
            return;
        }
        if let Some(group) = legacy(Controller::Cpu) {
            stats.cpu_throttled =
                Fields::read(group.join("cpu.stat")).get("throttled_time").map(Duration::from_nanos);
        }
        if let Some(group) = legacy(Controller::Memory) {
            stats.memory_bytes = number(group.join("memory.usage_in_bytes"));
            stats.memory_peak_bytes = number(group.join("memory.max_usage_in_bytes"));
        }
        stats.pids = legacy(Controller::Pids).and_then(|group| number(group.join("pids.current")));
        if let Some(group) = legacy(Controller::BlockIo) {
            let text =
                std::fs::read_to_string(group.join("blkio.throttle.io_service_bytes")).unwrap_or_default();
            let sum = |kind: &str| {
                text.lines()
                    .filter(|line| line.contains(kind))
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                    .sum()
            };
            stats.io_read_bytes = Some(sum(" Read "));
            stats.io_write_bytes = Some(sum(" Write "));
        }
    }
}

fn number(path: PathBuf) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn sum_of(text: &str, key: &str) -> u64 {
    text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
}

/// A file of `name number` lines.
struct Fields(String);

impl Fields {
    fn read(path: PathBuf) -> Self {
        Self(std::fs::read_to_string(path).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }
}
