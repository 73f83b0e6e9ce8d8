//! The daemon's services over a real unix socket, with a backend in memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;
mod fake;

mod bounds;
mod claims;
mod connections;
mod declared_pools;
mod files;
mod imports;
mod lifecycle;
mod metrics;
mod pool_bounds;
mod pool_faults;
mod pools;
mod processes;
mod races;
mod requests;
mod restart;
mod templates;
mod watching;
