//! What can go wrong.

use crate::id::SessionId;
use crate::status::SessionStatus;

/// Why something could not be done with a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none such.
    #[error("Session not found: {id}")]
    NotFound {
        /// Which was asked for.
        id: SessionId,
    },
    /// Something of a session that is not there: a message, a question, a file.
    #[error("there is no {kind} {name:?} in this session")]
    NoSuch {
        /// `message`, `question`, …
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// There is one of that id.
    #[error("there is a session {id} already")]
    Exists {
        /// Its id.
        id: SessionId,
    },
    /// An idempotency key came again with something else.
    #[error("the idempotency key {key:?} was used before for something else")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// Its status does not allow it.
    #[error("Session is not active: it is {status}{}", reason(message))]
    NotActive {
        /// What it is.
        status: SessionStatus,
        /// Why.
        message: Option<String>,
    },
    /// A limit of the session is reached.
    #[error("the session has reached its limit: {message}")]
    LimitReached {
        /// Which: `budget_exceeded`, `max_turns`, `max_lifetime`, `storage_exceeded`.
        reason: crate::status::EndReason,
        /// In a sentence, with what would help.
        message: String,
    },
    /// Somebody answered before.
    #[error("question {id:?} was answered already, by {by}")]
    Answered {
        /// The question.
        id: String,
        /// Who.
        by: String,
    },
    /// Wrong input.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as the API has it.
        field: String,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// Right, but not there yet.
    #[error("{field}: {what} is not supported yet; {instead}")]
    Unsupported {
        /// The field, as the API has it.
        field: &'static str,
        /// What was asked for.
        what: String,
        /// What there is.
        instead: &'static str,
    },
    /// More than the server or the session takes now.
    #[error("{what}; try again in {retry_after_seconds} s")]
    Busy {
        /// What there is too much of.
        what: String,
        /// When to try again.
        retry_after_seconds: u64,
    },
    /// There is no sandbox to do it in.
    #[error("the session has no sandbox now: {message}")]
    NoEnvironment {
        /// Why, and what brings one.
        message: String,
    },
    /// Another server has the session.
    #[error("another server writes to this session now")]
    Fenced,
    /// The daemon could not do it.
    #[error(transparent)]
    Daemon(#[from] hostel_client::Error),
    /// The agent's driver could not do it.
    #[error(transparent)]
    Agent(#[from] hostel_agent::Error),
    /// The database could not do it.
    #[error("the session store: {action} failed: {problem}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// What the database says.
        problem: String,
    },
    /// Files outside the database could not be read or written.
    #[error("the blob store: {action} {key:?} failed: {problem}")]
    Blob {
        /// What was being done.
        action: &'static str,
        /// With what.
        key: String,
        /// What it says.
        problem: String,
    },
    /// It is to be begun anew: what an earlier attempt left is in the way.
    #[error("an earlier attempt left something else")]
    Again,
    /// The server is going away.
    #[error("the session server is stopping; the session goes on when it is back")]
    Stopping,
}

fn reason(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default()
}

impl Error {
    /// Wrong input in a field.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }
}

/// What was done, or why not.
pub type Result<T> = std::result::Result<T, Error>;
