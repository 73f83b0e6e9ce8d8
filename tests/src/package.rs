//! The real agent CLI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the repository is.
///
/// # Panics
/// Never: tests are below it.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The package of the claude CLI as npm has it, fetched once.
///
/// # Errors
/// What npm said where it could not be fetched.
///
/// # Panics
/// Where the repository is not as it should be.
pub fn package() -> Result<PathBuf, String> {
    let pins = fs::read_to_string(root().join("images/pins")).expect("images/pins");
    let platform = if cfg!(target_arch = "x86_64") { "linux-x64" } else { "linux-arm64" };
    let line =
        pins.lines().find(|line| line.starts_with("claude ") && line.contains(platform)).expect("a pin");
    let words: Vec<&str> = line.split_whitespace().collect();
    let cache = root().join(".cache/npm");
    fs::create_dir_all(&cache).expect("a cache");
    let file = cache.join(format!("claude-{}-{platform}.tgz", words[1]));
    if file.exists() {
        return Ok(file);
    }
    let place = tempfile::tempdir_in(&cache).expect("a directory");
    let npm = Command::new("npm")
        .args(["pack", "--silent", "--ignore-scripts", &format!("{}@{}", words[3], words[1])])
        .current_dir(place.path())
        .output()
        .map_err(|error| format!("npm: {error}"))?;
    if !npm.status.success() {
        return Err(String::from_utf8_lossy(&npm.stderr).into_owned());
    }
    let name = String::from_utf8_lossy(&npm.stdout).trim().to_owned();
    fs::rename(place.path().join(name), &file).expect("a file in the cache");
    Ok(file)
}
