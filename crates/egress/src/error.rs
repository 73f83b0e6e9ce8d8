//! What can go wrong. No variant ever carries a secret's value.

use crate::decision::Reason;
use std::io;
use std::path::{Path, PathBuf};

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A preset's file says something that is not understood.
    #[error("{place}: {problem}")]
    Preset {
        /// The file, the line and the key.
        place: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A policy names a preset that is not there.
    #[error("there is no network preset {name:?}; there are {known}")]
    UnknownPreset {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A policy is not valid.
    #[error(transparent)]
    Policy(#[from] hostel_sandbox::Error),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Names cannot be resolved on this host.
    #[error("cannot set up name resolution: {0}")]
    Resolver(String),
    /// A decision could not be recorded.
    #[error("cannot record in the audit log {}: {problem}", path.display())]
    Audit {
        /// The log.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The policy refuses a connection, or it could not be made.
    #[error("{message}")]
    Refused {
        /// Why.
        reason: Reason,
        /// Why, for people.
        message: String,
    },
    /// The audit log was changed by somebody else.
    #[error("the audit log is broken at {} line {line}: {problem}", path.display())]
    AuditBroken {
        /// The file.
        path: PathBuf,
        /// The first line that does not follow from those before, from 1.
        line: u64,
        /// What does not fit.
        problem: String,
        /// How many records before it are whole, in all files.
        before: u64,
    },
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
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }

    pub(crate) fn audit(path: &Path, problem: impl ToString) -> Self {
        Self::Audit { path: path.to_owned(), problem: problem.to_string() }
    }

    pub(crate) fn storage(path: &Path, problem: impl ToString) -> Self {
        Self::Storage { path: path.to_owned(), problem: problem.to_string() }
    }
}
