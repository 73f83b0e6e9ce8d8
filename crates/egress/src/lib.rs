//! Network policy enforcement, secret brokering: what leaves a sandbox, and what does not.
#![forbid(unsafe_code)]
// Goes when the data path, which calls the opener, is in the crate.
#![cfg_attr(not(test), allow(dead_code))]

pub mod authority;
mod error;
mod http;
pub mod secret;
mod state_file;

pub use error::{Error, Result};
pub use http::{Opener, OpenerSettings};
