//! Processes, and how they end.

use hostel_sandbox::process::ExitReason;
use hostel_sandbox::{ProcessId, SandboxId};
use jiff::Timestamp;
use serde::Serialize;

/// A process as it was when the daemon told about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Process {
    /// Its id.
    pub id: ProcessId,
    /// The sandbox that it runs in.
    pub sandbox_id: SandboxId,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its number inside the sandbox; 0 where the backend does not tell.
    pub pid: u32,
    /// Whether it runs.
    pub running: bool,
    /// The user that it runs as.
    pub user: String,
    /// The directory that it was started in.
    pub working_directory: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// When it was started.
    pub create_time: Option<Timestamp>,
    /// How it ended, once it has.
    pub exit: Option<ExitStatus>,
    /// What can still be read of stdout.
    pub stdout: HeldRange,
    /// What can still be read of stderr.
    pub stderr: HeldRange,
    /// How many bytes of stdin were accepted.
    pub stdin_offset: u64,
}

/// The part of an output stream that can still be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HeldRange {
    /// Offset of the oldest byte held.
    pub start_offset: u64,
    /// Offset after the newest byte: how many were written.
    pub end_offset: u64,
}

/// How a process ended. Data, never an error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExitStatus {
    /// Why.
    pub reason: ExitReason,
    /// The code that it ended itself with, 0 to 255.
    pub exit_code: Option<i32>,
    /// The signal that ended it, 1 to 64.
    pub signal: Option<i32>,
    /// Processes that the kernel ended for want of memory in the sandbox meanwhile.
    pub oom_kills: u64,
    /// Processor time of it and its children, in seconds.
    pub cpu_seconds: f64,
    /// Largest resident memory, in bytes.
    pub max_rss_bytes: u64,
    /// When it ended.
    pub exit_time: Option<Timestamp>,
}

impl ExitStatus {
    /// What a shell would show: the code, 128 + signal, 124 for a timeout, 137 for want of memory.
    #[must_use]
    pub fn shell_code(&self) -> u8 {
        let code = match self.reason {
            ExitReason::TimedOut => 124,
            ExitReason::OutOfMemory | ExitReason::SandboxGone => 137,
            ExitReason::Exited | ExitReason::Signaled => {
                self.exit_code.or(self.signal.map(|signal| 128 + signal)).unwrap_or(1)
            }
        };
        u8::try_from(code).unwrap_or(1)
    }
}
