//! The jail backend: sandboxes made of namespaces, cgroups, seccomp and landlock on this host.
//!
//! [`Jail`] implements `Backend`. A creation takes a [`newborn`] that waits from the [`spares`], or a prepared [`cell`]
//! and has the [`zygote`] clone one into it; sets its limits, tells it whose it is, and hears from the guest that it is
//! ready. What comes after goes to the guest over its socket (`hostel-guest-client`).

mod abilities;
mod allocator;
mod backend;
mod cell;
mod cgroup;
mod config;
mod create;
mod discard;
mod environment;
mod executable;
mod handle;
mod ids;
mod newborn;
mod reaper;
mod shortage;
mod spares;
mod storage;
mod template;
mod zygote;

pub use allocator::keep_memory;
pub use backend::Jail;
pub use config::{Config, Storage};
