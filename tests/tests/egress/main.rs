//! What sandboxes reach, through the daemon as it ships: the network by policy, secrets, the model gateway, with real
//! jails, real containers and the real agent CLI.
#![allow(clippy::unwrap_used, reason = "a test")]

mod agent;
mod budget;
mod crash;
mod network;
mod operators;
mod secrets;
mod setup;
