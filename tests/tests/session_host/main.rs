//! Sessions in this process, on real jails, with the real agent CLI and the scripted model.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bounds;
mod budgets;
mod limits;
mod stage;
mod tool_results;
mod trouble;
mod turns;
