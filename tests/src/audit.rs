//! Looks for what a daemon left on the host.

use crate::TestDaemon;
use std::fs;
use std::path::{Path, PathBuf};

/// What a test itself mounted.
const OF_A_TEST: &str = " - tmpfs hostel-test ";

/// Everything of a stopped daemon that is still on the host but its state directory, one line each.
#[must_use]
pub fn leftovers(daemon: &TestDaemon) -> Vec<String> {
    let instance = fs::read_to_string(daemon.state().join("jail/instance")).expect("the daemon had jails");
    let mut left = Vec::new();
    left.extend(cgroups(&instance));
    left.extend(id_ranges(&instance));
    left.extend(processes(daemon, &instance));
    left.extend(mounts_and_devices(daemon.home()));
    for (place, path) in [
        ("sockets", daemon.runtime().join("jail/cells")),
        ("spilled output", daemon.state().join("jail/spill")),
    ] {
        left.extend(entries(&path).into_iter().map(|path| format!("{place}: {}", path.display())));
    }
    left
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn cgroups(instance: &str) -> Vec<String> {
    let hierarchies =
        entries(Path::new("/sys/fs/cgroup")).into_iter().chain([PathBuf::from("/sys/fs/cgroup")]);
    hierarchies
        .map(|hierarchy| hierarchy.join("hostel").join(instance))
        .filter(|group| group.exists())
        .map(|group| format!("cgroup: {}", group.display()))
        .collect()
}

fn id_ranges(instance: &str) -> Vec<String> {
    let of_ours = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|owner| owner == instance);
    entries(Path::new("/run/hostel-ids"))
        .into_iter()
        .filter(of_ours)
        .map(|path| format!("user ids: {}", path.display()))
        .collect()
}

/// Processes in our cgroups, and those that name our directories: the daemon, its zygote.
fn processes(daemon: &TestDaemon, instance: &str) -> Vec<String> {
    let home = daemon.home().display().to_string();
    entries(Path::new("/proc"))
        .into_iter()
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        })
        .filter(|path| {
            let read = |file: &str| {
                fs::read(path.join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            read("cgroup").is_ok_and(|text| text.contains(instance))
                || read("environ").is_ok_and(|text| text.contains(&home))
        })
        .map(|path| {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            format!("process: {} {}", path.display(), name.trim())
        })
        .collect()
}

fn mounts_and_devices(home: &Path) -> Vec<String> {
    let home = home.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut left: Vec<String> = mounts
        .lines()
        .filter(|line| line.contains(&home) && !line.contains(OF_A_TEST))
        .map(|line| format!("mount: {line}"))
        .collect();
    for device in entries(Path::new("/sys/block")) {
        if fs::read_to_string(device.join("loop/backing_file")).is_ok_and(|file| file.contains(&home)) {
            left.push(format!("loop device: {}", device.display()));
        }
    }
    left
}
