//! The drivers with real processes: the real CLI against a scripted model on loopback, and plain commands.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod agent;
mod binary;
mod commands;
mod ends;
mod faults;
mod host;
mod questions;
mod spares;
mod turns;
