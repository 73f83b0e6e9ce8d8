//! What can go wrong for a client, by what it can do about it.

use crate::address::Address;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tonic::Code;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, as a sentence for people and with a reason for programs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the daemon is not one.
    #[error("{text:?} is no address of a daemon: {problem}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong, and how to write it.
        problem: String,
    },
    /// Nobody answers at the address.
    #[error("cannot reach hosteld at {address}: {detail}")]
    Unreachable {
        /// Where it was looked for.
        address: Address,
        /// What the system said.
        detail: String,
    },
    /// Nobody answers where the session server is expected.
    #[error("cannot reach the session server at {address}: {detail}")]
    SessionServerUnreachable {
        /// Where it was looked for.
        address: Address,
        /// What the system said.
        detail: String,
    },
    /// The connection to the session server broke. What was asked for may or may not have happened.
    #[error("the connection to the session server broke: {detail}")]
    SessionServerLost {
        /// What was seen.
        detail: String,
    },
    /// The connection broke. What was asked for may or may not have happened.
    #[error("the connection to hosteld broke: {detail}")]
    ConnectionLost {
        /// What was seen.
        detail: String,
    },
    /// The connection to a process broke and could not be made again in time. The process goes on without us.
    #[error("lost hosteld and could not attach again within {waited:?}: {detail}")]
    GaveUp {
        /// How long it was tried.
        waited: Duration,
        /// Why the last try failed.
        detail: String,
    },
    /// The daemon answered, and said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The daemon answered with something that makes no sense.
    #[error("hosteld broke the protocol: {0}")]
    Protocol(String),
    /// What was asked for is wrong in itself; it was not sent.
    #[error("{0}")]
    Invalid(#[from] hostel_sandbox::Error),
    /// A file of this machine could not be used.
    #[error("cannot {operation} {}: {source}", path.display())]
    Local {
        /// What was tried: `read`, `write`, `create`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A local file has a kind that cannot be copied, or the other side does.
    #[error("{0}")]
    Unsupported(String),
    /// The session was over before this.
    #[error("the process has ended or its session was closed")]
    SessionClosed,
}

/// An error answer of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// The reason for programs, as in `google.rpc.ErrorInfo`, for example `NOT_FOUND` or `CAPABILITY_MISSING`. From
    /// the code where the daemon gave none.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// Facts that belong to the reason.
    pub metadata: BTreeMap<String, String>,
    /// The fields at fault.
    pub violations: Vec<FieldViolation>,
}

/// A field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field, as the API spells it.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = if self.message.is_empty() { self.reason.as_str() } else { self.message.as_str() };
        f.write_str(message)?;
        for violation in &self.violations {
            // The message often is the first violation already.
            if !message.contains(&violation.description) {
                write!(f, "; {}: {}", violation.field, violation.description)?;
            }
        }
        Ok(())
    }
}

impl Error {
    /// A file of this machine could not be used.
    pub(crate) fn local(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local { operation, path, source }
    }

    /// The reason for programs: the daemon's own, or one for what happened on this side.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Address { .. } => "ADDRESS_INVALID",
            Self::Unreachable { .. } => "DAEMON_UNREACHABLE",
            Self::SessionServerUnreachable { .. } => "SESSION_SERVER_UNREACHABLE",
            Self::ConnectionLost { .. } | Self::SessionServerLost { .. } | Self::GaveUp { .. } => {
                "CONNECTION_LOST"
            }
            Self::Refused(refusal) => &refusal.reason,
            Self::Protocol(_) => "PROTOCOL_VIOLATION",
            Self::Invalid(error) => error.reason(),
            Self::Local { .. } => "LOCAL_FILE",
            Self::Unsupported(_) => "UNSUPPORTED",
            Self::SessionClosed => "SESSION_CLOSED",
        }
    }

    /// Facts that belong to the reason.
    #[must_use]
    pub fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        self.refusal().map(|refusal| &refusal.metadata)
    }

    /// The fields at fault, as the daemon named them.
    #[must_use]
    pub fn violations(&self) -> &[FieldViolation] {
        self.refusal().map_or(&[], |refusal| &refusal.violations)
    }

    /// The daemon's answer, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the thing asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.code == Code::NotFound)
    }

    /// Whether the connection, not the request, is at fault, so that another connection may do.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::ConnectionLost { .. }
            | Self::SessionServerUnreachable { .. }
            | Self::SessionServerLost { .. } => true,
            // It is starting or stopping, or what it depends on is away for a moment; draining it stays.
            Self::Refused(refusal) => refusal.code == Code::Unavailable && refusal.reason != "NODE_DRAINING",
            _ => false,
        }
    }

    /// Whether the way to the daemon, or its stopping, is at fault: the narrower half of [`Self::is_connection`],
    /// without the refusals of a daemon that is well.
    #[must_use]
    pub(crate) fn is_restart(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                let what = refusal.metadata.get("what").map_or("", String::as_str);
                refusal.reason == "DRAINING" || (refusal.reason == "UNAVAILABLE" && what == "daemon")
            }
            error => error.is_connection(),
        }
    }
}
