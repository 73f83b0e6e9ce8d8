//! What can go wrong, by what a caller can do about it. No variant ever carries a secret's value.

use std::path::{Path, PathBuf};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that a caller can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The secret has no value in any of the places that were asked.
    #[error("no secret {name:?}; looked in {looked}")]
    SecretNotFound {
        /// Its name.
        name: String,
        /// The places, in the order they were asked.
        looked: String,
    },
    /// The secret cannot be used as it is; its owner must change it.
    #[error("secret {name:?}: {problem}")]
    SecretInvalid {
        /// Its name.
        name: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A file or directory of ours cannot be used: wrong mode, damaged, not readable or not writable.
    #[error("{}: {problem}", path.display())]
    Storage {
        /// Which one.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A certificate or a key could not be made or used.
    #[error("certificates: {0}")]
    Certificate(String),
    /// A TLS session with the sandbox or with the host failed.
    #[error("TLS with {peer}: {problem}")]
    Tls {
        /// With whom.
        peer: String,
        /// What went wrong.
        problem: String,
    },
    /// An HTTP connection broke off.
    #[error("HTTP with {peer}: {problem}")]
    Http {
        /// With whom.
        peer: String,
        /// What went wrong.
        problem: String,
    },
}

impl Error {
    pub(crate) fn storage(path: &Path, problem: impl ToString) -> Self {
        Self::Storage { path: path.to_owned(), problem: problem.to_string() }
    }
}
