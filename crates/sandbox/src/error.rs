//! What can go wrong, by what a caller can do about it.

use crate::capability::Capability;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that a caller can act on. How a process ended is never one: that is data.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request is wrong whatever the state; it must be changed.
    #[error("{field}: {problem}")]
    InvalidArgument {
        /// The field at fault, as the API spells it.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The thing does not exist, or no longer.
    #[error("no {kind} {id:?}")]
    NotFound {
        /// Kind of thing: `sandbox`, `process`, `file`, `template`.
        kind: &'static str,
        /// The id or path asked for.
        id: String,
    },
    /// A thing with that name exists already.
    #[error("{kind} {id:?} exists already")]
    AlreadyExists {
        /// Kind of thing.
        kind: &'static str,
        /// The id or path asked for.
        id: String,
    },
    /// The thing exists but its state does not allow this; `reason` names the rule for programs.
    #[error("{message}")]
    WrongState {
        /// Stable `UPPER_SNAKE` reason, as on the wire.
        reason: &'static str,
        /// What is in the way and what to do.
        message: String,
    },
    /// The backend cannot do this on this host; never silently weakened.
    #[error("this needs {capability}, which is not available: {detail}")]
    CapabilityMissing {
        /// The capability that would be needed.
        capability: Capability,
        /// Why it is missing and what would provide it.
        detail: String,
    },
    /// The caller has no right to do this.
    #[error("{0}")]
    PermissionDenied(String),
    /// A bound was reached: of the node, of the sandbox, or of what we keep.
    #[error("{what} limit reached: {detail}")]
    LimitReached {
        /// Which limit: `memory`, `disk`, `processes`, `sandboxes`, `message_size`.
        what: &'static str,
        /// The bound and what to do.
        detail: String,
    },
    /// Something we depend on does not answer; trying again later can help.
    #[error("{what} is unavailable: {detail}")]
    Unavailable {
        /// What does not answer: `guest`, `zygote`, `engine`.
        what: &'static str,
        /// What was seen.
        detail: String,
    },
    /// Not finished within the time allowed.
    #[error("{what} did not finish in time")]
    DeadlineExceeded {
        /// What was waited for.
        what: String,
    },
    /// The other side of a protocol, a guest or a remote service, broke its rules.
    #[error("{peer} broke the protocol: {detail}")]
    Protocol {
        /// Who broke it.
        peer: &'static str,
        /// How.
        detail: String,
    },
    /// A fault of ours or of the host; `operation` says what we tried, on what.
    #[error("{operation}: {detail}")]
    Internal {
        /// What was attempted, on what.
        operation: String,
        /// What the host answered.
        detail: String,
    },
}

impl Error {
    /// A wrong field.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), problem: problem.into() }
    }

    /// A missing thing.
    pub fn not_found(kind: &'static str, id: impl ToString) -> Self {
        Self::NotFound { kind, id: id.to_string() }
    }

    /// A fault of the host, with what was tried.
    pub fn internal(operation: impl Into<String>, detail: impl ToString) -> Self {
        Self::Internal { operation: operation.into(), detail: detail.to_string() }
    }

    /// A missing capability, with why.
    pub fn missing(capability: Capability, detail: impl Into<String>) -> Self {
        Self::CapabilityMissing { capability, detail: detail.into() }
    }

    /// A state that forbids the operation.
    pub fn wrong_state(reason: &'static str, message: impl Into<String>) -> Self {
        Self::WrongState { reason, message: message.into() }
    }

    /// A limit below what is in use; `what` says how much of what that is.
    pub fn limit_below_use(what: impl std::fmt::Display) -> Self {
        Self::wrong_state("LIMIT_BELOW_USE", format!("{what}; free some or choose a higher limit"))
    }

    /// The stable reason for programs: `UPPER_SNAKE`, as in `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } => "INVALID_ARGUMENT",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::AlreadyExists { .. } => "ALREADY_EXISTS",
            Self::WrongState { reason, .. } => reason,
            Self::CapabilityMissing { .. } => "CAPABILITY_MISSING",
            Self::PermissionDenied(_) => "PERMISSION_DENIED",
            Self::LimitReached { .. } => "LIMIT_REACHED",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::DeadlineExceeded { .. } => "DEADLINE_EXCEEDED",
            Self::Protocol { .. } => "PROTOCOL_VIOLATION",
            Self::Internal { .. } => "INTERNAL",
        }
    }

    /// Whether the same request may succeed later unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::LimitReached { .. } | Self::DeadlineExceeded { .. })
    }
}
