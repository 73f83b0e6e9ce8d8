//! What keeps the server from running.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the server cannot be built or does not go on. What clients are told is in `rest/problem.rs`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot work; the text says what would.
    #[error("{0}")]
    Config(String),
    /// A file or directory cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {problem}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        problem: String,
    },
    /// The sessions cannot be opened.
    #[error(transparent)]
    Session(#[from] hostel_session::Error),
}

impl Error {
    /// A file that cannot be used.
    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl ToString) -> Self {
        Self::File { path: path.into(), problem: problem.to_string() }
    }
}

/// What was done, or why not.
pub type Result<T, E = Error> = std::result::Result<T, E>;
