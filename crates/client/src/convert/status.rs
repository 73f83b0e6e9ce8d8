//! Error answers.

use crate::error::{Error, FieldViolation, Refusal};
use std::error::Error as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The domain of the daemon's reasons.
const DOMAIN: &str = "hostel";

/// What an error answer means. One that carries no reason of the daemon's and could come from the transport does.
pub(crate) fn error(status: Status) -> Error {
    if is_timeout(&status) {
        return Error::Refused(Box::new(Refusal {
            code: Code::DeadlineExceeded,
            reason: reason_of(Code::DeadlineExceeded).to_owned(),
            message: "there was no answer within the time that was given".to_owned(),
            metadata: Default::default(),
            violations: Vec::new(),
        }));
    }
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    if info.is_none() && is_transport(&status) {
        return Error::ConnectionLost { detail: cause(&status) };
    }
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let (reason, metadata) = match info {
        Some(info) => (info.reason, info.metadata.into_iter().collect()),
        None => (reason_of(status.code()).to_owned(), Default::default()),
    };
    Error::Refused(Box::new(Refusal {
        code: status.code(),
        reason,
        message: status.message().to_owned(),
        metadata,
        violations: violations
            .into_iter()
            .map(|violation| FieldViolation { field: violation.field, description: violation.description })
            .collect(),
    }))
}

/// What ended an attached stream. A daemon that is told to stop cancels its streams, so within a session that is
/// the connection's end as well.
pub(crate) fn in_session(status: Status) -> Error {
    if status.code() == Code::Cancelled {
        return Error::ConnectionLost { detail: cause(&status) };
    }
    error(status)
}

/// Whether our own clock ended the call, which the daemon's would have done at the same moment.
fn is_timeout(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a status was made up on this side, or by something between, because the connection broke.
fn is_transport(status: &Status) -> bool {
    status.source().is_some() || matches!(status.code(), Code::Unavailable | Code::Unknown)
}

/// The cause at the bottom of a status.
fn cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if status.source().is_some() { cause.to_string() } else { status.message().to_owned() }
}

/// A reason where the daemon gave none: the name of the code.
fn reason_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_refusal_keeps_reason_metadata_and_fields() {
        let mut details = ErrorDetails::with_error_info(
            "INVALID_ARGUMENT",
            DOMAIN,
            std::collections::HashMap::from([("field".to_owned(), "limits.pids".to_owned())]),
        );
        details.add_bad_request_violation("limits.pids", "must be at least 4");
        let status = Status::with_error_details(Code::InvalidArgument, "the request is wrong", details);
        let error = error(status);
        assert_eq!(error.reason(), "INVALID_ARGUMENT");
        assert_eq!(error.violations()[0].field, "limits.pids");
        assert_eq!(error.metadata().unwrap()["field"], "limits.pids");
        assert_eq!(error.to_string(), "the request is wrong; limits.pids: must be at least 4");
        assert!(!error.is_connection());
    }

    #[test]
    fn what_the_transport_says_is_told_from_what_the_daemon_says() {
        assert!(matches!(error(Status::unavailable("tcp connect error")), Error::ConnectionLost { .. }));
        let details =
            ErrorDetails::with_error_info("NODE_DRAINING", DOMAIN, std::collections::HashMap::new());
        let draining = error(Status::with_error_details(Code::Unavailable, "draining", details));
        assert!(matches!(draining, Error::Refused(_)) && !draining.is_connection());
        assert!(error(Status::not_found("no sandbox")).is_not_found());
        assert!(in_session(Status::cancelled("stopping")).is_connection());
    }

    #[test]
    fn the_end_of_our_patience_is_no_broken_connection() {
        let error = error(Status::from_error(Box::new(tonic::TimeoutExpired(()))));
        assert_eq!(error.reason(), "DEADLINE_EXCEEDED");
        assert!(!error.is_connection());
    }

    #[test]
    fn only_a_daemon_that_stops_is_worth_asking_again_for_something_new() {
        let unavailable = |reason, what: Option<&str>| {
            let metadata: std::collections::HashMap<_, _> =
                what.map(|what| ("what".to_owned(), what.to_owned())).into_iter().collect();
            let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
            error(Status::with_error_details(Code::Unavailable, "not now", details)).is_restart()
        };
        assert!(unavailable("DRAINING", None) && unavailable("UNAVAILABLE", Some("daemon")));
        assert!(!unavailable("UNAVAILABLE", Some("guest")) && !unavailable("NODE_DRAINING", None));
        assert!(error(Status::unavailable("tcp connect error")).is_restart());
    }
}
