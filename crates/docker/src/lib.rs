//! The Docker backend: sandboxes as containers of an engine, with our guest as their first program.
//!
//! [`Docker`] implements `Backend`. A creation asks the [`engine`] for a container with every limit and nothing to
//! reach ([`container`]), gives it a [`disk`] of its size, and hears from the guest that it is ready; what comes
//! after goes to the guest over its socket (`hostel-guest-client`), never through the engine, unless that is
//! [`remote`]. What happens to
//! containers by themselves is [`watch`]ed.
#![forbid(unsafe_code)]

mod abilities;
mod backend;
mod config;
mod container;
mod create;
mod digits;
mod disk;
mod engine;
mod environment;
mod ground;
mod handle;
mod image;
mod namespace;
mod parents;
mod pause;
mod remote;
mod removal;
mod seccomp;
mod seeds;
mod snapshot;
mod standing;
mod stats;
mod tcp;
mod template;
mod tidy;
mod tls;
mod tools;
mod watch;

pub use backend::Docker;
pub use config::Config;
