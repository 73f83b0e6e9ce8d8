//! Pools and admission beside models of their owner.
#![allow(clippy::unwrap_used, reason = "a test")]

mod admission;
mod demand;
mod host;
mod interleavings;
mod planning;
mod scenarios;
