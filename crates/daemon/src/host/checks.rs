//! The doctor's checks. Each looks at one thing and says what would mend it.

use super::{disk, read};
use crate::templates::Problem;
use hostel_sandbox::size::format_bytes;
use hostel_sandbox::{Backend, Weakness};
use landlock::{ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _};
use std::path::Path;
use std::sync::Arc;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    Ok,
    /// It works, but weaker or slower than it could.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub name: &'static str,
    pub finding: Finding,
    pub detail: String,
    /// The command or setting that would mend it.
    pub fix: String,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, finding: Finding::Ok, detail: detail.into(), fix: String::new() }
    }

    fn warn(name: &'static str, detail: impl Into<String>, fix: &str) -> Self {
        Self { name, finding: Finding::Warn, detail: detail.into(), fix: fix.to_owned() }
    }

    fn fail(name: &'static str, detail: impl Into<String>, fix: &str) -> Self {
        Self { name, finding: Finding::Fail, detail: detail.into(), fix: fix.to_owned() }
    }
}

/// Space under which the doctor warns, in bytes.
const LITTLE_SPACE: u64 = 2 << 30;

/// Whether network policies can be enforced, and whether there is a model to ask.
pub(crate) fn of_reach(unenforceable: Option<&str>, has_models: bool) -> [Check; 2] {
    let network = match unenforceable {
        None => Check::ok("network_policies", "allowlist and open can be enforced"),
        // It says itself what mends it.
        Some(why) => Check::warn("network_policies", format!("only the policy none: {why}"), ""),
    };
    let models = if has_models {
        Check::ok("models", "the gateway has upstreams")
    } else {
        let fix =
            "start the daemon with ANTHROPIC_API_KEY, or with upstreams in gateway.toml (docs/models.md)";
        Check::warn("models", "no upstream: sandboxes cannot ask models", fix)
    };
    [network, models]
}

/// Looks at everything that sandboxes need here.
pub(crate) fn checks(state_directory: &Path) -> Vec<Check> {
    vec![
        privilege(),
        kernel(),
        cgroup(),
        cgroup_memory(),
        user_namespaces(),
        overlay(),
        btrfs(),
        seccomp(),
        landlock(),
        disk_space(state_directory),
    ]
}

/// Whether a backend can make sandboxes, and what it says is missing here.
pub(crate) fn of_backend(backend: &Arc<dyn Backend>) -> Vec<Check> {
    let name = backend.name();
    if let Some(why) = backend.trouble() {
        // What it could do otherwise, it would have to say itself.
        return vec![Check::warn("backend", format!("{name}: {why}"), "mend that, or use another backend")];
    }
    let remark = backend.remark().map_or(String::new(), |remark| format!("; {remark}"));
    let usable = Check::ok("backend", format!("{name}: sandboxes can be made{remark}"));
    let capabilities = backend.capabilities();
    let weak = |weakness: &Weakness| Check {
        name: weakness.capability.name(),
        finding: Finding::Warn,
        detail: format!("{name}: {}", weakness.detail),
        fix: String::new(),
    };
    [usable].into_iter().chain(capabilities.missing.iter().map(weak)).collect()
}

/// What is wrong with declared templates.
pub(crate) fn of_templates(declared: usize, problems: &[Problem]) -> Vec<Check> {
    if problems.is_empty() {
        return vec![Check::ok("templates", format!("{declared} declared"))];
    }
    let fix = "mend the file, check with hosteld --check, and restart the daemon";
    problems.iter().map(|problem| Check::warn("templates", problem.to_string(), fix)).collect()
}

fn privilege() -> Check {
    if nix::unistd::geteuid().is_root() {
        Check::ok("privilege", "the daemon runs as root")
    } else {
        let detail = "the daemon runs as an ordinary user: limits that need cgroups and private user ids may be missing";
        Check::warn("privilege", detail, "run hosteld as root, for example with its systemd unit")
    }
}

