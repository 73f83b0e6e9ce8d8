//! Programs of the host that do what has no good library: making and mounting file systems, copying trees.

use hostel_sandbox::{Error, Result};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Where programs of an administrator are; a service's PATH may lack the second half.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Most of what a program says that is passed on.
const MOST_SAID: usize = 500;

/// Whether this host has a program.
pub(crate) fn has(program: &str) -> bool {
    PLACES.iter().any(|place| Path::new(place).join(program).exists())
}

/// A command with a plain environment that ends when nobody waits for it any more.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", PLACES.join(":"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a program to its end.
///
/// # Errors
/// `Internal` with what it said; `LimitReached` for a full disk; `DeadlineExceeded`.
pub(crate) async fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
    deadline: Duration,
) -> Result<()> {
    let mut command = command(program);
    command.args(arguments);
    finish(program, &mut command, deadline).await
}

/// Runs a prepared command to its end.
///
/// # Errors
/// As [`run`].
pub(crate) async fn finish(program: &str, command: &mut Command, deadline: Duration) -> Result<()> {
    let failed = |error: std::io::Error| Error::internal(format!("run {program}"), error);
    let output = tokio::time::timeout(deadline, command.output())
        .await
        .map_err(|_| Error::DeadlineExceeded { what: program.to_owned() })?
        .map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(MOST_SAID).collect();
    if said.contains("No space left") || said.contains("Disk quota exceeded") {
        return Err(Error::LimitReached { what: "disk", detail: said });
    }
    Err(Error::internal(format!("run {program}"), said))
}
