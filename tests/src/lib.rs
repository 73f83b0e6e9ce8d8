//! What whole-system tests share: a daemon of their own, run as people run it, a terminal, a client that may send
//! anything, and an audit of the host.
#![forbid(unsafe_code)]

mod api;
mod audit;
mod caller;
mod claude;
mod daemon;
mod engine;
mod name_server;
mod outcome;
mod package;
mod processes;
mod raw;
mod sessiond;
mod terminal;

pub use api::{Api, Refusal, refusal};
pub use audit::leftovers;
pub use caller::Caller;
pub use claude::gateway;
pub use daemon::{Setup, TestDaemon};
pub use engine::{FrozenEngine, TestEngine, docker, shared_engine};
pub use name_server::NameServer;
pub use outcome::{LOOK, Outcome, eventually, executable, exit_code, skip};
pub use package::{package, root};
pub use processes::{children, resident_bytes, signal};
pub use raw::RawCodec;
pub use sessiond::TestSessiond;
pub use terminal::Terminal;
