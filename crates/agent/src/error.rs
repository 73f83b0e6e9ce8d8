//! What can go wrong.

/// What a driver cannot do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Options that this agent cannot be started with.
    #[error("{field}: {problem}")]
    Options {
        /// The option.
        field: &'static str,
        /// What is wrong with it, and what would do.
        problem: String,
    },
    /// The agent, or this version of it, cannot do what was asked.
    #[error("this agent cannot {what}")]
    Unsupported {
        /// What it cannot do.
        what: String,
    },
    /// More than the agent takes.
    #[error("{what} has {bytes} bytes, at most {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// An answer to a question that is not open.
    #[error("there is no open question {id:?}")]
    UnknownQuestion {
        /// Its id.
        id: String,
    },
    /// What was to be restored is not what `save` gave.
    #[error("this is no saved driver: {problem}")]
    Saved {
        /// What is wrong with it.
        problem: String,
    },
}

/// What a driver did, or why not.
pub type Result<T> = std::result::Result<T, Error>;
