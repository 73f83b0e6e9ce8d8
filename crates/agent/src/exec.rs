//! Any command: each turn is one run of it.

use crate::driver::AgentDriver;
use crate::error::{Error, Result};
use crate::launch::{Launch, LaunchOptions};

/// What to start, and the driver.
pub(crate) fn launch(_options: &LaunchOptions) -> Result<(Launch, Box<dyn AgentDriver>)> {
    Err(Error::Unsupported { what: "be started yet".to_owned() })
}

/// A driver as it was.
pub(crate) fn restore(_saved: &serde_json::Value) -> Result<Box<dyn AgentDriver>> {
    Err(Error::Saved { problem: "not yet".to_owned() })
}
