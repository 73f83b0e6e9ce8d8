//! Containers of a real engine, and what may happen to them: engines that die, daemons that are killed, images that
//! are no good, disks that are full. Without an engine nothing is tested, and that is said.
#![allow(clippy::unwrap_used, reason = "a test")]

mod daemon_killed;
mod engine_away;
mod engine_events;
mod full_disk;
mod images;
mod old_engine;
mod pools;
mod recipes;
mod remote;
mod setup;
mod tls;
