//! What a sandbox uses.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// Usage of a sandbox at one moment. `None` where this host cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStats {
    /// When it was read.
    pub time: SystemTime,
    /// Processor time used so far, all processes.
    pub cpu_time: Option<Duration>,
    /// Time that processes waited because of the CPU limit.
    pub cpu_throttled: Option<Duration>,
    /// Memory in use, page cache included, bytes.
    pub memory_bytes: Option<u64>,
    /// Most memory in use so far, bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Kills because of the memory limit so far.
    pub oom_kills: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Bytes written to the sandbox's own files and still there.
    pub disk_bytes: Option<u64>,
    /// Files there beyond the template's.
    pub disk_inodes: Option<u64>,
    /// Bytes read from block devices so far.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices so far.
    pub io_write_bytes: Option<u64>,
}

impl SandboxStats {
    /// Nothing known yet.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            time: SystemTime::now(),
            cpu_time: None,
            cpu_throttled: None,
            memory_bytes: None,
            memory_peak_bytes: None,
            oom_kills: None,
            pids: None,
            disk_bytes: None,
            disk_inodes: None,
            io_read_bytes: None,
            io_write_bytes: None,
        }
    }
}
