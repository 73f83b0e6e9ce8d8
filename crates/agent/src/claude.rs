//! Claude Code over its stream-json protocol.

use crate::driver::AgentDriver;
use crate::error::{Error, Result};
use crate::launch::{Launch, LaunchOptions};

/// What to start, and the driver with its opening words.
pub(crate) fn launch(_options: &LaunchOptions) -> Result<(Launch, Box<dyn AgentDriver>)> {
    Err(Error::Unsupported { what: "be started yet".to_owned() })
}

/// A driver as it was.
pub(crate) fn restore(_saved: &serde_json::Value) -> Result<Box<dyn AgentDriver>> {
    Err(Error::Saved { problem: "not yet".to_owned() })
}

/// What to start in a warm sandbox before anybody wants it: it waits to be claimed by a driver that is launched with
/// [`LaunchOptions::claimed_spare`]. `None` where the options cannot be had of a spare, so that a process of its own
/// is needed.
#[must_use]
pub fn spare(_options: &LaunchOptions) -> Option<Launch> {
    None
}
