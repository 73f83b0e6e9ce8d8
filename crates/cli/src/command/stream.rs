//! A process's streams on ours, until it ends.

use crate::failure::Failure;
use crate::output::{self, human, json};
use crate::signals::{self, Event as SignalEvent, Signals};
use crate::terminal;
use hostel_client::domain::process::{ExitReason, OutputStream};
use hostel_client::model::{ExitStatus, Process};
use hostel_client::{Client, Error, Event, ExecInput, ExecOutput, ExecSession};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::Value;
use std::io::Read as _;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Stdout};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a process may take to end after a signal that asks us to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long we try to tell a daemon of a signal.
const PATIENCE: Duration = Duration::from_secs(2);
/// The reason for programs where stdin cannot be read.
const STDIN: &str = "STDIN";
/// Bytes of stdin read at a time.
const PIECE: usize = 64 << 10;

/// How to stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streaming {
    /// Pass stdin on.
    pub(crate) interactive: bool,
    /// Print frames as JSON lines.
    pub(crate) json: bool,
    /// Whether signals to us go to the process. Otherwise we leave and it goes on.
    pub(crate) forward_signals: bool,
    /// Whether to say that the connection broke, and that it is back.
    pub(crate) tell_of_reconnecting: bool,
}

/// How streaming ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The process did.
    Exited(ExitStatus),
    /// A signal made us leave; the process may go on.
    Left(i32),
}

/// Streams until the process has ended or we are told to leave. The terminal is as it was on every way out.
pub(crate) async fn stream(
    client: &Client,
    session: ExecSession,
    how: Streaming,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let ExecSession { process, input, output } = session;
    let raw = how.interactive && process.terminal && terminal::stdin_is_terminal();
    let _raw = if raw { Some(terminal::raw()?) } else { None };
    // Whoever only looks on leaves the size to whoever types.
    let sizes = process.terminal && (how.interactive || how.forward_signals);
    if sizes {
        resize(&input).await;
    }
    let mut feeding = JoinSet::new();
    if how.interactive {
        feeding.spawn(feed(input.clone()));
    }
    let mut link = output.link();
    let mut linked = how.tell_of_reconnecting;
    let mut connected = true;
    let ended = {
        let pump = pump(&process, output, how.json);
        tokio::pin!(pump);
        let mut leave = Leave { raw, ..Leave::default() };
        loop {
            tokio::select! {
                result = &mut pump => break result.map(Ended::Exited),
                signal = signals.next() => match signal {
                    SignalEvent::Resized if sizes => resize(&input).await,
                    SignalEvent::Resized => {}
                    SignalEvent::End(signal) if !how.forward_signals => break Ok(Ended::Left(signal)),
                    SignalEvent::End(signal) => match leave.forward(signal) {
                        Some(signal) => drop(timeout(PATIENCE, input.signal(signal)).await),
                        None => break Ok(Ended::Left(signal)),
                    },
                },
                Some(fed) = feeding.join_next() => if let Ok(Err(error)) = fed {
                    break Err(Failure::other(STDIN, format!("cannot read stdin: {error}")));
                },
                () = sleep_until(leave.deadline()), if leave.is_due() => break Ok(Ended::Left(leave.signal)),
                // Without a driver there is nothing more to tell.
                changed = link.changed(), if linked => match changed {
                    Ok(()) => tell_of_change(&mut connected, *link.borrow_and_update()),
                    Err(_) => linked = false,
                },
            }
        }
    };
    if how.tell_of_reconnecting && ended.is_ok() {
        // It may be back and at its end at the same time.
        tell_of_change(&mut connected, *link.borrow());
    }
    let signal = match &ended {
        // What would have happened to it in a pipeline here.
        Err(Failure::NobodyReads) => Some(signals::PIPE),
        // It must not take what it got for all.
        Err(Failure::Other { reason: STDIN, .. }) if how.forward_signals => Some(signals::KILL),
        _ => None,
    };
    if let Some(signal) = signal {
        let told = client.signal_process(&process.sandbox_id, &process.id, signal);
        let _ = timeout(PATIENCE, told).await;
    }
    ended
}

/// What signals to us come to: the first asks the process to end, the next kills it, another makes us leave.
#[derive(Debug, Default)]
struct Leave {
    /// Whether our terminal is the process's: then our end is to it as if its terminal were closed.
    raw: bool,
    received: u32,
    signal: i32,
    due: Option<Instant>,
}

impl Leave {
    /// The signal to send on; `None` when it is time to leave.
    fn forward(&mut self, signal: i32) -> Option<i32> {
        self.received += 1;
        self.signal = signal;
        if signal != signals::INTERRUPT || self.received > 1 {
            self.due.get_or_insert_with(|| Instant::now() + GRACE);
        }
        match self.received {
            1 if self.raw && signal != signals::INTERRUPT => Some(signals::HANGUP),
            1 => Some(signal),
            2 => Some(signals::KILL),
            _ => None,
        }
    }

    fn is_due(&self) -> bool {
        self.due.is_some()
    }

    fn deadline(&self) -> Instant {
        self.due.unwrap_or_else(Instant::now)
    }
}

/// Says that the connection broke, or that it is back, where it was not said before.
fn tell_of_change(told: &mut bool, connected: bool) {
    if std::mem::replace(told, connected) != connected {
        output::note(if connected {
            "connected to the daemon again"
        } else {
            "reconnecting to the daemon…"
        });
    }
}

async fn resize(input: &ExecInput) {
    if let Some(size) = terminal::size() {
        let _ = timeout(PATIENCE, input.resize(size)).await;
    }
}

