//! Drives an agent CLI over a process stream: what to start, what to write to it, and what its output means.
//!
//! There is no I/O here. Whoever has the process gives a driver the bytes that the process wrote, writes what the
//! driver has [to say](AgentDriver::take_input), and may at any moment [save](AgentDriver::save) it: a driver
//! restored from there, given the bytes after [what it had dealt with](AgentDriver::consumed), goes on as if nothing
//! had happened. So one transaction that holds events, consumed offset, saved driver and unwritten input loses
//! nothing and repeats nothing, whatever dies.
//!
//! [`claude`] drives Claude Code by its stream-json protocol, [`exec`] any command, one turn per run.
#![forbid(unsafe_code)]

pub mod claude;
mod driver;
mod error;
mod event;
pub mod exec;
mod launch;
mod lines;
mod request;

pub use driver::{AgentDriver, Stream};
pub use error::{Error, Result};
pub use event::{
    AgentEvent, Block, BlockKind, DeltaKind, Meaning, MessageState, Question, Ready, Retry, SubagentState,
    ToolStatus, TurnResult, Usage,
};
pub use launch::{Launch, LaunchOptions, McpServers, PermissionMode, SettingSource};
pub use request::{Answer, Content, Decision, HostAnswer, Prompt, Request};

/// Which driver, and how to make or restore one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentKind {
    /// Claude Code.
    #[default]
    Claude,
    /// Any command: each turn is one run of it, with the prompt on stdin and its stdout as text.
    Exec,
}

impl AgentKind {
    /// What to start, and the driver for it.
    ///
    /// # Errors
    /// [`Error::Options`] where the options contradict each other or the kind cannot do them.
    pub fn launch(self, options: &LaunchOptions) -> Result<(Launch, Box<dyn AgentDriver>)> {
        match self {
            Self::Claude => claude::launch(options),
            Self::Exec => exec::launch(options),
        }
    }

    /// Whether a process is used up by one turn, so that the next needs another.
    #[must_use]
    pub fn one_turn_per_run(self) -> bool {
        self == Self::Exec
    }

    /// A driver as it was when [`AgentDriver::save`] was called.
    ///
    /// # Errors
    /// [`Error::Saved`] where that is no saved driver of this kind.
    pub fn restore(self, saved: &serde_json::Value) -> Result<Box<dyn AgentDriver>> {
        match self {
            Self::Claude => claude::restore(saved),
            Self::Exec => exec::restore(saved),
        }
    }
}
