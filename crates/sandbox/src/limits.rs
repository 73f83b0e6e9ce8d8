//! Resource limits of a sandbox.

use crate::capability::Capability;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// Caps on what a sandbox may use. `None` means the template's or the node's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Memory in bytes, page cache and tmpfs included, no swap. 8 MiB or more.
    pub memory_bytes: Option<u64>,
    /// Processor time in thousandths of a core: 1000 is one core. 10 to 1,024,000.
    pub cpu_millis: Option<u32>,
    /// Processes and threads together, the supervisor included. 4 to 4,194,304.
    pub pids: Option<u32>,
    /// Bytes that may be written to the sandbox's own files. 1 MiB or more.
    pub disk_bytes: Option<u64>,
    /// Files, directories and links that may be made. 64 or more.
    pub disk_inodes: Option<u64>,
    /// Open files per process (`RLIMIT_NOFILE`). 16 to 1,048,576.
    pub open_files: Option<u32>,
    /// Output of all processes together, bytes per second; readers are slowed, nothing is lost. 1 KiB or more.
    pub output_bytes_per_second: Option<u64>,
}

impl ResourceLimits {
    /// What a sandbox gets when nobody says otherwise.
    #[must_use]
    pub fn defaults() -> Self {
        Self {
            memory_bytes: Some(512 * MIB),
            cpu_millis: Some(1000),
            pids: Some(256),
            disk_bytes: Some(1024 * MIB),
            disk_inodes: None,
            open_files: Some(4096),
            output_bytes_per_second: None,
        }
    }

