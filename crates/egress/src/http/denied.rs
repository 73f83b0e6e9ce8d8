//! Answers of our own: what was refused or failed, and why.

use super::Refusal;
use super::exchange::AnswerBody;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};

/// The header that marks an answer as ours; its value is the reason's word.
pub(super) const MARK: &str = "x-hostel-denied";

/// A request that is not sent on, or that came to nothing.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Denied {
    pub(super) fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    /// The request is malformed, or could be read in more than one way.
    pub(super) fn bad(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, message)
    }

    /// The host could not be asked, or answered what cannot be passed on.
    pub(super) fn gateway(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, reason, message)
    }

    /// The answer: JSON with the reason and a sentence.
    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let body = serde_json::json!({ "error": { "reason": self.reason, "message": self.message } });
        let mut response = Response::new(Either::Right(Full::new(Bytes::from(format!("{body}\n")))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(MARK, HeaderValue::from_static(self.reason));
        response
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::new(StatusCode::FORBIDDEN, refusal.reason, refusal.message)
    }
}
