//! Refusals: problem details (RFC 9457), with the `error` field that clients of the seed's API read.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hostel_session::client;
use hostel_session::{Error, Pattern};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use tonic_types::{ErrorDetails, StatusExt as _};

/// What handlers answer.
pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

/// Why a request was refused.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    body: Box<ProblemBody>,
    status: StatusCode,
    retry_after: Option<u64>,
}

/// Why a request was refused, as RFC 9457 has it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// `urn:hostel:problem:` and the reason.
    #[serde(rename = "type")]
    #[schema(example = "urn:hostel:problem:not_found")]
    kind: String,
    /// What is wrong, the same for each of its type.
    title: &'static str,
    /// The HTTP status; of a session that is not active its own status, which clients of the seed's API read here.
    #[schema(example = 404)]
    status: Value,
    /// One sentence, with what would help.
    detail: String,
    /// For programs.
    reason: &'static str,
    /// The same as `title`.
    error: String,
    /// What belongs to the reason: `id`, `field`, `validPatterns`, `limit`, ….
    #[serde(flatten)]
    #[schema(value_type = Object)]
    more: Map<String, Value>,
}

impl Problem {
    /// A refusal.
    pub(crate) fn new(
        status: StatusCode,
        reason: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let body = ProblemBody {
            kind: format!("urn:hostel:problem:{reason}"),
            title,
            status: status.as_u16().into(),
            detail: detail.into(),
            reason,
            error: title.to_owned(),
            more: Map::new(),
        };
        Self { body: Box::new(body), status, retry_after: None }
    }

    /// A field that is wrong.
    pub(crate) fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        let field: String = field.chars().take(200).collect();
        let detail = if field.is_empty() { problem.to_string() } else { format!("{field}: {problem}") };
        if field == "pattern" {
            let patterns: Vec<_> = Pattern::ALL.iter().map(|pattern| pattern.as_str()).collect();
            return Self::new(StatusCode::BAD_REQUEST, "invalid_argument", "Invalid pattern", detail)
                .with("field", field)
                .with("validPatterns", patterns);
        }
        Self::new(StatusCode::BAD_REQUEST, "invalid_argument", "Invalid request", detail).with("field", field)
    }

    /// Something that belongs to the reason.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body.more.insert(name.to_owned(), value.into());
        self
    }

    /// When to try again, in seconds.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// One sentence for people.
    pub(crate) fn detail(&self) -> &str {
        &self.body.detail
    }

    /// For programs.
    pub(crate) fn reason(&self) -> &'static str {
        self.body.reason
    }

    /// What is wrong, the same for each of its type.
    pub(crate) fn title(&self) -> &'static str {
        self.body.title
    }

    /// The same for clients that read gRPC: who is not let in hears it before any service.
    pub(crate) fn status_of_grpc(&self) -> tonic::Status {
        let code = match self.status {
            StatusCode::UNAUTHORIZED => tonic::Code::Unauthenticated,
            _ => tonic::Code::PermissionDenied,
        };
        let info = ErrorDetails::with_error_info(self.body.reason.to_uppercase(), "hostel", HashMap::new());
        tonic::Status::with_error_details(code, self.body.detail.as_str(), info)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), reason = self.body.reason, detail = %self.body.detail, "failed");
        }
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        use StatusCode as Code;
        let detail = error.to_string();
        let new = |status, reason, title| Self::new(status, reason, title, detail.clone());
        match error {
            Error::NotFound { id } => {
                new(Code::NOT_FOUND, "not_found", "Session not found").with("id", id.as_str())
            }
            Error::NoSuch { kind, name } => {
                new(Code::NOT_FOUND, "no_such", "Not found").with("kind", kind).with("name", name)
            }
            Error::Exists { id } => {
                new(Code::CONFLICT, "exists", "Session exists already").with("id", id.as_str())
            }
            Error::KeyReused { .. } => {
                new(Code::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "Idempotency key reused")
            }
            // As the seed has it: the code, although it is no fault of the request, and the session's status.
            Error::NotActive { status, .. } => {
                let mut problem = new(Code::BAD_REQUEST, "not_active", "Session is not active");
                problem.body.status = status.as_str().into();
                problem
            }
            Error::LimitReached { reason, .. } => {
                new(Code::CONFLICT, "limit_reached", "Session has reached a limit")
                    .with("limit", reason.as_str())
            }
            Error::Answered { id, by } => new(Code::CONFLICT, "answered", "Question was answered already")
                .with("questionId", id)
                .with("decidedBy", by),
            Error::Invalid { field, problem } => Self::invalid(&field, problem),
            Error::Unsupported { field, .. } => {
                new(Code::BAD_REQUEST, "unsupported", "Not supported yet").with("field", field)
            }
            Error::Busy { retry_after_seconds, .. } => {
                new(Code::TOO_MANY_REQUESTS, "busy", "Too much at once").retry_after(retry_after_seconds)
            }
            Error::NoEnvironment { .. } => {
                new(Code::CONFLICT, "no_environment", "Session has no sandbox now")
            }
            Error::Fenced => new(Code::SERVICE_UNAVAILABLE, "fenced", "Session is elsewhere").retry_after(1),
            Error::Daemon(error) => daemon(&error, detail),
            Error::Agent(_) => new(Code::UNPROCESSABLE_ENTITY, "agent", "The agent cannot do that"),
            Error::Store { .. } | Error::Blob { .. } => {
                new(Code::SERVICE_UNAVAILABLE, "store", "Sessions cannot be read or written now")
                    .retry_after(5)
            }
            Error::Stopping => {
                new(Code::SERVICE_UNAVAILABLE, "stopping", "The server is stopping").retry_after(5)
            }
            _ => new(Code::INTERNAL_SERVER_ERROR, "internal", "Something went wrong"),
        }
    }
}