    /// Fills what is not set here from `base`.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.or(base.memory_bytes),
            cpu_millis: self.cpu_millis.or(base.cpu_millis),
            pids: self.pids.or(base.pids),
            disk_bytes: self.disk_bytes.or(base.disk_bytes),
            disk_inodes: self.disk_inodes.or(base.disk_inodes),
            open_files: self.open_files.or(base.open_files),
            output_bytes_per_second: self.output_bytes_per_second.or(base.output_bytes_per_second),
        }
    }

    /// Whether these, as changes of `current`, leave it less memory.
    #[must_use]
    pub fn take_memory_from(&self, current: &Self) -> bool {
        self.memory_bytes.is_some_and(|new| current.memory_bytes.is_none_or(|old| new < old))
    }

    /// What has to be changed about `base` so that these hold: what is set here and is another there.
    #[must_use]
    pub fn changes_to(&self, base: &Self) -> Self {
        fn change<T: PartialEq + Copy>(new: Option<T>, old: Option<T>) -> Option<T> {
            new.filter(|_| new != old)
        }
        Self {
            memory_bytes: change(self.memory_bytes, base.memory_bytes),
            cpu_millis: change(self.cpu_millis, base.cpu_millis),
            pids: change(self.pids, base.pids),
            disk_bytes: change(self.disk_bytes, base.disk_bytes),
            disk_inodes: change(self.disk_inodes, base.disk_inodes),
            open_files: change(self.open_files, base.open_files),
            output_bytes_per_second: change(self.output_bytes_per_second, base.output_bytes_per_second),
        }
    }

    /// These, but nowhere more than `most`; what is absent is what that says.
    #[must_use]
    pub fn at_most(&self, most: &Self) -> Self {
        fn least<T: Ord>(value: Option<T>, most: Option<T>) -> Option<T> {
            match (value, most) {
                (Some(value), Some(most)) => Some(value.min(most)),
                (value, most) => value.or(most),
            }
        }
        Self {
            memory_bytes: least(self.memory_bytes, most.memory_bytes),
            cpu_millis: least(self.cpu_millis, most.cpu_millis),
            pids: least(self.pids, most.pids),
            disk_bytes: least(self.disk_bytes, most.disk_bytes),
            disk_inodes: least(self.disk_inodes, most.disk_inodes),
            open_files: least(self.open_files, most.open_files),
            output_bytes_per_second: least(self.output_bytes_per_second, most.output_bytes_per_second),
        }
    }

    /// The first that is more here than there: its field, what it is, and what it may be.
    #[must_use]
    pub fn beyond(&self, most: &Self) -> Option<(&'static str, u64, u64)> {
        let pairs = self.fields().into_iter().zip(most.fields());
        let mut both = pairs.filter_map(|((field, value), (_, most))| Some((field, value?, most?)));
        both.find(|(_, value, most)| value > most)
    }

    /// Each by its name.
    fn fields(&self) -> [(&'static str, Option<u64>); 7] {
        [
            ("memory_bytes", self.memory_bytes),
            ("cpu_millis", self.cpu_millis.map(u64::from)),
            ("pids", self.pids.map(u64::from)),
            ("disk_bytes", self.disk_bytes),
            ("disk_inodes", self.disk_inodes),
            ("open_files", self.open_files.map(u64::from)),
            ("output_bytes_per_second", self.output_bytes_per_second),
        ]
    }

    /// Checks each value against its range.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field and the range.
    pub fn validate(&self) -> Result<()> {
        const RANGES: [(u64, u64); 7] = [
            (8 * MIB, 1 << 50),
            (10, 1_024_000),
            (4, 4_194_304),
            (MIB, 1 << 50),
            (64, 1 << 40),
            (16, 1_048_576),
            (1024, 1 << 50),
        ];
        for ((field, value), (low, high)) in self.fields().into_iter().zip(RANGES) {
            if value.is_some_and(|value| value < low || value > high) {
                return Err(Error::invalid(
                    format!("limits.{field}"),
                    format!("{} is outside {low} to {high}", value.unwrap_or_default()),
                ));
            }
        }
        Ok(())
    }

    /// The capabilities that the values set here need.
    pub fn needs(&self) -> impl Iterator<Item = Capability> {
        [
            (self.memory_bytes.is_some(), Capability::MemoryLimit),
            (self.cpu_millis.is_some(), Capability::CpuLimit),
            (self.pids.is_some(), Capability::PidsLimit),
            (self.disk_bytes.is_some(), Capability::DiskLimit),
            (self.disk_inodes.is_some(), Capability::InodeLimit),
            (self.open_files.is_some(), Capability::OpenFilesLimit),
            (self.output_bytes_per_second.is_some(), Capability::OutputRateLimit),
        ]
        .into_iter()
        .filter_map(|(set, capability)| set.then_some(capability))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_where_there_will_be_less_of_it() {
        let memory = |memory_bytes| ResourceLimits { memory_bytes, ..Default::default() };
        let taken = [(Some(1), Some(2)), (Some(1), None)];
        let left = [(Some(2), Some(2)), (Some(3), Some(2)), (None, Some(2)), (None, None)];
        assert!(taken.into_iter().all(|(new, old)| memory(new).take_memory_from(&memory(old))));
        assert!(!left.into_iter().any(|(new, old)| memory(new).take_memory_from(&memory(old))));
    }

    #[test]
    fn contradictory_and_absurd_limits_are_named() {
        let tiny = ResourceLimits { memory_bytes: Some(1), ..Default::default() };
        let error = tiny.validate().unwrap_err().to_string();
        assert!(error.contains("limits.memory_bytes") && error.contains("8388608"), "{error}");
        assert!(ResourceLimits { pids: Some(0), ..Default::default() }.validate().is_err());
        assert!(ResourceLimits::defaults().validate().is_ok());
    }

    #[test]
    fn only_what_differs_has_to_be_changed() {
        let wanted = ResourceLimits { pids: Some(7), open_files: Some(4096), ..Default::default() };
        let changes = wanted.changes_to(&ResourceLimits::defaults());
        assert_eq!(changes, ResourceLimits { pids: Some(7), ..Default::default() });
        assert_eq!(changes.or(&ResourceLimits::defaults()), wanted.or(&ResourceLimits::defaults()));
    }

    #[test]
    fn a_bound_holds_for_what_is_set_and_for_what_is_not() {
        let most = ResourceLimits { memory_bytes: Some(64 * MIB), pids: Some(50), ..Default::default() };
        let asked =
            ResourceLimits { memory_bytes: Some(65 * MIB), cpu_millis: Some(9), ..Default::default() };
        assert_eq!(asked.beyond(&most), Some(("memory_bytes", 65 * MIB, 64 * MIB)));
        let held = asked.at_most(&most);
        assert_eq!((held.memory_bytes, held.cpu_millis, held.pids), (Some(64 * MIB), Some(9), Some(50)));
        assert_eq!(held.beyond(&most), None);
        assert_eq!(asked.at_most(&ResourceLimits::default()), asked);
    }

    #[test]
    fn what_is_set_wins_over_the_base() {
        let own = ResourceLimits { pids: Some(7), ..Default::default() };
        let merged = own.or(&ResourceLimits::defaults());
        assert_eq!((merged.pids, merged.cpu_millis), (Some(7), Some(1000)));
    }
}
