//! Processes: what to run, and how it is.

use super::Attach;
use std::collections::BTreeMap;

/// What to run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessSpec {
    /// Its id, chosen by the host.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Program and arguments.
    #[prost(string, repeated, tag = "2")]
    pub argv: Vec<String>,
    /// Added to the configured environment.
    #[prost(btree_map = "string, string", tag = "3")]
    pub env: BTreeMap<String, String>,
    /// Working directory; empty is the configured one.
    #[prost(string, tag = "4")]
    pub cwd: String,
    /// User; empty is the configured one.
    #[prost(string, tag = "5")]
    pub user: String,
    /// A terminal of that size instead of pipes.
    #[prost(message, optional, tag = "6")]
    pub terminal: Option<TerminalSize>,
    /// Keep standard input open for writing.
    #[prost(bool, tag = "7")]
    pub stdin: bool,
    /// Milliseconds until SIGTERM (SIGKILL 5 s later); 0 is never.
    #[prost(uint64, tag = "8")]
    pub timeout_ms: u64,
    /// Kill it when the connection of its `Exec` closes.
    #[prost(bool, tag = "9")]
    pub kill_on_disconnect: bool,
    /// [`REQUEST_LEN`] bytes that make the start repeatable, or none: what begins like a process that is listed
    /// gives that process if the rest is the same, and fails with the reason [`REQUEST_REUSED`] if not.
    #[prost(bytes = "vec", tag = "10")]
    pub request: Vec<u8>,
    /// Not in lists, and forgotten when it ended and nobody is attached: a rehearsal for those that follow.
    #[prost(bool, tag = "11")]
    pub unlisted: bool,
}

/// Bytes of [`ProcessSpec::request`]: first the name of the request, then what it asks for, as many of each.
pub const REQUEST_LEN: usize = 64;
/// Why a start fails that has the name of another.
pub const REQUEST_REUSED: &str = "REQUEST_REUSED";

/// Size of a terminal.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TerminalSize {
    /// Lines.
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    /// Characters in a line.
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}

/// A process by id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessRef {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Start and attach.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exec {
    /// What to run.
    #[prost(message, optional, tag = "1")]
    pub spec: Option<ProcessSpec>,
    /// How to attach; its `id` is ignored.
    #[prost(message, optional, tag = "2")]
    pub attach: Option<Attach>,
}

/// A process.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Process {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Program and arguments.
    #[prost(string, repeated, tag = "2")]
    pub argv: Vec<String>,
    /// Number inside the sandbox.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Whether it has a terminal.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    /// Start, nanoseconds since 1970.
    #[prost(uint64, tag = "5")]
    pub start_ns: u64,
    /// How it ended.
    #[prost(message, optional, tag = "6")]
    pub exit: Option<Exit>,
    /// Held offsets of standard output: first held, and end of what was written.
    #[prost(uint64, tag = "7")]
    pub stdout_start: u64,
    /// See above.
    #[prost(uint64, tag = "8")]
    pub stdout_end: u64,
    /// The same of standard error.
    #[prost(uint64, tag = "9")]
    pub stderr_start: u64,
    /// See above.
    #[prost(uint64, tag = "10")]
    pub stderr_end: u64,
    /// Offset of the next byte of standard input wanted.
    #[prost(uint64, tag = "11")]
    pub stdin_offset: u64,
    /// Whom it runs as: the user's name inside, or its number where it has none; without control
    /// characters and of at most [`crate::MAX_USER`] bytes.
    #[prost(string, tag = "12")]
    pub user: String,
    /// The directory that it was started in.
    #[prost(string, tag = "13")]
    pub cwd: String,
}

/// Processes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Processes {
    /// Oldest first.
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<Process>,
}

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ExitReason {
    /// It returned.
    Exited = 0,
    /// A signal.
    Signaled = 1,
    /// The kernel, because of the memory limit.
    OutOfMemory = 2,
    /// Its timeout.
    TimedOut = 3,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Exit {
    /// Why.
    #[prost(enumeration = "ExitReason", tag = "1")]
    pub reason: i32,
    /// Exit code where it returned.
    #[prost(int32, optional, tag = "2")]
    pub code: Option<i32>,
    /// Signal where one ended it.
    #[prost(int32, optional, tag = "3")]
    pub signal: Option<i32>,
    /// Out-of-memory kills in the sandbox while it ran.
    #[prost(uint64, tag = "4")]
    pub oom_kills: u64,
    /// Processor time, microseconds.
    #[prost(uint64, tag = "5")]
    pub cpu_us: u64,
    /// Largest resident memory, bytes.
    #[prost(uint64, tag = "6")]
    pub max_rss_bytes: u64,
    /// When, nanoseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub time_ns: u64,
}

/// A signal for a process group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Signal {
    /// Which process.
    #[prost(string, tag = "1")]
    pub id: String,
    /// 1 to 64.
    #[prost(int32, tag = "2")]
    pub signal: i32,
}

/// A new terminal size.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resize {
    /// Which process.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The size.
    #[prost(message, optional, tag = "2")]
    pub size: Option<TerminalSize>,
}
