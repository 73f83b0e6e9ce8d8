//! What every driver does.

use crate::error::Result;
use crate::event::AgentEvent;
use crate::request::Request;
use std::fmt::Debug;

/// An output stream of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Where the protocol is spoken.
    Stdout,
    /// Where programs complain.
    Stderr,
}

/// The protocol with one process of an agent. It does no I/O and has no clock; every call returns at once.
///
/// The order of things: [`launch`](crate::AgentKind::launch) gives the driver with its opening words waiting in
/// [`take_input`](Self::take_input); output goes in with [`output`](Self::output), wishes with
/// [`request`](Self::request); [`exited`](Self::exited) is last and says what the end means for what was going on.
/// Nothing has to be waited for: a prompt may be asked for right after the launch, and is written behind the opening
/// words. Whatever the process writes, no call panics, and what is kept of it is bounded.
pub trait AgentDriver: Send + Debug {
    /// Takes bytes that the process wrote, in order, each once, and says what they mean. Bytes of a line that is not
    /// complete are kept.
    fn output(&mut self, stream: Stream, data: &[u8]) -> Vec<AgentEvent>;

    /// Bytes of a stream between `missing.start` and `missing.end` were lost: the line that they cut is given up, and
    /// reading goes on at the next one.
    fn skipped(&mut self, stream: Stream, missing: std::ops::Range<u64>) -> Vec<AgentEvent>;

    /// How many bytes of a stream are dealt with, counted from the beginning of the process: those whose events were
    /// returned. A restored driver is given the bytes from here on.
    fn consumed(&self, stream: Stream) -> u64;

    /// The same, with the bytes of a line that is not complete, which a restored driver does not have.
    fn received(&self, stream: Stream) -> u64 {
        self.consumed(stream)
    }

    /// Asks the agent for something. What it writes for that waits in [`take_input`](Self::take_input).
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) where this agent, or this version of it, cannot do it;
    /// [`Error::TooLarge`](crate::Error::TooLarge) for more than it takes; and
    /// [`Error::UnknownQuestion`](crate::Error::UnknownQuestion) for answers to what was not asked. Nothing is
    /// written then.
    fn request(&mut self, request: Request) -> Result<()>;

    /// What is to be written to stdin now, whole lines; nothing the second time.
    fn take_input(&mut self) -> Vec<u8>;

    /// Whether stdin is to be closed after what was written: the agent then ends by itself.
    fn wants_end_of_input(&self) -> bool;

    /// The process has ended, with this code where it ended itself. Says what became of what was going on: questions
    /// are withdrawn, a running turn ends with an error.
    fn exited(&mut self, code: Option<i32>) -> Vec<AgentEvent>;

    /// Whether the agent is doing nothing and waits for the next prompt.
    fn is_idle(&self) -> bool;

    /// Whether something that it left running on the side is known to go on, idle or not.
    fn has_tasks(&self) -> bool;

    /// Whether it ends turns at this budget, in dollars, by itself; what it was started with cannot be changed. One that
    /// keeps none says that it does.
    fn keeps_budget(&self, _max_usd: Option<f64>) -> bool {
        true
    }

    /// All that it knows, without the bytes of incomplete lines; at most some hundred kilobytes, besides input that was
    /// not taken.
    fn save(&self) -> serde_json::Value;
}
