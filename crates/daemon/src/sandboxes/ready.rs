//! What a template has done in a new sandbox before anybody sees it: start commands, and a probe.

use crate::error::{Error, Result};
use hostel_sandbox::process::{AttachOptions, ExitReason, ExitStatus, Output, OutputStream, ProcessSpec};
use hostel_sandbox::template::{Probe, Template};
use hostel_sandbox::{Error as DomainError, ExecutionEnvironment, ProcessId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Most of a failed command's output that is told, in bytes.
const TAIL: u64 = 2048;
/// How long the rest of a failed command's output may take to come: a child of it may hold the stream open.
const TAIL_WAIT: Duration = Duration::from_millis(500);

/// A command that did not exit with 0.
#[derive(Debug)]
pub(super) struct Unsuccessful {
    /// As `ExitStatus::shell_code`.
    pub exit_code: i32,
    /// How it ended and the last of what it wrote.
    pub text: String,
}

/// Runs the start commands and waits for the probe.
///
/// # Errors
/// [`Error::CommandFailed`] with the tail of the output; what the sandbox answers where a command cannot be run.
pub(super) async fn prepare(
    environment: &Arc<dyn ExecutionEnvironment>,
    template: Option<&Template>,
) -> Result<()> {
    let Some(template) = template else { return Ok(()) };
    for (step, command) in template.start_commands.iter().enumerate() {
        let failed = |exit_code, text: String| Error::CommandFailed {
            reason: "START_COMMAND_FAILED",
            message: format!(
                "start command {} of the template {}, {:?}, {text}",
                step + 1,
                template.id,
                shown(&command.argv)
            ),
            step: u32::try_from(step).ok(),
            exit_code,
        };
        match run(environment, command.process()).await {
            Ok(None) => {}
            Ok(Some(ended)) => return Err(failed(Some(ended.exit_code), ended.text)),
            Err(error) => return Err(failed(None, format!("cannot be run: {error}"))),
        }
    }
    match &template.probe {
        Some(probe) => wait_until_ready(environment, template, probe).await,
        None => Ok(()),
    }
}

async fn wait_until_ready(
    environment: &Arc<dyn ExecutionEnvironment>,
    template: &Template,
    probe: &Probe,
) -> Result<()> {
    let deadline = Instant::now() + probe.timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
        let mut spec = probe.command.process();
        spec.timeout = Some(probe.command.timeout.unwrap_or(left).min(left));
        let (exit_code, text) = match run(environment, spec).await {
            Ok(None) => return Ok(()),
            Ok(Some(ended)) => (Some(ended.exit_code), ended.text),
            Err(error @ (DomainError::NotFound { .. } | DomainError::InvalidArgument { .. })) => {
                (None, format!("cannot be run: {error}"))
            }
            Err(error) => return Err(error.into()),
        };
        // A program that is not there now may be there later.
        if Instant::now() + probe.interval >= deadline {
            let (timeout, command) = (probe.timeout, shown(&probe.command.argv));
            let message = format!(
                "a sandbox of the template {} was not ready within {timeout:?}: its probe {command:?} {text}",
                template.id
            );
            return Err(Error::CommandFailed { reason: "PROBE_FAILED", message, step: None, exit_code });
        }
        tokio::time::sleep(probe.interval).await;
    }
}

/// Runs a command to its end. What it leaves running, with its output open or not, goes on.
async fn run(
    environment: &Arc<dyn ExecutionEnvironment>,
    spec: ProcessSpec,
) -> hostel_sandbox::Result<Option<Unsuccessful>> {
    let inside = environment.inside()?;
    let process = inside.start(spec).await?.id;
    let ended = inside.wait(&process).await?;
    let exit = ended.exit.ok_or_else(|| DomainError::internal("wait for a command", "it has no end"))?;
    if exit.reason == ExitReason::Exited && exit.code == Some(0) {
        return Ok(None);
    }
    let tail = tail(environment, &process).await.unwrap_or_default();
    Ok(Some(Unsuccessful { exit_code: exit.shell_code(), text: told(&exit, &tail) }))
}

/// How a command ended, and the last of what it wrote, for people.
pub(super) fn told(exit: &ExitStatus, tail: &str) -> String {
    let how = match exit.reason {
        ExitReason::TimedOut => "did not end in time".to_owned(),
        ExitReason::OutOfMemory => "ran out of memory".to_owned(),
        ExitReason::SandboxGone => "ended with its sandbox".to_owned(),
        ExitReason::Signaled => format!("was ended by signal {}", exit.signal.unwrap_or_default()),
        ExitReason::Exited => format!("exited with {}", exit.shell_code()),
    };
    match tail.trim() {
        "" => format!("{how} and wrote nothing"),
        tail => format!("{how}: {tail}"),
    }
}

/// The last that a process wrote, standard error after standard output.
async fn tail(environment: &Arc<dyn ExecutionEnvironment>, id: &ProcessId) -> hostel_sandbox::Result<String> {
    let info = environment.inside()?.process(id).await?;
    let options = AttachOptions {
        stdout_from: Some(info.stdout.end.saturating_sub(TAIL).max(info.stdout.start)),
        stderr_from: Some(info.stderr.end.saturating_sub(TAIL).max(info.stderr.start)),
        ..AttachOptions::default()
    };
    let mut attachment = environment.inside()?.attach(id, options).await?;
    let mut streams = [Tail::default(), Tail::default()];
    let read = async {
        while let Some(Ok(output)) = attachment.output.recv().await {
            match output {
                Output::Data { stream: OutputStream::Stdout, data, .. } => streams[0].add(&data),
                Output::Data { stream: OutputStream::Stderr, data, .. } => streams[1].add(&data),
                Output::Exited(_) => break,
                _ => {}
            }
        }
    };
    // What came in time is enough.
    let _ = tokio::time::timeout(TAIL_WAIT, read).await;
    let [stdout, stderr] = streams.map(Tail::text);
    Ok([stdout.trim(), stderr.trim()].join("\n"))
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub(super) fn add(&mut self, data: &[u8]) {
        self.0.extend(data);
        let most = usize::try_from(TAIL).unwrap_or(usize::MAX);
        let surplus = self.0.len().saturating_sub(most);
        self.0.drain(..surplus);
    }

    /// As text, without what would play tricks on a terminal.
    pub(super) fn text(self) -> String {
        let bytes: Vec<u8> = self.0.into();
        let text = String::from_utf8_lossy(&bytes);
        text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
    }
}

/// A command line for people, not too long.
pub(super) fn shown(argv: &[String]) -> String {
    let line = argv.join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end_and_no_escape_sequences() {
        let mut tail = Tail::default();
        tail.add(&vec![b'a'; 3000]);
        tail.add(b"\x1b[31mend\n");
        let text = tail.text();
        assert!(text.ends_with("a[31mend\n") && text.len() <= 2048, "{}", text.len());
    }

    #[test]
    fn long_commands_are_cut_between_characters() {
        assert_eq!(shown(&["echo".to_owned(), "ä".repeat(300)]).chars().count(), 201);
    }
}
