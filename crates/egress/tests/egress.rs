//! A sandbox's doors over real sockets. Addresses of 127.1.0.0/16 stand for public ones; those of 127.0.0.0/8
//! otherwise are what they are, the host's own.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "egress/changes.rs"]
mod changes;
#[path = "egress/floods.rs"]
mod floods;
#[path = "egress/names.rs"]
mod names;
#[path = "egress/passing.rs"]
mod passing;
#[path = "egress/secrets.rs"]
mod secrets;
#[path = "egress/tricks.rs"]
mod tricks;
#[path = "egress/world.rs"]
mod world;
