//! The supervisor as a program of its own on this host, driven over its socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "supervisor/client.rs"]
mod client;
#[path = "supervisor/files.rs"]
mod files;
#[path = "supervisor/frames.rs"]
mod frames;
#[path = "supervisor/hostile.rs"]
mod hostile;
#[path = "supervisor/output.rs"]
mod output;
#[path = "supervisor/processes.rs"]
mod processes;
#[path = "supervisor/relay.rs"]
mod relay;
#[path = "supervisor/terminal.rs"]
mod terminal;
