//! The real CLI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the CLI is; fetched once from npm where it is not in the cache. `None`, with the reason printed, where it
/// cannot be.
pub(crate) fn claude() -> Option<PathBuf> {
    static CLAUDE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match CLAUDE.get_or_init(find) {
        Ok(path) => Some(path.clone()),
        Err(problem) => {
            println!("skipped: there is no claude CLI: {problem}");
            None
        }
    }
}

fn find() -> Result<PathBuf, String> {
    // To try another version by hand.
    if let Some(path) = std::env::var_os("HOSTEL_TEST_CLAUDE") {
        return Ok(PathBuf::from(path));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let pins = fs::read_to_string(root.join("images/pins")).expect("images/pins");
    let platform = if cfg!(target_arch = "x86_64") { "linux-x64" } else { "linux-arm64" };
    let line =
        pins.lines().find(|line| line.starts_with("claude ") && line.contains(platform)).expect("a pin");
    let words: Vec<&str> = line.split_whitespace().collect();
    let cache = root.join(".cache/images");
    // The same place as images/build.sh has.
    let directory = cache.join(format!("claude-{}-{platform}", words[1]));
    if !directory.exists() {
        fs::create_dir_all(&cache).expect("a cache");
        let place = tempfile::tempdir_in(&cache).expect("a directory");
        let package = format!("{}@{}", words[3], words[1]);
        let packed =
            run(Command::new("npm").args(["pack", "--silent", "--ignore-scripts", &package]), place.path())?;
        run(Command::new("tar").args(["-xzf", packed.trim(), "--no-same-owner"]), place.path())?;
        // Whoever else did the same at the same time has the same.
        if fs::rename(place.path().join("package"), &directory).is_err() && !directory.exists() {
            return Err("the package cannot be moved into the cache".to_owned());
        }
    }
    directory.join("claude").canonicalize().map_err(|error| error.to_string())
}

fn run(command: &mut Command, directory: &Path) -> Result<String, String> {
    let output = command.current_dir(directory).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
