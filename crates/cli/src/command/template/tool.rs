//! Programs of this machine that help: npm, tar, docker.

use crate::failure::Failure;
use crate::output::{self, progress::Progress};
use crate::signals;
use hostel_client::model::Template;
use hostel_client::{Client, ImportTemplate};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use tokio::process::{Child, Command};

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
    let archive = child.stdout.take().ok_or_else(missing)?;
    let bar = Progress::new("importing", size, false);
    let progress = |bytes| bar.add(bytes);
    let backend = import.backend.clone();
    let made = client.import_template(import, hostel_client::counted(archive, &progress)).await;
    drop(bar);
    match (finish(child, command).await, made) {
        (Ok(_), made) => Ok(made?),
        // Half an archive may look like a whole one.
        (Err(failure), Ok(template)) => {
            client.delete_template_of(&template.name, backend.as_ref()).await?;
            Err(failure)
        }
        (Err(failure), Err(refused)) => {
            if failure.reason() != UNREAD {
                output::note(&failure.message());
            }
            Err(refused.into())
        }
    }
}
