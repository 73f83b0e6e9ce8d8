//! Amounts of what a node shares out.

use hostel_sandbox::{Error, ResourceLimits, Result};
use serde::{Deserialize, Serialize};

/// Amounts of memory, processor, processes, disk and sandboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of a core.
    pub cpu_millis: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Room for files, in bytes.
    pub disk_bytes: u64,
    /// Sandboxes.
    pub sandboxes: u64,
}

/// What a node has.
pub type Budget = Resources;
/// What a request needs.
pub type Needs = Resources;

impl Resources {
    /// What one sandbox with these limits takes. A limit that is not set takes nothing, since it is not enforced.
    #[must_use]
    pub fn of(limits: &ResourceLimits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes.unwrap_or_default(),
            cpu_millis: limits.cpu_millis.map(u64::from).unwrap_or_default(),
            pids: limits.pids.map(u64::from).unwrap_or_default(),
            disk_bytes: limits.disk_bytes.unwrap_or_default(),
            sandboxes: 1,
        }
    }

    fn each(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            memory_bytes: of(self.memory_bytes, other.memory_bytes),
            cpu_millis: of(self.cpu_millis, other.cpu_millis),
            pids: of(self.pids, other.pids),
            disk_bytes: of(self.disk_bytes, other.disk_bytes),
            sandboxes: of(self.sandboxes, other.sandboxes),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What is left without `other`, at least nothing.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// Whether this fits beside `taken` below `ceiling`. What it needs nothing of is not looked at, so that one who
    /// needs no memory is not held up by memory that is taken beyond the ceiling.
    #[must_use]
    pub fn fits(&self, taken: &Self, ceiling: &Self) -> bool {
        let fits = |needs: u64, taken: u64, ceiling: u64| {
            needs == 0 || taken.checked_add(needs).is_some_and(|sum| sum <= ceiling)
        };
        fits(self.memory_bytes, taken.memory_bytes, ceiling.memory_bytes)
            && fits(self.cpu_millis, taken.cpu_millis, ceiling.cpu_millis)
            && fits(self.pids, taken.pids, ceiling.pids)
            && fits(self.disk_bytes, taken.disk_bytes, ceiling.disk_bytes)
            && fits(self.sandboxes, taken.sandboxes, ceiling.sandboxes)
    }
}

/// How much more than the node has may be taken: 1 is no more, 2 twice as much, infinity without limit. 0.1 or more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overcommit {
    /// Of memory. Limits of memory that is taken twice can end in processes being killed for want of it.
    pub memory: f64,
    /// Of processor time, which is shared anyway.
    pub cpu: f64,
    /// Of processes.
    pub pids: f64,
    /// Of disk.
    pub disk: f64,
}

impl Default for Overcommit {
    fn default() -> Self {
        Self { memory: 1.0, cpu: f64::INFINITY, pids: 1.0, disk: 1.0 }
    }
}

impl Overcommit {
    /// Checks each ratio.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field, as `overcommit.memory`.
    pub fn validate(&self) -> Result<()> {
        for (field, ratio) in
            [("memory", self.memory), ("cpu", self.cpu), ("pids", self.pids), ("disk", self.disk)]
        {
            if ratio.is_nan() || ratio < 0.1 {
                return Err(Error::invalid(
                    format!("overcommit.{field}"),
                    format!("{ratio} is not 0.1 or more; 1 is none"),
                ));
            }
        }
        Ok(())
    }

    /// What may be taken of `budget`.
    pub(super) fn ceiling(&self, budget: &Budget) -> Resources {
        // Casts saturate: infinity is u64::MAX, and nothing below zero or not a number gives any room.
        let times = |amount: u64, ratio: f64| {
            if ratio == 1.0 { amount } else { (amount as f64 * ratio) as u64 }
        };
        Resources {
            memory_bytes: times(budget.memory_bytes, self.memory),
            cpu_millis: times(budget.cpu_millis, self.cpu),
            pids: times(budget.pids, self.pids),
            disk_bytes: times(budget.disk_bytes, self.disk),
            sandboxes: budget.sandboxes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_make_the_ceiling() {
        let budget =
            Resources { memory_bytes: 100, cpu_millis: 2000, pids: 10, disk_bytes: u64::MAX, sandboxes: 5 };
        let ceiling = Overcommit { memory: 1.5, ..Overcommit::default() }.ceiling(&budget);
        assert_eq!(ceiling, Resources { memory_bytes: 150, cpu_millis: u64::MAX, ..budget });
        assert!(Overcommit { disk: 0.0, ..Overcommit::default() }.validate().is_err());
        assert!(Overcommit { pids: f64::NAN, ..Overcommit::default() }.validate().is_err());
        assert!(Overcommit::default().validate().is_ok());
    }

    #[test]
    fn a_sum_that_overflows_does_not_fit() {
        let huge = Resources { memory_bytes: u64::MAX, ..Resources::default() };
        assert!(huge.fits(&Resources::default(), &huge));
        assert!(!huge.fits(&Resources { memory_bytes: 1, ..Resources::default() }, &huge));
    }
}