fn kernel() -> Check {
    let release = read("/proc/sys/kernel/osrelease");
    match version(&release) {
        Some(version) if version >= (5, 13) => Check::ok("kernel_version", release),
        Some(_) => {
            Check::fail("kernel_version", format!("{release} is older than 5.13"), "install a newer kernel")
        }
        None => Check::warn("kernel_version", format!("{release:?} is not understood"), ""),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cgroup() -> Check {
    let mounts = read("/proc/self/mounts");
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup2"), has("cgroup")) {
        (true, false) => Check::ok("cgroup_version", "version 2"),
        (_, true) => Check::ok("cgroup_version", "version 1 (hybrid counts as 1)"),
        (false, false) => Check::fail(
            "cgroup_version",
            "no cgroup file system is mounted: memory, processor and process limits cannot be held",
            "mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

fn cgroup_memory() -> Check {
    let v2 = read("/sys/fs/cgroup/cgroup.controllers");
    let v1 = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
    if v1 || v2.split_whitespace().any(|controller| controller == "memory") {
        Check::ok("cgroup_memory", "the memory controller is there")
    } else {
        let fix = "boot with cgroup_enable=memory, or set Delegate=yes in the daemon's unit";
        Check::fail("cgroup_memory", "the memory controller is not available here", fix)
    }
}

fn user_namespaces() -> Check {
    let most: u64 = read("/proc/sys/user/max_user_namespaces").parse().unwrap_or(0);
    let unprivileged = read("/proc/sys/kernel/unprivileged_userns_clone");
    let apparmor = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    if most == 0 {
        let fix = "sysctl -w user.max_user_namespaces=65536";
        return Check::fail("user_namespace", "user namespaces are switched off", fix);
    }
    if !nix::unistd::geteuid().is_root() && (unprivileged == "0" || apparmor == "1") {
        let fix =
            "sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0";
        return Check::fail("user_namespace", "ordinary users may not make user namespaces", fix);
    }
    Check::ok("user_namespace", format!("up to {most} user namespaces"))
}

fn filesystem_known(name: &str) -> bool {
    read("/proc/filesystems").lines().any(|line| line.split_whitespace().next_back() == Some(name))
}

fn overlay() -> Check {
    if filesystem_known("overlay") {
        Check::ok("overlayfs", "the kernel knows it")
    } else {
        let detail = "the kernel does not know overlay (yet): root file systems cannot be shared";
        Check::warn("overlayfs", detail, "modprobe overlay")
    }
}

fn btrfs() -> Check {
    let tool = ["/usr/sbin/mkfs.btrfs", "/sbin/mkfs.btrfs", "/usr/bin/mkfs.btrfs"]
        .iter()
        .any(|path| Path::new(path).exists());
    match (filesystem_known("btrfs"), tool) {
        (true, true) => {
            Check::ok("btrfs", "the kernel and mkfs.btrfs are there: disk limits, snapshots and forks")
        }
        (false, _) => {
            let detail = "the kernel does not know btrfs (yet): disks are kept in memory, forks copy";
            Check::warn("btrfs", detail, "modprobe btrfs")
        }
        (true, false) => {
            let detail = "mkfs.btrfs is missing: disks are kept in memory, forks copy";
            Check::warn("btrfs", detail, "apt-get install btrfs-progs")
        }
    }
}

fn seccomp() -> Check {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    if actions.split_whitespace().any(|action| action == "errno") {
        Check::ok("seccomp", "system call filters are there")
    } else {
        let fix = "use a kernel with CONFIG_SECCOMP_FILTER";
        Check::fail("seccomp", "the kernel has no system call filters", fix)
    }
}

fn landlock() -> Check {
    if landlock_is_active() {
        return Check::ok("landlock", format!("active, ABI {}", landlock_abi()));
    }
    Check::warn("landlock", "not active in this kernel", "boot with lsm=landlock added to the list")
}

/// Makes a rule set that must be enforceable, and lets it go unused.
fn landlock_is_active() -> bool {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1));
    rules.is_ok_and(|rules| rules.create().is_ok())
}

/// The newest landlock interface of this kernel, by its version (landlock(7)).
fn landlock_abi() -> u32 {
    const SINCE: &[((u32, u32), u32)] =
        &[((6, 15), 7), ((6, 12), 6), ((6, 10), 5), ((6, 7), 4), ((6, 2), 3), ((5, 19), 2), ((5, 13), 1)];
    let version = version(&read("/proc/sys/kernel/osrelease")).unwrap_or_default();
    SINCE.iter().find(|(since, _)| version >= *since).map_or(0, |(_, abi)| *abi)
}

fn disk_space(state_directory: &Path) -> Check {
    let (all, free) = disk(state_directory);
    let detail =
        format!("{} of {} free at {}", format_bytes(free), format_bytes(all), state_directory.display());
    if free < LITTLE_SPACE {
        Check::warn("disk_space", detail, "free some space, or put the state elsewhere with --state-dir")
    } else {
        Check::ok("disk_space", detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(version("6.12.0-rc1+"), Some((6, 12)));
        assert_eq!(version("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(version("x"), None);
    }

    #[test]
    fn what_was_looked_at_has_a_name_and_words() {
        for check in checks(Path::new("/")) {
            assert!(!check.name.is_empty() && !check.detail.is_empty(), "{check:?}");
        }
    }
}