/// Passes stdin on, as fast as the process reads it, and then its end.
///
/// # Errors
/// Why stdin cannot be read; its end is then not passed on, since it is none.
async fn feed(input: ExecInput) -> std::io::Result<()> {
    let (sender, mut pieces) = mpsc::channel(4);
    let mut reader = JoinSet::new();
    reader.spawn_blocking(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match read_stdin(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(buffer[..length].to_vec()),
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    while let Some(piece) = pieces.recv().await {
        if input.write(piece?).await.is_err() {
            return Ok(());
        }
    }
    let _ = input.close().await;
    Ok(())
}

/// Reads what there is, and waits until there is something, also where whoever shares stdin with us made it not wait.
fn read_stdin(buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut stdin = std::io::stdin().lock();
    loop {
        let error = match stdin.read(buffer) {
            Ok(length) => return Ok(length),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::INTR) => {}
            Some(Errno::AGAIN) => match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            },
            // A terminal that was closed.
            Some(Errno::IO) if terminal::stdin_is_terminal() => return Ok(0),
            _ => return Err(error),
        }
    }
}

/// Prints what comes until the process has ended.
async fn pump(process: &Process, mut output: ExecOutput, as_json: bool) -> Result<ExitStatus, Failure> {
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    if as_json {
        print(&mut stdout, &json::opened(process)).await?;
    }
    while let Some(event) = output.next().await {
        match event? {
            Event::Exited(status) => {
                if as_json {
                    print(&mut stdout, &json::exited(process, &status)).await?;
                }
                stdout.flush().await.map_err(|error| Failure::stdout(&error))?;
                let _ = stderr.flush().await;
                return Ok(status);
            }
            event if as_json => print(&mut stdout, &json::event(&event)).await?,
            Event::Output { stream: OutputStream::Stdout, data, .. } => {
                stdout.write_all(&data).await.map_err(|error| Failure::stdout(&error))?;
                // A prompt has no newline, for which the standard library would wait.
                stdout.flush().await.map_err(|error| Failure::stdout(&error))?;
            }
            Event::Output { stream: OutputStream::Stderr, data, .. } => {
                // Whoever closed stderr does not want to read it.
                let _ = stderr.write_all(&data).await;
            }
            Event::Gap { stream, missing } => {
                let bytes = missing.end - missing.start;
                let stream = json::name(stream);
                output::note(&format!("{bytes} bytes of {stream} are no longer held and are missing here"));
            }
        }
    }
    Err(Error::Protocol("output without an end".to_owned()).into())
}

async fn print(stdout: &mut Stdout, value: &Value) -> Result<(), Failure> {
    let line = format!("{value}\n");
    stdout.write_all(line.as_bytes()).await.map_err(|error| Failure::stdout(&error))
}

/// Says what people should know about an end, and gives the exit code.
pub(crate) fn conclude(ended: &Ended, timeout: Option<Duration>, quiet: bool) -> u8 {
    let status = match ended {
        Ended::Left(signal) => return signals::exit_code(*signal),
        Ended::Exited(status) => status,
    };
    if !quiet && let Some(text) = verdict(status, timeout) {
        output::note(&text);
    }
    status.shell_code()
}

fn verdict(status: &ExitStatus, timeout: Option<Duration>) -> Option<String> {
    match status.reason {
        ExitReason::OutOfMemory => Some(
            "out of memory: the kernel killed the command, because the sandbox had reached its memory limit; \
             --memory raises it"
                .to_owned(),
        ),
        ExitReason::TimedOut => {
            let after = timeout.map_or_else(String::new, |timeout| format!(" after {}", human::duration(timeout)));
            Some(format!("timed out: the command was stopped{after}"))
        }
        ExitReason::SandboxGone => Some("the sandbox ended before the command did".to_owned()),
        ExitReason::Exited | ExitReason::Signaled if status.oom_kills > 0 => Some(format!(
            "out of memory: the kernel killed {} of the sandbox's processes meanwhile; --memory raises the limit",
            status.oom_kills
        )),
        ExitReason::Exited | ExitReason::Signaled => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_asks_the_second_kills_the_third_leaves() {
        let mut leave = Leave::default();
        assert_eq!((leave.forward(2), leave.is_due()), (Some(2), false));
        assert_eq!((leave.forward(2), leave.is_due()), (Some(9), true));
        assert_eq!(leave.forward(2), None);
        let mut terminated = Leave::default();
        assert_eq!((terminated.forward(15), terminated.is_due()), (Some(15), true));
        assert_eq!(Leave { raw: true, ..Leave::default() }.forward(15), Some(1));
    }

    #[test]
    fn ends_that_are_not_the_commands_own_are_explained() {
        let mut status = ExitStatus {
            reason: ExitReason::OutOfMemory,
            exit_code: None,
            signal: Some(9),
            oom_kills: 1,
            cpu_seconds: 0.0,
            max_rss_bytes: 0,
            exit_time: None,
        };
        assert!(verdict(&status, None).unwrap().starts_with("out of memory: the kernel killed"));
        assert_eq!(conclude(&Ended::Exited(status.clone()), None, true), 137);
        status.reason = ExitReason::TimedOut;
        assert!(verdict(&status, Some(Duration::from_secs(1))).unwrap().ends_with("after 1s"));
        assert_eq!(conclude(&Ended::Exited(status.clone()), None, true), 124);
        status = ExitStatus {
            reason: ExitReason::Exited,
            exit_code: Some(3),
            signal: None,
            oom_kills: 0,
            ..status
        };
        assert_eq!((verdict(&status, None), conclude(&Ended::Exited(status), None, true)), (None, 3));
        assert_eq!(conclude(&Ended::Left(15), None, true), 143);
    }
}
