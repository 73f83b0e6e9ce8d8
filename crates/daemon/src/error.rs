//! What can go wrong in the daemon, by what somebody can do about it.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the daemon. `status.rs` turns it into what a client sees.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something of the domain: a wrong field, a missing thing, a state, a capability, the host.
    #[error(transparent)]
    Domain(#[from] hostel_sandbox::Error),
    /// The same request id came with another body before.
    #[error("request id {request_id:?} was used with another request before: choose a new one")]
    RequestIdReused {
        /// The id.
        request_id: String,
    },
    /// The same request was answered before; nothing was done again.
    #[error("request {request_id:?} was answered before")]
    RequestAnswered {
        /// The id.
        request_id: String,
    },
    /// The events after a cursor are no longer kept, or are those of another store.
    #[error(
        "the events after cursor {cursor:?} are no longer kept: list again and watch from the listing's cursor"
    )]
    CursorExpired {
        /// The cursor as it was given.
        cursor: String,
    },
    /// The operator took the node out of service for new sandboxes.
    #[error("this node takes no new sandboxes: it is being drained")]
    NodeDraining,
    /// There is no room for a sandbox, now or at all.
    #[error("this node has no room for the sandbox: {detail}")]
    NoRoom {
        /// Why, and what is short.
        detail: String,
        /// When to come again; `None` where that does not help.
        retry_after: Option<std::time::Duration>,
    },
    /// The daemon is shutting down; sandboxes go on and the next daemon has them.
    #[error("the daemon is shutting down; what runs goes on, connect again")]
    Draining,
    /// Something that the API has and this version of the daemon has not.
    #[error("{what} is not available in this version")]
    NotYet {
        /// The missing thing, as the capability is called in error metadata.
        what: &'static str,
    },
    /// A command that a template or a build has run in a sandbox did not succeed.
    #[error("{message}")]
    CommandFailed {
        /// Stable `UPPER_SNAKE` reason, as on the wire.
        reason: &'static str,
        /// Which command, how it ended, and the last of what it wrote.
        message: String,
        /// Its place among several, from 0.
        step: Option<u32>,
        /// Its exit code as a shell shows it; none where it could not be run.
        exit_code: Option<i32>,
    },
    /// The daemon's records could not be read or written.
    #[error("records: {detail}")]
    Store {
        /// What was tried and what the database answered.
        detail: String,
    },
    /// The configuration cannot work; the text says what would.
    #[error("{0}")]
    Config(String),
    /// A directory of the daemon cannot be used.
    #[error("{}: {detail}", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        detail: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {detail}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        detail: String,
    },
}

impl Error {
    /// A failure of the records.
    pub(crate) fn store(what: &str, cause: impl std::fmt::Display) -> Self {
        let detail = format!("{what}: {cause}");
        // SQLite's words for SQLITE_FULL: no fault of ours, and it passes.
        if detail.ends_with("database or disk is full") {
            let detail = format!("the node's own disk is full ({detail})");
            return hostel_sandbox::Error::LimitReached { what: "disk", detail }.into();
        }
        Self::Store { detail }
    }

    /// Its stable reason, as metrics count it: few values.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Domain(error) => error.reason(),
            Self::RequestIdReused { .. } => "request_id_reused",
            Self::RequestAnswered { .. } => "REQUEST_ANSWERED",
            Self::CursorExpired { .. } => "CURSOR_EXPIRED",
            Self::NodeDraining => "NODE_DRAINING",
            Self::NoRoom { .. } => "NO_ROOM",
            Self::Draining => "DRAINING",
            Self::NotYet { .. } => "CAPABILITY_MISSING",
            Self::CommandFailed { reason, .. } => reason,
            Self::Store { .. } | Self::Config(_) | Self::Directory { .. } | Self::Listen { .. } => "INTERNAL",
        }
    }

    /// A sandbox that is not there.
    pub(crate) fn no_sandbox(id: impl ToString) -> Self {
        hostel_sandbox::Error::not_found("sandbox", id).into()
    }
}
