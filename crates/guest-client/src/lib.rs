//! The host side of the guest protocol: processes, files and listeners of a sandbox, through its guest.
//!
//! A backend keeps one [`Guest`] for each sandbox, which is its [`hostel_sandbox::Inside`]. Whatever comes from a guest is taken for hostile: a wrong length, an offset
//! that jumps, an answer to nothing or a descriptor of the wrong kind is [`hostel_sandbox::Error::Protocol`],
//! ends that one connection, and never blocks or panics the host.
#![forbid(unsafe_code)]

mod archive;
mod attach;
mod connection;
mod content;
mod convert;
mod defaults;
mod descriptor;
mod endpoint;
mod failure;
mod files;
mod guest;
mod inbox;
mod listeners;
mod outgoing;
mod pipe;
mod processes;
mod relay;
mod rules;
mod streams;
#[cfg(test)]
mod tests;
mod zstandard;

pub use convert::Activity;
pub use defaults::ProcessDefaults;
pub use endpoint::Endpoint;
pub use guest::Guest;
pub use relay::{Dial, Relay, Streams};
