//! The execution daemon: `hostel.v1` over gRPC, on one machine.
//!
//! [`build`] turns a [`Config`] into a [`Daemon`] with everything bound and recovered and nothing running;
//! [`Daemon::run`] serves until its shutdown future resolves, then drains with a bound. `hosteld` and
//! `hostel up` are both a few lines around these two.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod backends;
pub mod config;
pub mod error;
pub mod listen;
pub mod logging;
pub mod templates;

mod capacity;
mod convert;
mod daemon;
mod deadline;
mod declared;
mod descriptors;
mod health;
mod host;
mod lock;
mod metrics;
mod page;
mod pools;
mod reach;
mod record;
mod request_id;
mod sandboxes;
mod services;
mod state_directory;
mod status;
mod store;
mod unreadable;

pub use backends::Backends;
pub use config::{Config, half_of_the_processors};
pub use daemon::{Daemon, build, build_with};
pub use error::{Error, Result};
