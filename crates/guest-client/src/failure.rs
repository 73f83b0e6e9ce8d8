//! What goes wrong, in the words of the domain.

use hostel_guest_protocol::{Failure, FailureKind, LISTENERS, REQUEST_REUSED};
use hostel_sandbox::Error;
use hostel_sandbox::process::StartRequest;

/// Longest text of a guest that is passed on, in characters.
const MOST_TEXT: usize = 1000;
/// Rules that a guest can name with `WrongState`.
const RULES: [&str; 7] = [
    "STOPPING",
    "STDIN_HELD",
    "STDIN_TAKEN",
    "STDIN_CLOSED",
    "PROCESS_ENDED",
    "NO_TERMINAL",
    "DIRECTORY_NOT_EMPTY",
];
/// Limits that a guest can name.
const LIMITS: [&str; 7] = ["disk", "open_files", "processes", "memory", "page_size", "archive", LISTENERS];
/// Things that a guest can miss.
const KINDS: [&str; 5] = ["process", "program", "user", "directory", "file"];

/// Why a connection is of no more use.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The other end is gone or cannot be reached.
    Gone(String),
    /// It broke a rule.
    Rule(String),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Gone(detail) => Self::Unavailable { what: "guest", detail },
            Fault::Rule(detail) => broken(detail),
        }
    }
}

/// The guest broke the protocol.
pub(crate) fn broken(detail: impl Into<String>) -> Error {
    let detail = detail.into();
    tracing::debug!(detail, "the guest broke the protocol");
    Error::Protocol { peer: "guest", detail }
}

/// We are shutting down.
pub(crate) fn closing() -> Error {
    Error::Unavailable { what: "daemon", detail: "shutting down".to_owned() }
}

/// What a request is about, to name it in errors.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    kind: &'static str,
    id: String,
    /// What is missing with `NotFound`, where that is not the thing itself.
    missing: Option<(&'static str, String)>,
}

impl Subject {
    pub(crate) fn new(kind: &'static str, id: impl ToString) -> Self {
        Self { kind, id: id.to_string(), missing: None }
    }

    pub(crate) fn file(path: &str) -> Self {
        Self::new("file", path)
    }

    pub(crate) fn process(id: &hostel_sandbox::ProcessId) -> Self {
        Self::new("process", id)
    }

    /// The guest itself, of which nothing can be missing.
    pub(crate) fn guest() -> Self {
        Self::new("guest", "")
    }

    pub(crate) fn or_missing(mut self, kind: &'static str, id: impl ToString) -> Self {
        self.missing = Some((kind, id.to_string()));
        self
    }

    /// Turns a guest's failure into ours.
    pub(crate) fn error(&self, failure: Failure) -> Error {
        let Ok(kind) = FailureKind::try_from(failure.kind) else {
            return broken(format!("there is no kind of failure {}", failure.kind));
        };
        let message = clean(&failure.message);
        match kind {
            FailureKind::Internal => Error::internal("the guest", message),
            FailureKind::Invalid if failure.reason.is_empty() => Error::invalid("request", message),
            FailureKind::Invalid => Error::invalid(clean(&failure.reason), message),
            FailureKind::NotFound => {
                let (kind, id) = self.missing.clone().unwrap_or_else(|| (self.kind, self.id.clone()));
                Error::NotFound { kind: known(&KINDS, &failure.reason).unwrap_or(kind), id }
            }
            FailureKind::Exists if failure.reason == REQUEST_REUSED => {
                Error::AlreadyExists { kind: StartRequest::KIND, id: self.id.clone() }
            }
            FailureKind::Exists => Error::AlreadyExists { kind: self.kind, id: self.id.clone() },
            FailureKind::WrongState => {
                Error::wrong_state(known(&RULES, &failure.reason).unwrap_or("GUEST_STATE"), message)
            }
            FailureKind::Limit => {
                let what = known(&LIMITS, &failure.reason).unwrap_or("other");
                Error::LimitReached { what, detail: message }
            }
            FailureKind::Denied => Error::PermissionDenied(message),
        }
    }
}

fn known(words: &[&'static str], word: &str) -> Option<&'static str> {
    words.iter().copied().find(|known| *known == word)
}

/// A guest's text, safe for a log and a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().take(MOST_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
