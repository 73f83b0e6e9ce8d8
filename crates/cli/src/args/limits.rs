//! Limits of sandboxes, as they are typed.

use super::value;
use clap::Args;
use hostel_sandbox::ResourceLimits;

/// The most that a sandbox may use.
#[derive(Debug, Default, Args)]
pub(crate) struct LimitOptions {
    /// Most memory, page cache included: 512M, 1.5G.
    #[arg(short, long, value_name = "SIZE", value_parser = value::bytes)]
    memory: Option<u64>,
    /// Most processor time, in cores: 0.5, 2.
    #[arg(long, value_name = "CORES", value_parser = value::cpus)]
    cpus: Option<u32>,
    /// Most processes and threads.
    #[arg(long, value_name = "N")]
    pids: Option<u32>,
    /// Most bytes that it may add to its files: 1G.
    #[arg(long, value_name = "SIZE", value_parser = value::bytes)]
    disk: Option<u64>,
    /// Most files that it may add.
    #[arg(long, value_name = "N")]
    inodes: Option<u64>,
    /// Most open files of one process.
    #[arg(long, value_name = "N")]
    open_files: Option<u32>,
    /// Most output of all its processes, in bytes per second: 10M.
    #[arg(long, value_name = "SIZE", value_parser = value::bytes)]
    output_rate: Option<u64>,
}

impl LimitOptions {
    /// Those that were given.
    pub(crate) fn limits(&self) -> ResourceLimits {
        ResourceLimits {
            memory_bytes: self.memory,
            cpu_millis: self.cpus,
            pids: self.pids,
            disk_bytes: self.disk,
            disk_inodes: self.inodes,
            open_files: self.open_files,
            output_bytes_per_second: self.output_rate,
        }
    }
}
