//! Requests that cannot be read at all: damaged, cut short, too long. Tonic blames itself for most of them, as
//! INTERNAL and without details; here they become what they are, errors of the request.

use crate::status::domain_status;
use hostel_sandbox::Error as DomainError;
use http::Response;
use tonic::{Code, Status};

/// What a status of tonic's own says about the request. `None` for one that is about something else, or ours.
pub(crate) fn fault(status: &Status) -> Option<DomainError> {
    // Ours have details.
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        Code::OutOfRange => {
            Some(DomainError::LimitReached { what: "message_size", detail: status.message().to_owned() })
        }
        Code::Internal => Some(DomainError::invalid("request", status.message())),
        _ => None,
    }
}

/// The answer to a call, where the first message could not be read with the right status.
pub(crate) fn answer<B: Default>(response: Response<B>) -> Response<B> {
    match Status::from_header_map(response.headers()).as_ref().and_then(fault) {
        Some(error) => domain_status(&error).into_http(),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tonic_says_by_itself_is_said_otherwise() {
        let damaged: Response<()> = Status::internal("failed to decode").into_http();
        let answered = Status::from_header_map(answer(damaged).headers()).unwrap();
        assert_eq!(answered.code(), Code::InvalidArgument);
        let ours = domain_status(&DomainError::internal("make a jail", "no"));
        assert!(fault(&ours).is_none() && fault(&Status::not_found("x")).is_none());
        assert!(matches!(fault(&Status::out_of_range("long")), Some(DomainError::LimitReached { .. })));
    }
}
