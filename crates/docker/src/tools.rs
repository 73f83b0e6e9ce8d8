//! Programs of the host that do what has no good library: making and mounting file systems, copying and packing trees.

use bytes::Bytes;
use hostel_sandbox::{Error, Result};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// Where programs of an administrator are; a service's PATH may lack the second half.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Most of what a program says that is passed on.
const MOST_SAID: usize = 500;
/// Bytes of an archive read at once.
const PIECE: usize = 256 << 10;

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

/// A `tar` that packs a tree. It ends when this is dropped.
pub(crate) struct Packer {
    child: Child,
    archive: ChildStdout,
    complaints: ChildStderr,
    /// The last of what it said.
    said: Vec<u8>,
    /// Whether it may say more.
    talks: bool,
}

impl Packer {
    /// Starts it; `arguments` say what is packed and how. Sockets are left out.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Self> {
        let mut tar = command("tar");
        tar.args(["--create", "--numeric-owner", "--warning=no-file-ignored"])
            .args(arguments)
            .stdout(Stdio::piped());
        let mut child = tar.spawn().map_err(failed)?;
        let (Some(archive), Some(complaints)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Self { child, archive, complaints, said: Vec::new(), talks: true })
    }

    /// The next bytes of the archive; `None` at its end. What it says meanwhile is heard, so that it never waits for
    /// somebody to listen.
    ///
    /// # Errors
    /// `Internal` with the last of what it said.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut piece = vec![0; PIECE];
        let mut words = [0; 1024];
        loop {
            tokio::select! {
                read = self.archive.read(&mut piece) => match read.map_err(failed)? {
                    0 => break,
                    count => {
                        piece.truncate(count);
                        return Ok(Some(piece.into()));
                    }
                },
                heard = self.complaints.read(&mut words), if self.talks => self.hear(&words, heard),
            }
        }
        while self.talks {
            let heard = self.complaints.read(&mut words).await;
            self.hear(&words, heard);
        }
        let status = self.child.wait().await.map_err(failed)?;
        if status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&self.said);
        Err(Error::internal("pack a directory", format!("tar ended with {status}: {}", said.trim())))
    }

    fn hear(&mut self, words: &[u8], heard: io::Result<usize>) {
        let count = heard.unwrap_or(0);
        self.talks = count > 0;
        self.said.extend_from_slice(words.get(..count).unwrap_or_default());
        let surplus = self.said.len().saturating_sub(MOST_SAID);
        self.said.drain(..surplus);
    }
}

fn failed(error: io::Error) -> Error {
    Error::internal("pack a directory", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pack(directory: &Path) -> Result<usize> {
        let mut packer = Packer::start([OsStr::new("--directory"), directory.as_os_str(), OsStr::new(".")])?;
        let mut total = 0;
        while let Some(piece) = packer.next().await? {
            total += piece.len();
        }
        Ok(total)
    }

    #[tokio::test]
    async fn a_packer_that_has_much_to_say_goes_on() {
        let home = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(home.path().join("socket")).unwrap();
        std::fs::write(home.path().join("file"), "content").unwrap();
        assert!(pack(home.path()).await.unwrap() > 1024);
        // More than a pipe holds, and nobody else reads it.
        let name = "s".repeat(60);
        let missing: Vec<String> = (0..1200).map(|number| format!("{name}-missing-{number}")).collect();
        let mut packer = Packer::start(&missing).unwrap();
        let failed = loop {
            match packer.next().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        let error = failed.unwrap_err().to_string();
        assert!(error.contains("tar ended with") && error.contains("failure status"), "{error}");
        assert!(error.len() < 2 * MOST_SAID, "{}", error.len());
    }
}
