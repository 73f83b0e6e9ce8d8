//! What jails can do on this host, and why not where they cannot.

use crate::cgroup::Cgroups;
use hostel_sandbox::{Capabilities, Capability};

/// What was found out when the backend started. `Err` holds the reason.
pub(crate) struct Findings<'a> {
    pub(crate) cgroups: Result<&'a Cgroups, &'a str>,
    pub(crate) pool: Result<(), &'a str>,
    pub(crate) root: bool,
    pub(crate) idmap: bool,
    pub(crate) landlock_abi: u32,
}

const AS_ROOT: &str = "the daemon runs as an ordinary user; start it as root for this";

/// Turns findings into capabilities.
pub(crate) fn capabilities(findings: &Findings<'_>) -> Capabilities {
    use Capability as C;
    let mut found = Capabilities::default();
    for always in [
        C::Pty,
        C::Reattach,
        C::DiskLimit,
        C::InodeLimit,
        C::OpenFilesLimit,
        C::OutputRateLimit,
        C::NetworkNone,
        C::FileWatch,
        C::WritableRoot,
        C::TerminalLimit,
    ] {
        found.grant(always);
    }
    let mut when = |capability, condition: bool, otherwise: String| {
        if condition { found.grant(capability) } else { found.deny(capability, otherwise) }
    };
    let [memory, cpu, pids] = findings.cgroups.map_or([false; 3], Cgroups::holds);
    let no_controller = |name: &str| match findings.cgroups {
        Ok(_) => format!("the cgroup controller {name} is not available on this host"),
        Err(reason) => format!("no cgroups: {reason}"),
    };
    when(C::MemoryLimit, memory, no_controller("memory"));
    when(C::CpuLimit, cpu, no_controller("cpu"));
    when(C::Stats, findings.cgroups.is_ok(), no_controller("memory"));
    // Without groups RLIMIT_NPROC counts per user namespace, which each jail has (Linux 5.14).
    when(C::PidsLimit, pids || !findings.root, no_controller("pids"));
    when(C::Pause, findings.cgroups.is_ok_and(Cgroups::can_freeze), no_controller("freezer"));
    let pool =
        |what: &str| format!("{what} needs the btrfs pool: {}", findings.pool.err().unwrap_or(AS_ROOT));
    let mapped = findings.pool.is_ok() && findings.idmap;
    when(C::Snapshot, mapped, pool("a snapshot"));
    when(C::Fork, mapped, pool("a fork"));
    when(C::PrivateUserIds, findings.root, format!("all jails share the daemon's user id: {AS_ROOT}"));
    when(C::OtherUsers, findings.root, format!("a jail has one user: {AS_ROOT}"));
    when(C::TemplateImport, findings.root, AS_ROOT.to_owned());
    for (capability, name) in [(C::NetworkAllowlist, "allowlist"), (C::NetworkOpen, "open")] {
        when(
            capability,
            findings.root,
            format!(
                "the network policy {name} needs the daemon's sockets in a jail's network namespace: {AS_ROOT}"
            ),
        );
    }
    if findings.landlock_abi < 6 {
        tracing::info!(
            abi = findings.landlock_abi,
            "landlock has no scopes here; namespaces alone keep signals in"
        );
    }
    found
}
