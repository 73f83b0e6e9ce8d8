//! What can go wrong with the endpoint itself. What a client does wrong, it hears over HTTP.

use std::net::SocketAddr;

/// What starting an endpoint or reading a script comes to.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an endpoint does not start, or a script is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Anybody who reaches the endpoint may use it, so it is not for a network.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// The options name neither a TCP address nor a unix socket.
    #[error("there is nothing to listen on: neither a TCP address nor a unix socket")]
    NothingToListenOn,
    /// The address or path cannot be had.
    #[error("cannot listen on {place}: {source}")]
    Listen {
        /// The address or path.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// The script is not JSON, or has a step that cannot be played.
    #[error("the script is wrong: {0}")]
    Script(String),
}
