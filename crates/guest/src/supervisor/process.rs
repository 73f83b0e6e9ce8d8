//! A process and what we keep of it.

use super::output::Stream;
use hostel_guest_protocol::{Exit, MAX_USER, Process as Message};
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// More standard input than this waiting for a process means that the host does not keep to
/// [`hostel_guest_protocol::STDIN_WINDOW`]: it is not read from until there is less.
const MOST_INPUT: usize = 768 << 10;
/// Arguments that are kept for listings, in bytes.
const MOST_ARGV: usize = 4 << 10;

/// An output stream and where it comes from.
#[derive(Debug)]
pub(crate) struct Output {
    /// The reading end of the pipe, or the terminal; closed after the end.
    pub(crate) fd: Option<OwnedFd>,
    /// Whether we wait for it to become readable. If not, readers or the rate limit are in the way.
    pub(crate) polled: bool,
    /// Nobody has the terminal open: what is waited for is that this changes.
    pub(crate) hung_up: bool,
    pub(crate) stream: Stream,
    /// Whether the pipe was made larger.
    pub(crate) enlarged: bool,
    /// Last time something came.
    pub(crate) last: Instant,
    /// After the process ended: how much more is taken from those who still hold the pipe.
    pub(crate) left: usize,
}

/// Standard input on its way to a process.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// The writing end; none where it is closed, or never was open.
    pub(crate) fd: Option<OwnedFd>,
    /// Waiting to be written.
    pub(crate) buffer: Vec<u8>,
    /// Next byte wanted.
    pub(crate) offset: u64,
    /// Nothing comes after what is waiting.
    pub(crate) closing: bool,
    /// Whether we wait for it to become writable.
    pub(crate) polled: bool,
    /// The connection that may write.
    pub(crate) writer: Option<u64>,
    /// Last byte written to a terminal.
    pub(crate) last_byte: u8,
}

impl Output {
    pub(crate) fn new(fd: Option<OwnedFd>, ring_bytes: usize) -> Self {
        Self {
            fd,
            polled: false,
            hung_up: false,
            stream: Stream::new(ring_bytes),
            enlarged: false,
            last: Instant::now(),
            left: usize::MAX,
        }
    }
}

impl Input {
    /// Everything before this was passed on.
    pub(crate) fn passed(&self) -> u64 {
        self.offset - self.buffer.len() as u64
    }

    /// Whether more may be taken from the writer.
    pub(crate) fn has_room(&self) -> bool {
        self.buffer.len() < MOST_INPUT
    }
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: String,
    pub(crate) argv: Vec<String>,
    /// What makes its start repeatable; empty where nothing does.
    pub(crate) request: Vec<u8>,
    /// Nobody shall hear of it but who started it.
    pub(crate) unlisted: bool,
    pub(crate) pid: Pid,
    pub(crate) terminal: bool,
    pub(crate) start_ns: u64,
    /// As it is told to the host.
    pub(crate) user: String,
    pub(crate) cwd: String,
    pub(crate) outputs: [Output; 2],
    pub(crate) input: Input,
    pub(crate) exit: Option<Exit>,
    /// It ended and no more output will come.
    pub(crate) finished: Option<Instant>,
    /// When its timeout is over.
    pub(crate) timeout_at: Option<Instant>,
    /// When it is forgotten.
    pub(crate) expires: Option<Instant>,
    /// No output is waited for after this.
    pub(crate) drain_until: Option<Instant>,
    /// Out-of-memory kills in the sandbox before it started.
    pub(crate) oom_before: u64,
    /// We sent SIGKILL, or were asked to.
    pub(crate) killed: bool,
    pub(crate) timed_out: bool,
    /// Connections that read.
    pub(crate) attached: Vec<u64>,
    /// Connections that wait for the end.
    pub(crate) waiting: Vec<u64>,
}

impl Process {
    pub(crate) fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    /// Sends a signal to the group. The group's number is its own as long as the leader has not been reaped.
    pub(crate) fn signal(&mut self, signal: Signal) -> rustix::io::Result<()> {
        if !self.is_running() {
            return Err(rustix::io::Errno::SRCH);
        }
        self.killed |= signal == Signal::KILL;
        kill_process_group(self.pid, signal)
    }

    /// For the host.
    pub(crate) fn message(&self) -> Message {
        let [stdout, stderr] = &self.outputs;
        Message {
            id: self.id.clone(),
            argv: self.argv.clone(),
            pid: self.pid.as_raw_nonzero().get().cast_unsigned(),
            terminal: self.terminal,
            start_ns: self.start_ns,
            exit: self.exit,
            stdout_start: stdout.stream.start(),
            stdout_end: stdout.stream.end(),
            stderr_start: stderr.stream.start(),
            stderr_end: stderr.stream.end(),
            stdin_offset: self.input.offset,
            user: self.user.clone(),
            cwd: self.cwd.clone(),
        }
    }

    /// Memory of its rings, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.outputs.iter().map(|output| output.stream.ring().capacity()).sum()
    }
}

/// The beginning of the arguments, as much as is worth keeping.
pub(crate) fn shortened(argv: &[String]) -> Vec<String> {
    let mut left = MOST_ARGV;
    let mut kept = Vec::new();
    for argument in argv {
        let cut = argument.floor_char_boundary(left);
        kept.push(argument[..cut].to_owned());
        if cut < argument.len() {
            break;
        }
        left -= cut;
    }
    kept
}

/// A user's name as it can be told: `/etc/passwd` may say anything.
pub(crate) fn printable(user: &str) -> String {
    let name: String = user.chars().filter(|c| !c.is_control()).collect();
    name[..name.floor_char_boundary(MAX_USER)].to_owned()
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
