//! Bubblewrap: namespaces around one command.

use super::timed;
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// `bwrap` with all namespaces, the host's `/usr`, and nothing else.
#[derive(Clone)]
pub(crate) struct Bwrap(());

impl Bwrap {
    pub(crate) fn find() -> Result<Self> {
        let bwrap = Self(());
        bwrap.run_true()?;
        Ok(bwrap)
    }

    /// Runs `true` in a sandbox of its own.
    pub(crate) fn run_true(&self) -> Result<Duration> {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-all", "--ro-bind", "/usr", "/usr"]);
        command.args(["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"]);
        if Path::new("/usr/lib64").exists() {
            command.args(["--symlink", "usr/lib64", "/lib64"]);
        }
        command.args(["--proc", "/proc", "--dev", "/dev", "true"]);
        timed(&mut command)
    }
}
