//! What whole-system tests share: a daemon of their own, run as people run it, and an audit of the host.
#![forbid(unsafe_code)]

mod audit;
mod daemon;

pub use audit::leftovers;
pub use daemon::{Outcome, TestDaemon, eventually, executable};
