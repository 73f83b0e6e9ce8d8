//! What the engine is, and what containers can do on it.

use crate::ground::Ground;
use crate::remote;
use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use hostel_sandbox::{Capabilities, Capability, ResourceLimits};

/// What an engine says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) version: String,
    /// Storage driver.
    pub(crate) driver: String,
    /// Whether that driver can cap a container's root.
    pub(crate) quota: bool,
    /// Whether that cap counts the image's own files, too.
    pub(crate) counts_image: bool,
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) cpu: bool,
    /// Its processors, in thousandths of one; `None` where it does not say. It refuses a container that may use more.
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) pids: bool,
    pub(crate) seccomp: bool,
    /// Version 1 of control groups, which knows swappiness.
    pub(crate) cgroup1: bool,
    /// It does not share this host's files.
    pub(crate) remote: bool,
    /// Its kernel's, as uname(1) says it.
    pub(crate) architecture: String,
    /// What is added to the ids inside on the host, where the engine remaps them.
    pub(crate) first_id: u32,
}

impl Facts {
    /// Reads what the engine says.
    pub(crate) fn read(info: &SystemInfo, remote: bool) -> Self {
        let options = info.security_options.clone().unwrap_or_default();
        let has = |name: &str| options.iter().any(|option| option.split(',').any(|part| part == name));
        let root = info.docker_root_dir.clone().unwrap_or_default();
        let driver = info.driver.clone().unwrap_or_default();
        let status = info.driver_status.clone().unwrap_or_default();
        let on_xfs = status
            .iter()
            .any(|pair| matches!(&pair[..], [name, value] if name == "Backing Filesystem" && value == "xfs"));
        let quota = match driver.as_str() {
            "btrfs" | "zfs" => true,
            "overlay2" => !remote && on_xfs && has_project_quota(&root),
            _ => false,
        };
        Self {
            version: info.server_version.clone().unwrap_or_default(),
            quota,
            // Of a subvolume it limits everything that it refers to, shared or not.
            counts_image: driver == "btrfs",
            driver,
            memory: info.memory_limit.unwrap_or(false),
            swap: info.swap_limit.unwrap_or(false),
            cpu: info.cpu_cfs_quota.unwrap_or(false),
            cpu_millis: info
                .ncpu
                .and_then(|count| u32::try_from(count).ok())
                .filter(|count| *count > 0)
                .map(|count| count.saturating_mul(1000)),
            pids: info.pids_limit.unwrap_or(false),
            seccomp: has("name=seccomp"),
            cgroup1: info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_1),
            remote,
            architecture: info.architecture.clone().unwrap_or_default(),
            first_id: if !remote && has("name=userns") { first_id(&root) } else { 0 },
        }
    }

    /// What is believed of an engine that has not answered yet: the usual. A creation needs the engine anyway, and
    /// finds out then.
    pub(crate) fn usual(remote: bool) -> Self {
        let yes = true;
        Self { memory: yes, swap: yes, cpu: yes, pids: yes, seccomp: yes, remote, ..Self::default() }
    }

    /// Limits as the engine holds them: without those that its kernel cannot, and of processors no more than it has.
    pub(crate) fn held(&self, limits: &ResourceLimits) -> ResourceLimits {
        let most = self.cpu_millis.unwrap_or(u32::MAX);
        ResourceLimits {
            memory_bytes: limits.memory_bytes.filter(|_| self.memory),
            cpu_millis: limits.cpu_millis.filter(|_| self.cpu).map(|millis| millis.min(most)),
            pids: limits.pids.filter(|_| self.pids),
            ..limits.clone()
        }
    }

    /// What the engine is told about memory and swap together, beside so many bytes of memory: the same, which is no
    /// swap. Where its kernel does not count swap it is told so; left open, the engine takes twice the memory, finds
    /// that it cannot have that, and warns.
    pub(crate) fn memory_swap(&self, memory: Option<i64>) -> Option<i64> {
        memory.map(|bytes| if self.swap { bytes } else { -1 })
    }
}

/// With remapped ids the engine's directory ends with the first of them: `/var/lib/docker/100000.100000`.
fn first_id(root: &str) -> u32 {
    let last = root.rsplit('/').next().unwrap_or_default();
    last.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Whether the file system below a directory was mounted with project quotas (xfs(5)).
fn has_project_quota(directory: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, place, _, options, ..] = fields[..] else { return None };
        let inside = place == "/" || directory == place || directory.starts_with(&format!("{place}/"));
        inside.then_some((place.len(), options))
    });
    below
        .max_by_key(|(length, _)| *length)
        .is_some_and(|(_, options)| options.split(',').any(|option| matches!(option, "pquota" | "prjquota")))
}

