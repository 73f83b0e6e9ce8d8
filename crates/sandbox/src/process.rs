//! Processes in a sandbox. A process is a resource with an id; its output is addressed by byte offset.

use crate::error::{Error, Result};
use crate::id::ProcessId;
use crate::spec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Longest argument list, all arguments together, in bytes. Linux takes more; nobody needs it.
pub const MAX_ARGV_BYTES: usize = 1 << 20;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// Its id; made by us where absent. Starting the same id twice is `AlreadyExists`.
    pub id: Option<ProcessId>,
    /// Program and arguments. The program is looked up in the `PATH` of the environment, inside the sandbox.
    pub argv: Vec<String>,
    /// Added to the sandbox's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; the sandbox's where absent.
    pub cwd: Option<String>,
    /// User; the sandbox's where absent.
    pub user: Option<String>,
    /// A terminal of that size instead of pipes. Output then has one stream.
    pub terminal: Option<TerminalSize>,
    /// Whether standard input stays open for writing; otherwise it is at its end from the start.
    pub stdin: bool,
    /// It gets SIGTERM after this long, SIGKILL five seconds later, and ends as `timed_out`.
    pub timeout: Option<Duration>,
    /// It is killed when the connection that started it goes away.
    pub kill_on_disconnect: bool,
    /// Makes the start repeatable.
    pub request: Option<StartRequest>,
}

/// What makes a start repeatable: as long as the process is listed, starting again with the same key and body
/// gives that process, and with another body is `AlreadyExists` of the kind [`StartRequest::KIND`].
///
/// It is kept where the process is, so that it lives exactly as long, and costs nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// Hash of who asks and how they call it.
    pub key: [u8; 32],
    /// Hash of what they ask for.
    pub body: [u8; 32],
}

impl StartRequest {
    /// The kind in `AlreadyExists` where a key comes again with another body.
    pub const KIND: &'static str = "request";
}

impl ProcessSpec {
    /// Checks everything that does not depend on the sandbox.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let bytes: usize = self.argv.iter().map(|argument| argument.len() + 1).sum();
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("argv", "give at least a program"));
        }
        if bytes > MAX_ARGV_BYTES || self.argv.len() > 65_536 {
            return Err(Error::invalid("argv", format!("{bytes} bytes, at most {MAX_ARGV_BYTES}")));
        }
        if self.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(Error::invalid("argv", "an argument has no NUL"));
        }
        spec::validate_env("env", &self.env)?;
        if let Some(cwd) = &self.cwd {
            spec::validate_path("cwd", cwd)?;
        }
        if let Some(user) = &self.user {
            spec::validate_user("user", user)?;
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::invalid("timeout", "must be more than 0"));
        }
        Ok(())
    }
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output, or everything where the process has a terminal.
    Stdout,
    /// Standard error. Empty where the process has a terminal.
    Stderr,
}

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// It returned; there is an exit code.
    Exited,
    /// A signal ended it.
    Signaled,
    /// The kernel killed it because the sandbox reached its memory limit.
    OutOfMemory,
    /// It ran longer than its timeout.
    TimedOut,
    /// Its sandbox went away.
    SandboxGone,
}

/// How a process ended. Data, never an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Why.
    pub reason: ExitReason,
    /// Exit code, 0 to 255, where it returned.
    pub code: Option<i32>,
    /// Signal number where one ended it.
    pub signal: Option<i32>,
    /// Out-of-memory kills in the sandbox while it ran: a shell survives the child that was killed.
    pub oom_kills: u64,
    /// Processor time of it and the children it waited for, user and system.
    pub cpu_time: Duration,
    /// Largest resident memory of it, in bytes.
    pub max_rss_bytes: u64,
    /// When.
    pub time: SystemTime,
}

impl ExitStatus {
    /// The status a shell would show: the code, 128 + signal, 124 for a timeout, 137 for out of memory.
    #[must_use]
    pub fn shell_code(&self) -> i32 {
        match self.reason {
            ExitReason::TimedOut => 124,
            ExitReason::OutOfMemory | ExitReason::SandboxGone => 137,
            ExitReason::Exited | ExitReason::Signaled => {
                self.code.or(self.signal.map(|signal| 128 + signal)).unwrap_or(1)
            }
        }
    }
}

/// A process as we know it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its id.
    pub id: ProcessId,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its number inside the sandbox.
    pub pid: u32,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// When it was started.
    pub start_time: SystemTime,
    /// How it ended, once it has.
    pub exit: Option<ExitStatus>,
    /// Offsets of standard output still held: the end is what was written so far.
    pub stdout: Range<u64>,
    /// The same of standard error.
    pub stderr: Range<u64>,
    /// Offset of the next byte of standard input wanted.
    pub stdin_offset: u64,
    /// Whom it runs as: the user's name inside, or its number where it has none. Empty where nobody knows.
    pub user: String,
    /// The directory that it was started in. Empty where nobody knows.
    pub cwd: String,
}

/// How to attach to a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// First offset wanted of standard output; `None` is only what comes from now on.
    pub stdout_from: Option<u64>,
    /// The same of standard error.
    pub stderr_from: Option<u64>,
    /// Whether to write to standard input. One attachment at a time may.
    pub stdin: bool,
    /// Take standard input over from whoever has it.
    pub takeover: bool,
    /// The reader says what it has with [`Input::Ack`]; otherwise sending counts as having.
    pub acks: bool,
}

impl AttachOptions {
    /// Everything from the beginning, with standard input.
    #[must_use]
    pub fn everything() -> Self {
        Self { stdout_from: Some(0), stderr_from: Some(0), stdin: true, ..Self::default() }
    }
}

/// What goes to an attached process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes for standard input. `offset` counts from the start of the process: what was accepted before is
    /// skipped, a hole is a protocol error.
    Stdin {
        /// Position of the first byte.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// End of standard input, once everything before is written.
    CloseStdin,
    /// The terminal has a new size.
    Resize(TerminalSize),
    /// A signal for the process group.
    Signal(i32),
    /// Everything before `offset` arrived; it need not be kept for this reader.
    Ack {
        /// Which stream.
        stream: OutputStream,
        /// First offset not yet had.
        offset: u64,
    },
}

/// What comes from an attached process. `Exited` comes once, last, after all output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Attached; always first.
    Opened(ProcessInfo),
    /// Bytes of a stream.
    Data {
        /// Which stream.
        stream: OutputStream,
        /// Position of the first byte.
        offset: u64,
        /// The bytes, at most [`MAX_CHUNK`].
        data: Bytes,
    },
    /// These offsets were asked for and are no longer held.
    Gap {
        /// Which stream.
        stream: OutputStream,
        /// The missing offsets.
        missing: Range<u64>,
    },
    /// Standard input was accepted up to here.
    StdinAccepted {
        /// Offset of the next byte wanted.
        offset: u64,
    },
    /// It ended.
    Exited(ExitStatus),
}

/// Largest piece of output, in bytes.
pub const MAX_CHUNK: usize = 256 << 10;

/// Both directions of an attachment. Dropping it detaches; the process goes on.
#[derive(Debug)]
pub struct Attachment {
    /// To the process. A full channel is back-pressure from the process.
    pub input: mpsc::Sender<Input>,
    /// From the process. Not reading it is back-pressure on the process. A final `Err` says why an attachment
    /// broke; the end without [`Output::Exited`] and without `Err` never happens.
    pub output: mpsc::Receiver<Result<Output>>,
}
