//! Answers of the gateway's own, in the form of the model API's errors.

use crate::body::Reply;
use crate::fetches::Fetch;
use crate::forward::Failure;
use crate::ledger::{Reason, Refusal};
use crate::ticket::Denied;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

/// Tells Anthropic's clients whether to try again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Where something is not right for a moment.
const SOON: u64 = 1;

/// An answer with nothing in it.
pub(crate) fn empty() -> Response<Reply> {
    Response::new(Reply::Local(Full::default()))
}

/// An error.
fn error(status: StatusCode, kind: &str, message: &str) -> Response<Reply> {
    let body = json!({ "type": "error", "error": { "type": kind, "message": message } }).to_string();
    let mut response = Response::new(Reply::Local(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

/// To one who does not show the sandbox's token.
pub(crate) fn wrong_token() -> (Response<Reply>, &'static str) {
    let message = "Hostel: this is not the token of this sandbox.";
    (error(StatusCode::UNAUTHORIZED, "authentication_error", message), "token")
}

/// To one who asks for what is not forwarded.
pub(crate) fn wrong_path() -> (Response<Reply>, &'static str) {
    let message =
        "Hostel: the model gateway forwards /v1/messages, /v1/messages/count_tokens and /v1/models.";
    (error(StatusCode::NOT_FOUND, "not_found_error", message), "path")
}

/// The body is larger than so many bytes.
pub(crate) fn too_large(limit: usize) -> (Response<Reply>, &'static str) {
    let message = format!("Hostel: a request has at most {limit} bytes.");
    (error(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", &message), "too_large")
}

/// There was no room for the body in time.
pub(crate) fn no_room() -> (Response<Reply>, &'static str) {
    let message = "Hostel: too many large requests wait here at the same time; try again.";
    (later(overloaded(), "overloaded_error", message, SOON), "room")
}

/// The body broke off.
pub(crate) fn broken_off() -> (Response<Reply>, &'static str) {
    let message = "Hostel: the request's body broke off.";
    (error(StatusCode::BAD_REQUEST, "invalid_request_error", message), "body")
}

/// The body did not come in time.
pub(crate) fn too_slow() -> (Response<Reply>, &'static str) {
    let message = "Hostel: the request's body did not come in time.";
    (error(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message), "body")
}

/// The body is encoded, so that only the upstream could read it.
pub(crate) fn encoded() -> (Response<Reply>, &'static str) {
    let message = "Hostel: send the request's body without `content-encoding`.";
    (error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message), "body")
}

/// The body is not what models are asked with.
pub(crate) fn no_json(detail: &str) -> (Response<Reply>, &'static str) {
    let message = format!("Hostel: the request's body cannot be read as JSON: {detail}.");
    (error(StatusCode::BAD_REQUEST, "invalid_request_error", &message), "body")
}

/// The API would fetch something by itself, which the operator does not allow.
pub(crate) fn fetches(fetch: Fetch) -> (Response<Reply>, &'static str) {
    let message = format!(
        "Hostel: {} has the API fetch something from elsewhere, past this sandbox's network policy. Send the bytes \
         themselves, or ask the operator to allow it (`api_fetches` of the model gateway).",
        fetch.as_str()
    );
    (error(StatusCode::BAD_REQUEST, "invalid_request_error", &message), "fetch")
}

/// What a client is told when nothing could be passed on, and under which name that is counted.
pub(crate) fn failure(failure: &Failure) -> (Response<Reply>, &'static str) {
    match failure {
        Failure::Denied(denied) => self::denied(denied),
        Failure::Busy => {
            let message = "Hostel: every upstream has as many requests as it may; try again.";
            (later(overloaded(), "overloaded_error", message, SOON), "busy")
        }
        Failure::Unreachable => {
            let message = "Hostel: no model upstream could be reached.";
            (error(StatusCode::BAD_GATEWAY, "api_error", message), "unreachable")
        }
        Failure::Slow => {
            let message = "Hostel: the model upstream did not answer in time.";
            (error(StatusCode::GATEWAY_TIMEOUT, "timeout_error", message), "slow")
        }
        Failure::Unreadable => {
            let message = "Hostel: the model upstream compressed its answer, so it could not be metered.";
            (error(StatusCode::BAD_GATEWAY, "api_error", message), "unreadable")
        }
        Failure::NoUpstream => {
            let message = "Hostel: this node has no model upstream; an operator must configure one.";
            (error(StatusCode::FORBIDDEN, "permission_error", message), "no_upstream")
        }
    }
}

/// What a client is told that may not ask.
pub(crate) fn denied(denied: &Denied) -> (Response<Reply>, &'static str) {
    match denied {
        Denied::Refused(refusal) => (refused(refusal), refusal.reason.as_str()),
        Denied::Detached => {
            let message = "Hostel: this sandbox is going away.";
            (error(StatusCode::FORBIDDEN, "permission_error", message), "detached")
        }
        Denied::Unrecorded(cause) => {
            tracing::error!(error = %cause, "a request is refused because usage cannot be recorded");
            let message = "Hostel: usage cannot be recorded now, so models cannot be asked.";
            (later(StatusCode::SERVICE_UNAVAILABLE, "api_error", message, SOON), "unrecorded")
        }
    }
}

/// 400 with `billing_error` for a cap: Claude Code 2.1.329 shows its words as they are and gives up after this one
/// request. With `invalid_request_error` it asks five times more, in other forms, and a 403 it calls a failure to
/// authenticate. 429 for a rate: it waits and tries again.
fn refused(refusal: &Refusal) -> Response<Reply> {
    match refusal.retry_after {
        Some(seconds) => later(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", &refusal.message, seconds),
        None => {
            let mut response = error(StatusCode::BAD_REQUEST, "billing_error", &refusal.message);
            let reason = match refusal.reason {
                Reason::Cost => "cost",
                Reason::Tokens => "tokens",
                Reason::Requests => "requests",
                Reason::RequestRate | Reason::TokenRate => "rate",
            };
            let name = HeaderName::from_static("x-hostel-budget");
            response.headers_mut().insert(name, HeaderValue::from_static(reason));
            response
        }
    }
}

fn later(status: StatusCode, kind: &str, message: &str, seconds: u64) -> Response<Reply> {
    let mut response = error(status, kind, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// 529, which Anthropic's API uses for "overloaded".
fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}
