//! Errors as gRPC clients see them: a status with `google.rpc` details. The one place that knows the mapping.

use hostel_session::Error;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `google.rpc.ErrorInfo.domain` of every error of ours.
const DOMAIN: &str = "hostel";

/// How long a client should wait before it tries again where the server or its daemon is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The status of a failure.
pub(super) fn status(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::NotFound { id } => missing("session", id.as_str(), message),
        Error::NoSuch { kind, name } => missing(kind, &name, message),
        Error::Exists { id } => {
            let facts = facts([("kind", "session".to_owned()), ("id", id.to_string())]);
            with(Code::AlreadyExists, "ALREADY_EXISTS", message, facts)
        }
        // In lower case, unlike the others: the name that clients of hosteld know.
        Error::KeyReused { key } => {
            with(Code::AlreadyExists, "request_id_reused", message, facts([("request_id", key)]))
        }
        Error::NotActive { status, .. } => {
            let facts = facts([("status", status.to_string())]);
            with(Code::FailedPrecondition, "SESSION_NOT_ACTIVE", message, facts)
        }
        Error::LimitReached { reason, .. } => {
            let facts = facts([("limit", reason.to_string())]);
            with(Code::FailedPrecondition, "SESSION_LIMIT_REACHED", message, facts)
        }
        Error::Answered { id, by } => {
            with(Code::FailedPrecondition, "ANSWERED", message, facts([("id", id), ("decided_by", by)]))
        }
        Error::Invalid { field, problem } => invalid(&field, problem),
        Error::Unsupported { field, .. } => {
            with(Code::Unimplemented, "UNSUPPORTED", message, facts([("field", field.to_owned())]))
        }
        Error::Busy { retry_after_seconds, .. } => {
            let wait = Duration::from_secs(retry_after_seconds);
            retryable(Code::ResourceExhausted, "BUSY", message, wait)
        }
        Error::NoEnvironment { .. } => {
            with(Code::FailedPrecondition, "NO_ENVIRONMENT", message, HashMap::new())
        }
        Error::Fenced => with(Code::Aborted, "FENCED", message, HashMap::new()),
        Error::Daemon(error) => daemon(&error),
        Error::Agent(error) => agent(&error),
        Error::Stopping => stopping(),
        Error::Blob { .. } => retryable(Code::Unavailable, "BLOB_STORE", message, RETRY_AFTER),
        _ => {
            tracing::error!(error = %message, "a request failed inside the session server");
            with(Code::Internal, "INTERNAL", message, HashMap::new())
        }
    }
}

/// The server is going away.
pub(super) fn stopping() -> Status {
    retryable(Code::Unavailable, "STOPPING", Error::Stopping.to_string(), RETRY_AFTER)
}

/// A wrong field.
pub(super) fn invalid(field: &str, problem: impl Into<String>) -> Status {
    let problem = problem.into();
    let mut details = ErrorDetails::with_error_info("INVALID_ARGUMENT", DOMAIN, HashMap::new());
    details.add_bad_request_violation(field, problem.as_str());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {problem}"), details)
}

/// What the daemon said is passed on as it said it.
fn daemon(error: &hostel_client::Error) -> Status {
    let message = error.to_string();
    let Some(refusal) = error.refusal() else {
        return if error.is_connection() {
            retryable(Code::Unavailable, "DAEMON_UNREACHABLE", message, RETRY_AFTER)
        } else {
            tracing::error!(error = %message, "the daemon could not be used");
            with(Code::Internal, error.reason(), message, HashMap::new())
        };
    };
    let metadata: HashMap<_, _> = refusal.metadata.clone().into_iter().collect();
    let mut details = ErrorDetails::with_error_info(refusal.reason.as_str(), DOMAIN, metadata);
    for violation in &refusal.violations {
        details.add_bad_request_violation(violation.field.as_str(), violation.description.as_str());
    }
    Status::with_error_details(refusal.code, message, details)
}

fn agent(error: &hostel_agent::Error) -> Status {
    use hostel_agent::Error as Agent;
    let message = error.to_string();
    match error {
        Agent::Options { field, problem } => invalid(&format!("config_json.{field}"), problem.as_str()),
        Agent::TooLarge { what, .. } => invalid(what, message),
        Agent::Unsupported { .. } => with(Code::Unimplemented, "AGENT_UNSUPPORTED", message, HashMap::new()),
        Agent::UnknownQuestion { id } => missing("question", id, message),
        _ => {
            tracing::error!(error = %message, "an agent's driver failed");
            with(Code::Internal, "INTERNAL", message, HashMap::new())
        }
    }
}

fn facts<const N: usize>(entries: [(&str, String); N]) -> HashMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn with(code: Code, reason: &str, message: String, facts: HashMap<String, String>) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, facts))
}

fn missing(kind: &str, id: &str, message: String) -> Status {
    let info = facts([("kind", kind.to_owned()), ("id", id.to_owned())]);
    let mut details = ErrorDetails::with_error_info("NOT_FOUND", DOMAIN, info);
    details.set_resource_info(kind, id, "", message.as_str());
    Status::with_error_details(Code::NotFound, message, details)
}

fn retryable(code: Code, reason: &str, message: String, after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(after));
    Status::with_error_details(code, message, details)
}
