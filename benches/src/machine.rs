//! The machine that was measured on: what matters for the numbers, and nothing that names it.

use anyhow::{Context as _, Result};
use hostel_client::Client;
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;
use tempfile::TempDir;

/// Facts about the machine.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) virtual_machine: bool,
    pub(crate) kernel: String,
    pub(crate) cgroups: String,
    pub(crate) root: bool,
    pub(crate) hosteld: String,
    /// What isolation the daemon gives here.
    pub(crate) isolation: Vec<String>,
    /// What it lacks here.
    pub(crate) isolation_missing: Vec<String>,
    pub(crate) peers: Vec<String>,
    /// Load average over one minute.
    pub(crate) load_before: String,
    pub(crate) load_after: String,
}

impl Machine {
    /// Name and value of each fact.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let virtual_machine = if self.virtual_machine { ", in a virtual machine" } else { "" };
        let or_none = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
        vec![
            ("Processor", format!("{}, {} cores{virtual_machine}", self.cpu, self.cores)),
            ("Memory", format!("{} MiB", self.memory_mib)),
            ("Kernel", self.kernel.clone()),
            ("Control groups", self.cgroups.clone()),
            (
                "Daemon",
                format!("{}, as {}", self.hosteld, if self.root { "root" } else { "an ordinary user" }),
            ),
            ("Isolation in force in our sandboxes", or_none(&self.isolation)),
            ("Isolation that this machine cannot give", or_none(&self.isolation_missing)),
            ("Peers", or_none(&self.peers)),
            ("Load average before and after", format!("{} and {}", self.load_before, self.load_after)),
        ]
    }
}

/// Looks around.
pub(crate) async fn describe(client: &Client) -> Result<Machine> {
    let node = client.node_info().await.context("ask the daemon about its node")?;
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu_info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let features = |available| {
        let chosen = node.isolation.iter().filter(move |fact| fact.available == available);
        chosen.map(|fact| fact.feature.clone()).collect()
    };
    Ok(Machine {
        cpu: field("model name").unwrap_or_else(|| node.architecture.clone()),
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        memory_mib: node.capacity.memory_bytes >> 20,
        virtual_machine: field("flags")
            .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        kernel: format!("Linux {}", rustix::system::uname().release().to_string_lossy()),
        cgroups: cgroups(&fs::read_to_string("/proc/mounts").unwrap_or_default()),
        root: rustix::process::geteuid().is_root(),
        hosteld: format!("hosteld {}", node.version),
        isolation: features(true),
        isolation_missing: features(false),
        peers: [version("bwrap"), version("runc"), version("dockerd")].into_iter().flatten().collect(),
        load_before: load(),
        load_after: String::new(),
    })
}

/// The load average over one minute, as the kernel prints it.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Which version of control groups is mounted.
fn cgroups(mounts: &str) -> String {
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    let version = match (has("cgroup"), has("cgroup2")) {
        (true, true) => "version 1, with version 2 beside it for freezing and killing",
        (true, false) => "version 1",
        (false, true) => "version 2",
        (false, false) => "none",
    };
    let dynamic = if mounts.contains("favordynmods") { ", favordynmods" } else { "" };
    format!("{version}{dynamic}")
}

/// The first line of a program's `--version`.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.replace(" version", ""))
}

/// Removes our directory. What still has a mount in it stays: to remove it would be to remove what is mounted.
pub(crate) fn remove_unless_mounted(directory: TempDir) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    if mounts.contains(&*directory.path().to_string_lossy()) {
        let kept = directory.keep();
        anyhow::bail!("something is still mounted in {}: not removed", kept.display());
    }
    directory.close().context("remove our directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_versions_are_told_apart() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,favordynmods 0 0\n";
        assert_eq!(cgroups(v1), "version 1");
        assert_eq!(cgroups(v2), "version 2, favordynmods");
        assert!(cgroups(&format!("{v1}{v2}")).starts_with("version 1, with version 2"));
        assert_eq!(cgroups(""), "none");
    }
}
