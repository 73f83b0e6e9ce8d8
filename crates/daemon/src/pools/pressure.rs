//! Memory that runs short on the node shrinks pools before it hurts sandboxes in use.

use super::Pools;
use super::live::State;
use crate::lock::lock;
use crate::sandboxes::Sandboxes;
use hostel_pool::{Pressure, Time};
use std::time::Duration;

/// How often to look.
const LOOK: Duration = Duration::from_secs(2);

/// Below which hundredths of the node's memory being available it is short, and very short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPressure {
    /// Pools shrink to their least size.
    pub high: u8,
    /// Nothing is kept warm.
    pub critical: u8,
}

impl Default for MemoryPressure {
    /// A tenth and a twenty-fifth.
    fn default() -> Self {
        Self { high: 10, critical: 4 }
    }
}

impl Pools {
    pub(super) fn watch_memory(&self, sandboxes: &Sandboxes) {
        let (this, stop) = (self.clone(), sandboxes.stopping().clone());
        let bounds = sandboxes.settings().memory_pressure;
        sandboxes.tasks().spawn(async move {
            let mut last = Pressure::None;
            while !stop.is_cancelled() {
                let level =
                    std::fs::read_to_string("/proc/meminfo").map_or(last, |text| level(&text, bounds));
                if level != last {
                    tracing::warn!(
                        ?level,
                        "the node's memory changed between enough and short; pools follow"
                    );
                }
                for pool in this.all() {
                    if lock(&pool.state).pressure != level {
                        pool.tell(|state, now| {
                            state.pressure = level;
                            state.brain.pressure(level, now);
                        });
                    }
                }
                last = level;
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
    }
}

impl State {
    /// A node that takes no new sandboxes keeps none warm. Returns whether that changed.
    pub(super) fn follow_the_node(&mut self, draining: bool, now: Time) -> bool {
        let changed = self.node_draining != draining;
        if changed {
            self.node_draining = draining;
            self.brain.update(self.wanted(), now);
        }
        changed
    }

    /// The specification in force: the pool's own, and nothing while the node is being drained.
    pub(super) fn wanted(&self) -> hostel_pool::PoolSpec {
        let mut spec = self.record.spec.clone();
        spec.draining |= self.node_draining;
        spec
    }
}

/// How short memory is, by `MemAvailable` and `MemTotal` of proc_meminfo(5).
fn level(meminfo: &str, bounds: MemoryPressure) -> Pressure {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (Some(available), Some(total)) = (field("MemAvailable:"), field("MemTotal:")) else {
        return Pressure::None;
    };
    let below = |hundredths: u8| available.saturating_mul(100) < total.saturating_mul(hundredths.into());
    if below(bounds.critical) {
        Pressure::Critical
    } else if below(bounds.high) {
        Pressure::High
    } else {
        Pressure::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_available_memory_is_pressure() {
        let text =
            |available: u64| format!("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n");
        let level = |text: &str| level(text, MemoryPressure::default());
        assert_eq!(level(&text(500)), Pressure::None);
        assert_eq!(level(&text(99)), Pressure::High);
        assert_eq!(level(&text(39)), Pressure::Critical);
        assert_eq!(level("nonsense"), Pressure::None);
    }
}
