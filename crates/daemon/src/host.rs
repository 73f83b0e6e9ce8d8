//! What this machine has, read from /proc and /sys, and what is missing for good sandboxes.

mod checks;

pub(crate) use checks::{Check, Finding, checks, of_backend, of_reach, of_templates};

use std::path::Path;

/// Sizes of the machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub name: String,
    pub kernel: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Most processes and threads.
    pub pids: u64,
    /// Room for files where the state is, in bytes.
    pub disk_bytes: u64,
}

impl Machine {
    /// Looks at the machine; what cannot be read is 0 or empty.
    pub(crate) fn look(state_directory: &Path) -> Self {
        Self {
            name: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            memory_bytes: memory(&read("/proc/meminfo")),
            pids: pids(),
            disk_bytes: disk(state_directory).0,
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The lower of what the kernel has numbers for and what it has memory for (proc_sys_kernel(5)).
fn pids() -> u64 {
    let bound = |name: &str| read(&format!("/proc/sys/kernel/{name}")).parse().unwrap_or(0);
    [bound("pid_max"), bound("threads-max")].into_iter().filter(|most| *most > 0).min().unwrap_or(0)
}

/// Bytes of the file system at a path, and how many are free.
fn disk(path: &Path) -> (u64, u64) {
    nix::sys::statvfs::statvfs(path).map_or((0, 0), |stat| {
        (stat.blocks() * stat.fragment_size(), stat.blocks_available() * stat.fragment_size())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory("MemTotal:       16384 kB\nMemFree: 1 kB"), 16 << 20);
        assert_eq!(memory(""), 0);
        let machine = Machine::look(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty());
    }
}
