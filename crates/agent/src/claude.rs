//! Claude Code over its stream-json protocol.

mod blocks;
mod control;
mod environment;
mod hooks;
mod prompts;
mod read;
mod result;
mod say;
mod start;
mod state;
mod system;
mod turns;

use crate::driver::{AgentDriver, Stream};
use crate::error::Result;
use crate::event::{AgentEvent, Meaning};
use crate::launch::{Launch, LaunchOptions};
use crate::lines::{Line, Lines, clip, excerpt};
use crate::request::Request;
pub use read::{is_transcript, tool_results};
use state::State;
use std::ops::Range;

/// The longest line that is taken, in bytes.
const MAX_LINE: usize = 64 << 20;
/// The longest complaint that is passed on, in bytes.
const MAX_COMPLAINT: usize = 4096;

/// What to start, and the driver with its opening words.
pub(crate) fn launch(options: &LaunchOptions) -> Result<(Launch, Box<dyn AgentDriver>)> {
    let launch = start::process(options)?;
    Ok((launch, Box::new(Claude::new(start::opening(options)?))))
}

/// A driver as it was.
pub(crate) fn restore(saved: &serde_json::Value) -> Result<Box<dyn AgentDriver>> {
    Ok(Box::new(Claude::new(State::restore(saved)?)))
}

/// What to start in a warm sandbox before anybody wants it: it waits to be claimed by a driver that is launched with
/// [`LaunchOptions::claimed_spare`]. `None` where the options cannot be had of a spare, so that a process of its own
/// is needed.
///
/// Only what cannot be said at the claim is in it. So a spare fits options exactly when what was started is equal to
/// what this gives for them: arguments and environment. The directory is an empty one; any other will do that has
/// nothing for an agent in it, nor its parents, and is not the workspace.
#[must_use]
pub fn spare(options: &LaunchOptions) -> Option<Launch> {
    start::spare(options)
}

/// Whether a command is that of a spare, which waits until it is claimed.
#[must_use]
pub fn is_spare(argv: &[String]) -> bool {
    argv.iter().any(|word| word == start::AWAIT_CLAIM)
}

/// What a user allowed for the rest of the conversation, by a driver that was saved: for
/// [`LaunchOptions::granted`] of the process that goes on with it.
#[must_use]
pub fn granted(saved: &serde_json::Value) -> Vec<serde_json::Value> {
    State::restore(saved).map(|state| state.granted).unwrap_or_default()
}

/// The driver.
#[derive(Debug)]
struct Claude {
    state: State,
    stdout: Lines,
    stderr: Lines,
}

impl Claude {
    fn new(state: State) -> Self {
        let stdout = Lines::new(state.stdout, MAX_LINE);
        let stderr = Lines::new(state.stderr, MAX_COMPLAINT);
        Self { state, stdout, stderr }
    }
}

impl AgentDriver for Claude {
    fn output(&mut self, stream: Stream, data: &[u8]) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        let state = &mut self.state;
        match stream {
            Stream::Stdout => self.stdout.feed(data, |line| read::line(state, &line, &mut events)),
            Stream::Stderr => self.stderr.feed(data, |line| complaint(state, &line, &mut events)),
        }
        events
    }

    fn skipped(&mut self, stream: Stream, missing: Range<u64>) -> Vec<AgentEvent> {
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if !lines.skip(&missing) {
            return Vec::new();
        }
        let problem = format!("bytes {} to {} of {stream:?} are lost", missing.start, missing.end);
        vec![AgentEvent::new(Meaning::Malformed { problem })]
    }

    fn consumed(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout.place().consumed,
            Stream::Stderr => self.stderr.place().consumed,
        }
    }

    fn received(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout.received(),
            Stream::Stderr => self.stderr.received(),
        }
    }

    fn request(&mut self, request: Request) -> Result<()> {
        say::request(&mut self.state, request)
    }

    fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.input).into_bytes()
    }

    fn wants_end_of_input(&self) -> bool {
        self.state.end
    }

    fn exited(&mut self, code: Option<i32>) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        let state = &mut self.state;
        self.stdout.end(|line| read::line(state, &line, &mut events));
        self.stderr.end(|line| complaint(state, &line, &mut events));
        result::exited(state, code, &mut events);
        events
    }

    fn is_idle(&self) -> bool {
        !self.state.busy && self.state.prompts.is_empty()
    }

    fn has_tasks(&self) -> bool {
        !self.state.tasks.is_empty()
    }

    fn keeps_budget(&self, max_usd: Option<f64>) -> bool {
        self.state.budget == max_usd.map(result::nano)
    }

    fn save(&self) -> serde_json::Value {
        let mut saved = serde_json::to_value(&self.state).unwrap_or_default();
        saved["stdout"] = serde_json::json!(self.stdout.place());
        saved["stderr"] = serde_json::json!(self.stderr.place());
        saved
    }
}

/// A line of stderr.
fn complaint(state: &mut State, line: &Line<'_>, events: &mut Vec<AgentEvent>) {
    let message = match line {
        Line::Whole(line) => String::from_utf8_lossy(line).trim().to_owned(),
        Line::TooLong(beginning) => excerpt(beginning) + "…",
    };
    if !message.is_empty() {
        state.complaint = clip(&message, 500).to_owned();
        events.push(AgentEvent::new(Meaning::Log { level: "warn", message }));
    }
}
