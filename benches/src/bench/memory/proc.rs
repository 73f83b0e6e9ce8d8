//! What the kernel tells about memory and descent.

use anyhow::{Context as _, Result};
use std::fs;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// With shared pages divided by the number of sharers.
    pub(crate) proportional: u64,
    /// Pages that nobody else has.
    pub(crate) private: u64,
}

pub(crate) fn memory_of(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(parse_rollup(&text))
}

fn parse_rollup(text: &str) -> Memory {
    let mut memory = Memory::default();
    for (name, bytes) in sizes(text) {
        match name {
            "Rss" => memory.resident = bytes,
            "Pss" => memory.proportional = bytes,
            "Private_Clean" | "Private_Dirty" | "Private_Hugetlb" => memory.private += bytes,
            _ => {}
        }
    }
    memory
}

/// Lines of `Name: 12 kB`, in bytes.
fn sizes(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some((name, kibibytes * 1024))
    })
}

/// What the kernel holds for itself, by kind, in bytes.
pub(super) fn kernel_memory() -> Result<Vec<(&'static str, u64)>> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let kinds = ["Slab", "KernelStack", "PageTables", "Percpu"];
    Ok(kinds
        .map(|kind| (kind, sizes(&text).find(|(name, _)| *name == kind).map_or(0, |(_, size)| size)))
        .to_vec())
}

/// The first processes of the sandboxes of a daemon: the children of its children.
pub(super) fn guests(daemon: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        parents.extend(parse_parent(&stat).map(|parent| (pid, parent)));
    }
    let children = |of: u32| parents.iter().filter(move |(_, parent)| *parent == of).map(|(pid, _)| *pid);
    Ok(children(daemon).flat_map(children).collect())
}

/// The parent in a line of `/proc/PID/stat`; the name before it may hold anything.
fn parse_parent(stat: &str) -> Option<u32> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollups_are_added_up() {
        let text = "Rss:   100 kB\nPss:  40 kB\nPss_Dirty: 9 kB\nPrivate_Clean: 3 kB\nPrivate_Dirty: 4 kB\n";
        let expected = Memory { resident: 102_400, proportional: 40_960, private: 7 * 1024 };
        assert_eq!(parse_rollup(text), expected);
    }

    #[test]
    fn names_with_brackets_do_not_confuse() {
        assert_eq!(parse_parent("12 (a) b) S 7 12 12 0"), Some(7));
        assert_eq!(parse_parent(""), None);
    }
}
