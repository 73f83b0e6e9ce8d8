//! The scripted endpoint over real connections.
#![allow(clippy::unwrap_used, reason = "a test")]

mod answers;
mod client;
mod faults;
mod hostile;
mod surroundings;
