//! Errors as the API has them (docs of the Messages API, "Errors"): a status, a type, a message.

use http::StatusCode;
use serde::Serialize;

/// What a client hears in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) kind: String,
    pub(crate) message: String,
}

/// Status, type, and a message like the API's.
const KINDS: &[(u16, &str, &str)] = &[
    (400, "invalid_request_error", "The request is invalid"),
    (401, "authentication_error", "invalid x-api-key"),
    (402, "billing_error", "Your credit balance is too low to access the API"),
    (403, "permission_error", "Your API key does not have permission to use the specified resource"),
    (404, "not_found_error", "Not found"),
    (413, "request_too_large", "Request exceeds the maximum size"),
    (429, "rate_limit_error", "This request would exceed your account's rate limit. Please try again later."),
    (500, "api_error", "Internal server error"),
    (504, "timeout_error", "The request timed out"),
    (529, "overloaded_error", "Overloaded"),
];

impl ApiError {
    /// The error of a status; those that the API does not document are like 400 or 500.
    pub(crate) fn of_status(status: u16, message: Option<&str>) -> Self {
        let like = |status: u16| KINDS.iter().find(|(known, _, _)| *known == status);
        let general = if status < 500 { 400 } else { 500 };
        let (_, kind, usual) = like(status).or_else(|| like(general)).unwrap_or(&KINDS[0]);
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            kind: (*kind).to_owned(),
            message: message.unwrap_or(usual).to_owned(),
        }
    }

    /// The error of a type; types that the API does not document have status 500.
    pub(crate) fn of_kind(kind: &str, message: Option<&str>) -> Self {
        let status = KINDS.iter().find(|(_, known, _)| *known == kind).map_or(500, |(status, _, _)| *status);
        Self { kind: kind.to_owned(), ..Self::of_status(status, message) }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::of_status(400, Some(&message.into()))
    }

    /// The body, which is also the data of an error event. The API has the request's id in both.
    pub(crate) fn json(&self, request_id: &str) -> String {
        let error = Inner { kind: &self.kind, message: &self.message };
        let body = Outer { kind: "error", error, request_id };
        // Three strings always have a form as JSON.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Outer<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    error: Inner<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Inner<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    message: &'a str,
}
