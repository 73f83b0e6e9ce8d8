//! The disk of the daemon's state is full: it says so, nothing is lost, and when there is space again it goes on.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Setup, TestDaemon, skip};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system, which goes away with its test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=24m,mode=0700", "hostel-test"];
        let mounted = Command::new("mount").args(options).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(path))
    }

    /// Takes all the space that there is.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn says_full(stderr: &str) -> bool {
    let stderr = stderr.to_lowercase();
    stderr.contains("no space left") || stderr.contains("disk is full") || stderr.contains("disk limit")
}

fn archive(directory: &Path) -> PathBuf {
    let root = directory.join("rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/large"), vec![7; 40 << 20]).unwrap();
    root
}

/// A daemon that looks at no budget of disk: these disks are smaller than what a sandbox may use by default.
fn unbounded() -> Setup {
    let arguments = ["--overcommit", "disk=inf"].map(Into::into).to_vec();
    Setup { arguments, ..Setup::default() }
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let mut daemon = TestDaemon::prepare(unbounded());
    let Some(disk) = SmallDisk::mount(daemon.state()) else {
        skip("nothing can be mounted here");
        return;
    };
    daemon.restart();
    let kept = daemon.sandbox(&[]);
    let _ = daemon.shell(&kept, "echo here > /workspace/file");
    let process =
        daemon.hostel(&["exec", "-d", &kept, "--", "sh", "-c", "while :; do echo tick; sleep 0.05; done"]);
    let process = process.success().to_owned();

    // An import that does not fit leaves nothing.
    let place = tempfile::tempdir().unwrap();
    let root = archive(place.path());
    let import = ["template", "import", "large", root.to_str().unwrap()];
    let refused = daemon.hostel(&import);
    assert!(says_full(refused.failure(125)), "{refused:?}");
    assert!(!daemon.hostel(&["template", "list", "-q"]).success().contains("large"));

    disk.fill();
    // Some succeed as long as there is room in what was taken before; those that do not say why.
    let mut told = 0;
    for _ in 0..300 {
        let outcome = daemon.hostel(&["sandbox", "create", "-q"]);
        if outcome.code != Some(0) {
            assert!(says_full(outcome.failure(125)), "{outcome:?}");
            told += 1;
        }
        if told > 5 {
            break;
        }
    }
    assert!(told > 5, "300 sandboxes on a full disk");
    // What needs no record goes on.
    let read = |path: &str| daemon.hostel(&["cp", &format!("{kept}:{path}"), "-"]);
    assert_eq!(read("/workspace/file").success(), "here");
    assert!(daemon.hostel(&["ps", &kept]).success().contains(&process));
    let start = daemon.hostel(&["--json", "exec", &kept, "--", "true"]);
    if start.code != Some(0) {
        assert!(says_full(&start.stderr) && start.stderr.contains("LIMIT_REACHED"), "{start:?}");
    }
    // Killed now, it starts again: at the latest when there is space.
    daemon.kill();
    disk.free();
    daemon.restart();
    assert_eq!(daemon.shell(&kept, "cat /workspace/file"), "here");
    assert!(daemon.hostel(&["ps", &kept]).success().contains("running"));
    let _ = daemon.hostel(&["run", "--", "true"]).success();

    disk.fill();
    let outcome = daemon.hostel(&["sandbox", "rm", &kept]);
    disk.free();
    if outcome.code != Some(0) {
        assert!(says_full(&outcome.stderr), "{outcome:?}");
    }
    let _ = daemon.hostel(&["run", "--", "true"]).success();
    daemon.finish();
}

#[test]
fn a_daemon_that_finds_no_space_says_so_and_ends() {
    let mut daemon = TestDaemon::prepare(unbounded());
    let Some(disk) = SmallDisk::mount(daemon.state()) else {
        skip("nothing can be mounted here");
        return;
    };
    disk.fill();
    daemon.launch();
    let status = daemon.ended();
    assert!(!status.success() && says_full(&daemon.log()), "{status:?}: {}", daemon.log());
    disk.free();
    daemon.restart();
    let _ = daemon.hostel(&["run", "--", "true"]).success();
    daemon.finish();
}
