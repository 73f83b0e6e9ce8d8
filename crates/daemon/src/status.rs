//! Errors as clients see them: a gRPC status with `google.rpc` details. The one place that knows the mapping.

use crate::error::Error;
use hostel_sandbox::Error as DomainError;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `google.rpc.ErrorInfo.domain` of every error of ours.
pub(crate) const DOMAIN: &str = "hostel";

/// How long a client should wait before it tries again where trying again can help.
const RETRY_AFTER: Duration = Duration::from_millis(500);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = clip(error.to_string(), LONGEST_TEXT);
        match error {
            Error::Domain(error) => domain_status(&error),
            Error::RequestIdReused { request_id } => {
                let metadata = metadata([("request_id", request_id)]);
                // In lower case, unlike the others: the name that clients were promised.
                status(Code::AlreadyExists, "request_id_reused", message, metadata)
            }
            Error::RequestAnswered { request_id } => {
                let metadata = metadata([("request_id", request_id)]);
                status(Code::AlreadyExists, "REQUEST_ANSWERED", message, metadata)
            }
            Error::CursorExpired { .. } => {
                status(Code::OutOfRange, "CURSOR_EXPIRED", message, HashMap::new())
            }
            Error::NodeDraining => status(Code::Unavailable, "NODE_DRAINING", message, HashMap::new()),
            Error::NoRoom { retry_after, .. } => {
                let mut details = ErrorDetails::with_error_info("NO_ROOM", DOMAIN, HashMap::new());
                details.set_retry_info(retry_after);
                Status::with_error_details(Code::ResourceExhausted, message, details)
            }
            Error::Draining => retryable(Code::Unavailable, "DRAINING", message, HashMap::new()),
            Error::NotYet { what } => {
                let metadata = metadata([("capability", what.to_owned())]);
                status(Code::Unimplemented, "CAPABILITY_MISSING", message, metadata)
            }
            Error::CommandFailed { reason, step, exit_code, .. } => {
                let step = step.map(|step| ("step".to_owned(), step.to_string()));
                let code = exit_code.map(|code| ("exit_code".to_owned(), code.to_string()));
                status(Code::FailedPrecondition, reason, message, step.into_iter().chain(code).collect())
            }
            Error::Store { .. } | Error::Config(_) | Error::Directory { .. } | Error::Listen { .. } => {
                tracing::error!(error = %message, "a request failed inside the daemon");
                status(Code::Internal, "INTERNAL", message, HashMap::new())
            }
        }
    }
}

/// Most of a name that a status repeats, in bytes. All of a status goes in headers, three times over and encoded, and
/// clients take as little as 8 KiB of them.
const LONGEST_NAME: usize = 256;
/// Most of a sentence in a status, in bytes.
const LONGEST_TEXT: usize = 1024;

/// The status of a failure of the domain.
pub(crate) fn domain_status(error: &DomainError) -> Status {
    let message = clip(error.to_string(), LONGEST_TEXT);
    let reason = error.reason();
    match error {
        DomainError::InvalidArgument { field, problem } => {
            let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
            details.add_bad_request_violation(field.as_str(), clip(problem.clone(), LONGEST_TEXT));
            Status::with_error_details(Code::InvalidArgument, message, details)
        }
        DomainError::NotFound { kind, id } => {
            resource(Code::NotFound, kind, id, |kind, id| DomainError::NotFound { kind, id })
        }
        DomainError::AlreadyExists { kind, id } => {
            resource(Code::AlreadyExists, kind, id, |kind, id| DomainError::AlreadyExists { kind, id })
        }
        DomainError::WrongState { .. } => status(Code::FailedPrecondition, reason, message, HashMap::new()),
        DomainError::CapabilityMissing { capability, .. } => {
            let metadata = metadata([("capability", capability.name().to_owned())]);
            status(Code::Unimplemented, reason, message, metadata)
        }
        DomainError::PermissionDenied(_) => status(Code::PermissionDenied, reason, message, HashMap::new()),
        DomainError::LimitReached { what, .. } => {
            let metadata = metadata([("limit", (*what).to_owned())]);
            status(Code::ResourceExhausted, reason, message, metadata)
        }
        DomainError::Unavailable { what, .. } => {
            retryable(Code::Unavailable, reason, message, metadata([("what", (*what).to_owned())]))
        }
        DomainError::DeadlineExceeded { .. } => {
            status(Code::DeadlineExceeded, reason, message, HashMap::new())
        }
        _ => {
            tracing::error!(%error, reason, "a request failed inside the daemon");
            status(Code::Internal, reason, message, HashMap::new())
        }
    }
}

