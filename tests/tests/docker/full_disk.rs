//! The engine's disk is full, or ours: that is said, and no half-made container stays.

use crate::setup::{daemon_on, prepared_on, refusal};
use hostel_tests::{TestEngine, docker, eventually, shared_engine, skip};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system, which goes away with its test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, options: &[&str], what: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(options).arg(what).arg(path).status();
        assert!(mounted.unwrap().success(), "mount {options:?} {what}");
        Self(path.to_owned())
    }

    /// Takes all the space that there is.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[1; 64 << 10]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
        let _ = file.sync_all();
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

fn says_full(refused: &serde_json::Value) {
    let told = refused.to_string();
    assert!(told.to_lowercase().contains("no space left on device"), "{told}");
    assert_eq!(refused["reason"], "LIMIT_REACHED", "{told}");
}

#[test]
fn a_full_disk_of_the_engine_is_told_and_nothing_half_made_stays() {
    let Some(mut engine) = TestEngine::prepare(&[]) else { return };
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("disk");
    File::create(&image).unwrap().set_len(700 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).status();
    assert!(made.unwrap().success());
    let disk = SmallDisk::mount(&engine.data(), &["-o", "loop"], &image.display().to_string());
    engine.restart();
    engine.load();
    let mut daemon = daemon_on(&engine.host(), engine.image());
    let before = daemon.sandbox(&["--backend", "docker"]);
    disk.fill();
    for _ in 0..2 {
        says_full(&refusal(&daemon, &[]));
    }
    assert_eq!(daemon.shell(&before, "echo undisturbed"), "undisturbed");
    let containers = || engine.docker(&["ps", "--all", "--quiet"]).success().lines().count();
    eventually("only the one that was there is", || containers() == 1);
    disk.free();
    assert_eq!(daemon.hostel(&["run", "--backend", "docker", "--", "echo", "again"]).success(), "again");
    daemon.finish();
    assert_eq!(containers(), 0);
    drop(engine);
}

#[test]
fn a_full_disk_of_the_daemon_is_told_and_nothing_half_made_stays() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = prepared_on(&host, &image);
    let options = ["-t", "tmpfs", "-o", "size=12m,mode=0700"];
    let disk = SmallDisk::mount(&daemon.state().join("docker/disks"), &options, "hostel-test");
    daemon.restart();
    let instance = crate::setup::instance(&daemon);
    let before = daemon.sandbox(&["--backend", "docker", "--disk", "1G"]);
    let keeps_disks = fs::read_dir(&disk.0).unwrap().count() > 0;
    let _ = daemon.hostel(&["sandbox", "rm", &before]).success();
    if !keeps_disks {
        skip("this engine caps what containers write itself, on no disk of the daemon's");
        return daemon.finish();
    }
    disk.fill();
    says_full(&refusal(&daemon, &["--disk", "1G"]));
    let filter = format!("label=hostel.instance={instance}");
    eventually("no container stays", || {
        docker(&host, &["ps", "--all", "--quiet", "--filter", &filter]).success().is_empty()
    });
    assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 1, "only the filler");
    disk.free();
    assert_eq!(daemon.hostel(&["run", "--backend", "docker", "--", "echo", "again"]).success(), "again");
    daemon.finish();
}
