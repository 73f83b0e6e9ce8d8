//! The network namespace of a container, found without the engine, which may be away.

use hostel_sandbox::{Error, Result};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

/// Most bytes of a process's list of control groups.
const MOST: u64 = 64 << 10;

/// The network namespace of a process that is said to be in a container.
///
/// # Errors
/// `Unavailable` where the process is gone; `Internal` where it is in no control group of that container: then it is
/// somebody else's, whatever the container's own programs made us believe.
pub(crate) fn of_container(process: u32, container: &str) -> Result<OwnedFd> {
    let gone = |detail: String| Error::Unavailable { what: "guest", detail };
    let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
    // What is opened below it is this process's, or nothing once it has ended, whoever gets its number.
    let directory = open(format!("/proc/{process}").as_str(), flags, Mode::empty())
        .map_err(|errno| gone(format!("its process {process} is gone: {errno}")))?;
    let open = |name: &str| {
        openat(&directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| gone(format!("open {name} of its process {process}: {errno}")))
    };
    let mut groups = String::new();
    File::from(open("cgroup")?)
        .take(MOST)
        .read_to_string(&mut groups)
        .map_err(|error| Error::internal("read the control groups of a container", error))?;
    let namespace = open("ns/net")?;
    if !is_in(&groups, container) {
        let detail = "the process at its guest's socket is not in the container";
        return Err(Error::internal("find the network namespace of a container", detail));
    }
    Ok(namespace)
}

/// Whether a group in the list (cgroups(7)) is that of the container, or below it. Engines name it `ID`, `docker-ID.scope`
/// and the like; an id has 64 digits, so that no other name holds it by chance.
fn is_in(groups: &str, container: &str) -> bool {
    container.len() == 64 && groups.lines().any(|line| line.split('/').any(|group| group.contains(container)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_belongs_to_a_container_by_its_groups() {
        let id = "0123456789abcdef".repeat(4);
        assert!(is_in(&format!("12:pids:/docker/{id}\n1:name=systemd:/docker/{id}/below\n"), &id));
        assert!(is_in(&format!("0::/system.slice/docker-{id}.scope\n"), &id));
        for groups in ["0::/\n", "", "0::/user.slice\n"] {
            assert!(!is_in(groups, &id) && !is_in(groups, ""), "{groups}");
        }
        // This one is in none.
        let error = of_container(std::process::id(), &id).unwrap_err();
        assert_eq!(error.reason(), "INTERNAL");
    }
}