/// A wrong field, for conversions that find it before the domain does.
pub(crate) fn invalid(field: &str, problem: impl Into<String>) -> Status {
    domain_status(&DomainError::invalid(field, problem))
}

fn metadata<const N: usize>(entries: [(&str, String); N]) -> HashMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), clip(value, LONGEST_NAME))).collect()
}

fn status(code: Code, reason: &str, message: String, metadata: HashMap<String, String>) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}

fn resource(
    code: Code,
    kind: &'static str,
    id: &str,
    error: impl FnOnce(&'static str, String) -> DomainError,
) -> Status {
    let id = clip(id.to_owned(), LONGEST_NAME);
    let info = metadata([("kind", kind.to_owned()), ("id", id.clone())]);
    let error = error(kind, id.clone());
    let message = error.to_string();
    let mut details = ErrorDetails::with_error_info(error.reason(), DOMAIN, info);
    details.set_resource_info(kind, id, "", message.as_str());
    Status::with_error_details(code, message, details)
}

/// A text, or its beginning and an ellipsis where it is longer than so many bytes.
fn clip(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push('…');
    }
    text
}

fn retryable(code: Code, reason: &str, message: String, metadata: HashMap<String, String>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_sandbox::Capability;

    #[test]
    fn a_wrong_field_is_named_in_the_details() {
        let status = invalid("limits.pids", "too few");
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "limits.pids");
        assert_eq!(details.error_info().unwrap().domain, DOMAIN);
    }

    #[test]
    fn a_missing_capability_is_named_in_the_metadata() {
        let status = domain_status(&DomainError::missing(Capability::Fork, "no btrfs"));
        assert_eq!(status.code(), Code::Unimplemented);
        let info = status.get_error_details();
        let info = info.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.metadata["capability"].as_str()),
            ("CAPABILITY_MISSING", "fork")
        );
    }

    #[test]
    fn a_reused_request_id_has_the_promised_reason() {
        let status = Status::from(Error::RequestIdReused { request_id: "r".into() });
        assert_eq!(status.code(), Code::AlreadyExists);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "request_id_reused");
    }

    /// What a status takes as headers.
    fn bytes_of(status: Status) -> usize {
        let response = status.into_http::<()>();
        response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
    }

    #[test]
    fn however_long_a_name_is_its_status_fits_into_headers() {
        let name = "\u{1f980}\n".repeat(20_000);
        for error in [
            DomainError::NotFound { kind: "program", id: name.clone() },
            DomainError::invalid("argv", name.clone()),
            DomainError::WrongState { reason: "SANDBOX_STATE", message: name },
        ] {
            let bytes = bytes_of(domain_status(&error));
            assert!(bytes < 8 << 10, "{bytes} bytes");
        }
    }

    #[test]
    fn however_much_a_failed_command_says_its_status_fits_into_headers() {
        let message = "\u{1f980}\n".repeat(20_000);
        let command = Error::CommandFailed {
            reason: "SETUP_FAILED",
            message: message.clone(),
            step: Some(3),
            exit_code: Some(1),
        };
        let reused = Error::RequestIdReused { request_id: message };
        for error in [command, reused] {
            let status = Status::from(error);
            assert!(bytes_of(status) < 8 << 10);
        }
    }

    #[test]
    fn what_is_missing_is_named_as_a_resource() {
        let status = Status::from(Error::no_sandbox("sb-1"));
        let details = status.get_error_details();
        let resource = details.resource_info().unwrap();
        assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("sandbox", "sb-1"));
    }
}
