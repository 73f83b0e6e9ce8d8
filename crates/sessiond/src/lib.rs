//! The session server: REST, SSE, WebSocket and gRPC over agent sessions.
//!
//! [`Arguments`] make a [`Config`]; [`Server::build`] binds and opens everything with nothing running;
//! [`Server::spawn`] serves until [`Running::stop`], which drains with a bound. `hostel-sessiond` and `hostel up` are
//! both a few lines around these. Everything that clients see is a view of
//! [`hostel_session::SessionHost`](hostel_session::SessionHost).
#![forbid(unsafe_code)]

mod arguments;
mod config;
mod error;
mod file;
mod grpc;
pub mod logging;
mod rest;
mod server;
mod store;
mod tokens;

pub use arguments::Arguments;
pub use config::{Config, DEFAULT_PORT};
pub use error::{Error, Result};
pub use rest::openapi;
pub use server::{Running, Server};
pub use tokens::Tokens;
