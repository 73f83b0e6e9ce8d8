//! Programs of this machine that help: npm, tar, docker.

use crate::failure::Failure;
use crate::output::{self, progress::Progress};
use crate::signals;
use hostel_client::model::Template;
use hostel_client::{Client, ImportTemplate};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::{Child, ChildStdout, Command};

/// The reason of a program that failed because nobody read what it wrote.
const UNREAD: &str = "TOOL_UNREAD";

/// A program that dies with us.
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Starts it.
///
/// # Errors
/// Where it is not there; `without` says what to do then.
pub(super) fn start(command: &mut Command, without: &str) -> Result<Child, Failure> {
    command.spawn().map_err(|error| {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        Failure::other("TOOL_MISSING", format!("cannot start {program}: {error}; {without}"))
    })
}

/// Runs it to its end and gives what it wrote to stdout. What it writes to stderr is told where it fails.
///
/// # Errors
/// Where it is not there, or fails.
pub(super) async fn output(command: &mut Command, without: &str) -> Result<String, Failure> {
    let child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()), without)?;
    finish(child, command).await
}

/// The same for one that shows on our stderr what it does.
///
/// # Errors
/// As for [`output`].
pub(super) async fn output_shown(command: &mut Command, without: &str) -> Result<String, Failure> {
    let child = start(command.stdout(Stdio::piped()).stderr(Stdio::inherit()), without)?;
    finish(child, command).await
}

/// Waits for its end.
///
/// # Errors
/// Where it fails, with what it said.
pub(super) async fn finish(child: Child, command: &Command) -> Result<String, Failure> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| Failure::other("TOOL_FAILED", format!("cannot wait for {program}: {error}")))?;
    if output.status.signal() == Some(signals::PIPE) {
        return Err(Failure::other(UNREAD, format!("nobody read what {program} wrote")));
    }
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.trim().lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].join("\n");
    let colon = if tail.is_empty() { "" } else { ": " };
    Err(Failure::other("TOOL_FAILED", format!("{program} failed ({}){colon}{tail}", output.status)))
}

/// What a program writes. It ends in a failure where the program does: half an archive may look like a whole one.
struct Written<'a> {
    output: ChildStdout,
    /// Its end, until that is known.
    ended: Option<Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send + 'a>>>,
}

impl AsyncRead for Written<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(ended) = &mut self.ended else { return Poll::Ready(Ok(())) };
        let status = ready!(ended.as_mut().poll(context))?;
        if !status.success() {
            return Poll::Ready(Err(io::Error::other(format!("the program failed ({status})"))));
        }
        self.ended = None;
        Poll::Ready(Ok(()))
    }
}

/// Imports the archive that a program writes to stdout; `size` is about how long it is.
///
/// # Errors
/// The daemon's refusal, which also ends the program; or why the program failed, and then nothing is left.
pub(super) async fn import(
    client: &Client,
    import: ImportTemplate,
    command: &mut Command,
    without: &str,
    size: Option<u64>,
) -> Result<Template, Failure> {
    let mut child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()), without)?;
    let missing = || Failure::other("TOOL_FAILED", "a program without output");
    let output = child.stdout.take().ok_or_else(missing)?;
    let archive = Written { output, ended: Some(Box::pin(child.wait())) };
    let bar = Progress::new("importing", size, false);
    let progress = |bytes| bar.add(bytes);
    let made = client.import_template(import, hostel_client::counted(archive, &progress)).await;
    drop(bar);
    match (finish(child, command).await, made) {
        (Ok(_), made) => Ok(made?),
        // The upload was broken off because the program failed.
        (Err(failure), Ok(_) | Err(hostel_client::Error::Local { .. })) => Err(failure),
        (Err(failure), Err(refused)) => {
            if failure.reason() != UNREAD {
                output::note(&failure.message());
            }
            Err(refused.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    async fn read(script: &str) -> io::Result<String> {
        let mut sh = command("sh");
        let mut child = sh.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let mut text = String::new();
        let mut written = Written { output, ended: Some(Box::pin(child.wait())) };
        written.read_to_string(&mut text).await.map(|_| text)
    }

    #[tokio::test]
    async fn what_a_program_wrote_that_failed_is_not_whole() {
        assert_eq!(read("echo all").await.unwrap(), "all\n");
        assert!(read("echo half; exit 3").await.unwrap_err().to_string().contains("exit status: 3"));
    }
}
