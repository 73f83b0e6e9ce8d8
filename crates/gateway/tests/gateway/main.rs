//! The gateway over real sockets: clients inside, upstreams outside, and what is written between.
#![allow(clippy::unwrap_used, reason = "tests")]

mod budgets;
mod echoes;
mod failing;
mod hostile;
mod passing;
mod stage;
mod upstream;
mod usage;
