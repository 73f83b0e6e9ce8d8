//! Sessions over HTTP: the real daemon, the real agent, a scripted model.
#![allow(clippy::unwrap_used, reason = "tests")]

mod crashes;
mod rest;
mod schemathesis;
mod socket;
mod stage;
