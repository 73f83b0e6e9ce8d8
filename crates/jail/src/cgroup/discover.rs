//! Finds the cgroup hierarchies of this host and makes our place in them.

use super::{Cgroups, Controller, SOCKETS, usable};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The directory that all instances of the daemon share.
const SHARED: &str = "hostel";
/// Where a daemon that has only its own group puts itself, beside its jails.
const LEAF: &str = "daemon";

/// Looks at what is mounted and makes a directory for this instance where it can.
///
/// # Errors
/// Says why there is none: jails then have no limits on memory, processor and processes.
pub(crate) fn discover(instance: &str) -> Result<Cgroups, String> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("read mounts: {error}"))?;
    let mut cgroups = Cgroups {
        unified: None,
        unified_controls: false,
        legacy: Vec::new(),
        counts_swap: false,
        limits_sockets: false,
    };
    let mut reasons = Vec::new();
    for (path, kind, options) in mounts.lines().filter_map(mount) {
        if kind == "cgroup2" && cgroups.unified.is_none() {
            match unified(&path, instance) {
                Ok((directory, controls)) => {
                    cgroups.unified = Some(directory);
                    cgroups.unified_controls = controls;
                }
                Err(reason) => reasons.push(reason),
            }
        } else if kind == "cgroup" {
            legacy(&mut cgroups, &path, &options, instance, &mut reasons);
        }
    }
    if cgroups.unified_controls {
        cgroups.legacy.clear();
    } else if cgroups.unified.is_some() {
        // Version 2 freezes and counts processor time by itself.
        drop_legacy(&mut cgroups, &[Controller::Freezer, Controller::CpuAccounting]);
    }
    if let Some(directory) = cgroups.legacy(Controller::Memory).cloned() {
        cgroups.counts_swap = directory.join("memory.memsw.limit_in_bytes").exists();
        if !cgroups.counts_swap {
            // Groups below start with it. Then nothing goes to swap that a limit of memory was to hold.
            let _ = fs::write(directory.join("memory.swappiness"), "0");
        }
        // No limit here; but the first group with one has the kernel rewrite its own code, and the last one that
        // goes has it rewritten again. This one stays.
        cgroups.limits_sockets = fs::write(directory.join(SOCKETS), "-1").is_ok();
    }
    if cgroups.unified.is_none() && cgroups.legacy.is_empty() {
        reasons.sort_unstable();
        reasons.dedup();
        return Err(if reasons.is_empty() {
            "no cgroup hierarchy is mounted".to_owned()
        } else {
            reasons.join("; ")
        });
    }
    Ok(cgroups)
}

fn drop_legacy(cgroups: &mut Cgroups, controllers: &[Controller]) {
    for (_, path) in cgroups.legacy.extract_if(.., |(controller, _)| controllers.contains(controller)) {
        let _ = fs::remove_dir(path);
    }
}

/// Mount point, file system type and super options of a line of mountinfo (proc(5)).
fn mount(line: &str) -> Option<(PathBuf, String, String)> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    let (kind, _source, options) = (after.next()?, after.next()?, after.next()?);
    Some((PathBuf::from(point), kind.to_owned(), options.to_owned()))
}

fn legacy(cgroups: &mut Cgroups, path: &Path, options: &str, instance: &str, reasons: &mut Vec<String>) {
    use Controller::{BlockIo, Cpu, CpuAccounting, Freezer, Memory, Pids};
    for controller in [Memory, Cpu, Pids, BlockIo, CpuAccounting, Freezer] {
        if !options.split(',').any(|option| option == controller.name()) {
            continue;
        }
        let directory = path.join(SHARED).join(instance);
        // cpu and cpuacct are often one hierarchy under two names: joining it once is enough.
        if cgroups.legacy.iter().any(|(_, known)| same_directory(known, &directory)) {
            continue;
        }
        match fs::create_dir_all(&directory) {
            Ok(()) => cgroups.legacy.push((controller, directory)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                reasons.push("only root may make groups of version 1".to_owned());
            }
            Err(error) => reasons.push(format!("make a group in {}: {error}", path.display())),
        }
    }
}

fn same_directory(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    identity(one).is_some() && identity(one) == identity(other)
}

/// Our directory in the version 2 hierarchy, and whether the controllers we need are on in it.
///
/// As root it is at the top, as Docker's is: below the daemon's own unit systemd could not start the unit again
/// while a jail is left there (it fails with 219/CGROUP; "no internal processes"). An ordinary user has only
/// what was delegated to the daemon's own group.
fn unified(mount: &Path, instance: &str) -> Result<(PathBuf, bool), String> {
    let base = if rustix::process::geteuid().is_root() && usable(mount) {
        mount.to_owned()
    } else {
        let own = own_group().ok_or("the daemon is in no cgroup of version 2")?;
        let delegated = mount.join(own.strip_suffix(&format!("/{LEAF}")).unwrap_or(&own));
        if !usable(&delegated) || delegated == mount {
            return Err(format!(
                "{} is not delegated to the daemon (Delegate=yes in its unit)",
                delegated.display()
            ));
        }
        leave_for_leaf(&delegated)?;
        delegated
    };
    let directory = base.join(SHARED).join(instance);
    fs::create_dir_all(&directory).map_err(|error| format!("make a group in {}: {error}", base.display()))?;
    let shared = base.join(SHARED);
    let wanted: Vec<&str> =
        ["memory", "cpu", "pids", "io"].into_iter().filter(|name| has(&base, name)).collect();
    for level in [&base, &shared, &directory] {
        for controller in &wanted {
            enable(level, controller)?;
        }
    }
    let controls = ["memory", "cpu", "pids"].iter().all(|name| wanted.contains(name));
    Ok((directory, controls))
}

/// The daemon's own group in the version 2 hierarchy, relative to its mount (cgroups(7)).
fn own_group() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::/").map(str::to_owned))
}

fn has(group: &Path, controller: &str) -> bool {
    fs::read_to_string(group.join("cgroup.controllers"))
        .is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
}

/// Turns a controller on for the groups below, unless it is on.
fn enable(group: &Path, controller: &str) -> Result<(), String> {
    let file = group.join("cgroup.subtree_control");
    let on = fs::read_to_string(&file).unwrap_or_default();
    if on.split_whitespace().any(|name| name == controller) {
        return Ok(());
    }
    fs::write(&file, format!("+{controller}"))
        .map_err(|error| format!("turn {controller} on in {}: {error}", file.display()))
}

/// A group with controllers for its children may hold no processes itself (cgroup v2, "No Internal Process
/// Constraint"): the daemon moves one level down.
fn leave_for_leaf(unit: &Path) -> Result<(), String> {
    let leaf = unit.join(LEAF);
    fs::create_dir_all(&leaf).map_err(|error| format!("make {}: {error}", leaf.display()))?;
    let processes = fs::read_to_string(unit.join("cgroup.procs")).unwrap_or_default();
    for process in processes.lines() {
        fs::write(leaf.join("cgroup.procs"), process)
            .map_err(|error| format!("move into {}: {error}", leaf.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read() {
        let line = "31 23 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory";
        let (path, kind, options) = mount(line).unwrap();
        assert_eq!(
            (path.to_str(), kind.as_str(), options.as_str()),
            (Some("/sys/fs/cgroup/memory"), "cgroup", "rw,memory")
        );
        assert!(mount("garbage").is_none());
    }
}