impl From<client::Error> for Problem {
    fn from(error: client::Error) -> Self {
        let detail = error.to_string();
        daemon(&error, detail)
    }
}

/// What the daemon refused, or that it could not be asked.
fn daemon(error: &client::Error, detail: String) -> Problem {
    use StatusCode as Code;
    let new = |status, reason, title| {
        Problem::new(status, reason, title, detail.clone()).with("daemonReason", error.reason())
    };
    if error.is_connection() {
        return new(Code::SERVICE_UNAVAILABLE, "daemon_away", "The sandbox daemon is away").retry_after(2);
    }
    if let client::Error::Invalid(_) = error {
        return new(Code::BAD_REQUEST, "invalid_argument", "Invalid request");
    }
    let Some(refusal) = error.refusal() else {
        return new(Code::BAD_GATEWAY, "daemon", "The sandbox daemon failed");
    };
    // The numbers of gRPC's status codes (google/rpc/code.proto).
    match refusal.code as i32 {
        3 | 11 => new(Code::BAD_REQUEST, "invalid_argument", "Invalid request"),
        4 => new(Code::GATEWAY_TIMEOUT, "daemon_slow", "The sandbox daemon took too long"),
        5 => new(Code::NOT_FOUND, "no_such", "Not found"),
        6 | 9 | 10 => new(Code::CONFLICT, "conflict", "The sandbox does not allow that now"),
        7 => new(Code::FORBIDDEN, "forbidden", "The sandbox does not allow that"),
        8 => new(Code::TOO_MANY_REQUESTS, "busy", "Too much at once").retry_after(5),
        12 => new(Code::NOT_IMPLEMENTED, "unsupported", "The sandbox cannot do that"),
        14 => new(Code::SERVICE_UNAVAILABLE, "daemon_away", "The sandbox daemon is away").retry_after(2),
        _ => new(Code::BAD_GATEWAY, "daemon", "The sandbox daemon failed"),
    }
}

/// There is nothing at that path.
pub(super) async fn no_route(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; see /api/openapi.json", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "no_route", "Not found", detail)
}

/// What is at that path cannot be asked like that.
pub(super) async fn no_method(method: Method) -> Problem {
    let detail = format!("this cannot be asked with {method}; see /api/openapi.json");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_method", "Method not allowed", detail)
}
