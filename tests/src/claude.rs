//! Daemons that have the agent CLI, and a model behind their gateway.

use crate::outcome::executable;
use crate::{Outcome, Setup, TestDaemon, package, root};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// What installing the CLI may take, on a busy machine.
const INSTALLATION: Duration = Duration::from_secs(120);

/// Declares a gateway that asks the model at a URL with a key, in files below `place`. → What a daemon needs of it in
/// its environment.
///
/// # Panics
/// Where the files cannot be written.
#[must_use]
pub fn gateway(place: &Path, model: &str, key: &str) -> (&'static str, OsString) {
    let (key_file, file) = (place.join("key"), place.join("gateway.toml"));
    fs::write(&key_file, key).expect("a key");
    let key_file = key_file.display();
    let upstream =
        format!("[[upstream]]\nname = \"scripted\"\nbase_url = \"{model}\"\nkey_file = \"{key_file}\"\n");
    fs::write(&file, upstream).expect("a declaration");
    ("HOSTEL_GATEWAY", file.into_os_string())
}

impl TestDaemon {
    /// Starts one that has the template `claude`, as an earlier daemon of the same build left it: installing it takes
    /// longer than most tests.
    ///
    /// # Errors
    /// Why the CLI cannot be fetched.
    ///
    /// # Panics
    /// Where it cannot be installed, or the daemon does not answer.
    pub fn with_claude(setup: Setup) -> Result<Self, String> {
        let installed = installed(&package()?);
        let mut daemon = Self::prepare(setup);
        copy(&installed, &templates(&daemon), &["--link"]);
        daemon.restart();
        Ok(daemon)
    }
}

/// Where a daemon keeps the templates of jails.
fn templates(daemon: &TestDaemon) -> PathBuf {
    daemon.state().join("jail/templates")
}

/// The templates of a daemon that has the CLI. Made by whoever is first; others wait.
fn installed(package: &Path) -> PathBuf {
    let cache = root().join(".cache/templates");
    fs::create_dir_all(&cache).expect("a cache");
    let lock = File::create(cache.join("lock")).expect("a file to lock");
    lock.lock().expect("a lock");
    let made = cache.join(key(package));
    if made.exists() {
        return made;
    }
    for entry in fs::read_dir(&cache).expect("the cache").flatten() {
        // Of earlier builds.
        let _ = fs::remove_dir_all(entry.path());
    }
    let mut daemon = TestDaemon::start();
    let install = ["template", "install-cli", "--archive", package.to_str().expect("a path in UTF-8")];
    assert_eq!(Outcome::within(INSTALLATION, daemon.command(&install)).success(), "claude");
    daemon.finish();
    let new = cache.join("new");
    copy(&templates(&daemon), &new, &["--reflink=auto"]);
    fs::rename(new, &made).expect("a place in the cache");
    made
}

/// What says that templates were made of the same package by the same programs.
fn key(package: &Path) -> String {
    let made = |path: &Path| {
        let time = fs::metadata(path).and_then(|found| found.modified()).expect("a file");
        time.duration_since(UNIX_EPOCH).expect("a time").as_nanos()
    };
    let package_name = package.file_stem().expect("a file").to_string_lossy();
    format!("{package_name}-{}-{}", made(&executable("hosteld")), made(&executable("hostel")))
}

/// Copies a directory with all owners, modes and times. Who only links must not write to what it gets.
fn copy(from: &Path, to: &Path, how: &[&str]) {
    DirBuilder::new().recursive(true).mode(0o700).create(to).expect("a directory");
    let mut cp = Command::new("cp");
    cp.arg("--archive").args(how).arg(from.join(".")).arg(to);
    let _ = Outcome::of(cp).success();
}