/// Turns what is known into capabilities.
pub(crate) fn capabilities(facts: &Facts, ground: &Ground) -> Capabilities {
    use Capability as C;
    let mut found = Capabilities::default();
    for always in [
        C::Pty,
        C::Reattach,
        C::Pause,
        C::Stats,
        C::OpenFilesLimit,
        C::OutputRateLimit,
        C::NetworkNone,
        C::FileWatch,
        C::OtherUsers,
        C::TemplateImport,
    ] {
        found.grant(always);
    }
    let mut when = |capability, condition: bool, otherwise: &str| {
        if condition { found.grant(capability) } else { found.deny(capability, otherwise) }
    };
    let no_controller = "the engine says that its kernel has no such control group";
    when(C::MemoryLimit, facts.memory, no_controller);
    when(C::CpuLimit, facts.cpu, no_controller);
    when(C::PidsLimit, facts.pids, no_controller);
    let is_elsewhere = facts.remote && ground.is_root();
    let disks = if is_elsewhere { Err(remote::NO_DISK) } else { ground.disks() };
    let no_disk = disks.err().unwrap_or_default();
    let capped = facts.quota || disks.is_ok();
    let driver = if facts.driver.is_empty() { "this one" } else { &facts.driver };
    let no_cap = format!(
        "the storage driver {driver} cannot cap a container's root, and we cannot give it a disk of our own: {no_disk}; each writable place is capped by itself"
    );
    when(C::DiskLimit, capped, &no_cap);
    when(C::Snapshot, capped, &no_cap);
    when(C::Fork, capped, &no_cap);
    let inodes = "the storage driver caps bytes, not files";
    when(C::InodeLimit, !facts.quota && disks.is_ok(), if facts.quota { inodes } else { &no_cap });
    let read_only = format!(
        "the storage driver {driver} cannot cap a container's root, which is read-only therefore; an engine on btrfs, zfs, or xfs with project quotas can"
    );
    when(C::WritableRoot, facts.quota, &read_only);
    when(
        C::TerminalLimit,
        false,
        "an engine has no option for it; the host's own limit holds for all together",
    );
    when(C::PrivateUserIds, false, "containers of one engine share a range of user ids");
    for (capability, name) in [(C::NetworkAllowlist, "allowlist"), (C::NetworkOpen, "open")] {
        let reason = if is_elsewhere {
            "the engine is on another host"
        } else {
            "the daemon runs as an ordinary user; start it as root for this"
        };
        let detail = format!(
            "the network policy {name} needs the daemon's sockets in a container's network namespace: {reason}"
        );
        when(capability, ground.is_root() && !facts.remote, &detail);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_read() {
        let info = SystemInfo {
            driver: Some("btrfs".to_owned()),
            security_options: Some(vec!["name=seccomp,profile=default".to_owned(), "name=userns".to_owned()]),
            docker_root_dir: Some("/var/lib/docker/231072.231072".to_owned()),
            memory_limit: Some(true),
            ..SystemInfo::default()
        };
        let facts = Facts::read(&info, false);
        assert!(facts.quota && facts.seccomp && facts.memory && !facts.pids);
        assert_eq!(facts.first_id, 231_072);
        assert_eq!(first_id("/var/lib/docker"), 0);
    }

    #[test]
    fn limits_are_what_the_engine_can_hold() {
        let info = SystemInfo {
            ncpu: Some(2),
            memory_limit: Some(true),
            cpu_cfs_quota: Some(true),
            ..SystemInfo::default()
        };
        let asked = ResourceLimits { cpu_millis: Some(64_000), ..ResourceLimits::defaults() };
        let held = Facts::read(&info, false).held(&asked);
        assert_eq!((held.cpu_millis, held.pids), (Some(2000), None));
        assert_eq!(held, ResourceLimits { cpu_millis: Some(2000), pids: None, ..asked.clone() });
        let less = ResourceLimits { cpu_millis: Some(1500), ..asked.clone() };
        assert_eq!(Facts::read(&info, false).held(&less).cpu_millis, Some(1500));
        assert_eq!(Facts::usual(false).held(&asked), asked, "of an engine that did not say");
    }
}
