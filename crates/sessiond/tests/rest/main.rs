//! The server over real sockets, with sessions that are made up.
#![allow(clippy::unwrap_used, reason = "tests")]

mod grpc;
mod guards;
mod host;
mod messages;
mod openapi;
mod schemathesis;
mod sessions;
mod socket;
mod stage;
mod streams;
