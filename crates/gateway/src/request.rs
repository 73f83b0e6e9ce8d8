//! One request of a client inside: whether it may, what goes on, and what comes back.

use crate::body::{Metered, Reply};
use crate::forward::{Answer, Sender, forward};
use crate::headers;
use crate::reply;
use crate::shared::Core;
use crate::ticket::look;
use crate::upstream::Outgoing;
use bytes::Bytes;
use hostel_sandbox::SandboxId;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use secrecy::{ExposeSecret as _, SecretString};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;
use subtle::ConstantTimeEq as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest session id that is kept, in bytes.
const MAX_SESSION: usize = 128;
/// The unit in which bodies are held.
const HELD_UNIT: usize = 1024;

/// What all connections of one sandbox share.
pub(crate) struct Seat {
    pub core: Arc<Core>,
    pub sandbox: SandboxId,
    /// What its programs send in place of a key.
    pub token: SecretString,
    /// Room for bodies, in [`HELD_UNIT`]s.
    pub held: Arc<Semaphore>,
}

impl Seat {
    pub(crate) fn new(core: Arc<Core>, sandbox: SandboxId, token: SecretString) -> Self {
        let held = Arc::new(Semaphore::new(core.limits.held_bytes.div_ceil(HELD_UNIT)));
        Self { core, sandbox, token, held }
    }
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// Answered here: clients probe it before they ask anything.
    Hello,
    /// A request to a model.
    Messages,
    /// Forwarded, and free.
    Free,
}

fn route(method: &Method, path: &str) -> Option<Route> {
    match (method, path) {
        (&Method::HEAD | &Method::GET, "/" | "/api/hello") => Some(Route::Hello),
        (&Method::POST, "/v1/messages") => Some(Route::Messages),
        (&Method::POST, "/v1/messages/count_tokens") | (&Method::GET, "/v1/models") => Some(Route::Free),
        (&Method::GET, path) => {
            let id = path.strip_prefix("/v1/models/")?;
            // No dots alone, slashes or escapes: nothing that an upstream could read as another path.
            let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte));
            (plain && id.bytes().any(|byte| byte.is_ascii_alphanumeric())).then_some(Route::Free)
        }
        _ => None,
    }
}

/// Answers one request.
pub(crate) async fn serve(
    seat: Arc<Seat>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let arrived = Instant::now();
    let route = route(request.method(), request.uri().path());
    if route == Some(Route::Hello) {
        return Ok(reply::empty());
    }
    if !may_enter(&seat.token, request.headers()) {
        seat.core.tally.refused("token");
        let message = "Hostel: this is not the token of this sandbox.";
        return Ok(reply::error(StatusCode::UNAUTHORIZED, "authentication_error", message));
    }
    let Some(route) = route else {
        seat.core.tally.refused("path");
        let message =
            "Hostel: the model gateway forwards /v1/messages, /v1/messages/count_tokens and /v1/models.";
        return Ok(reply::error(StatusCode::NOT_FOUND, "not_found_error", message));
    };
    Ok(pass(&seat, request, route, arrived).await.unwrap_or_else(|refused| *refused))
}

/// The error is the response, boxed for its size.
async fn pass(
    seat: &Seat,
    request: Request<Incoming>,
    route: Route,
    arrived: Instant,
) -> Result<Response<Reply>, Box<Response<Reply>>> {
    let core = &seat.core;
    let refuse = |(response, reason): (Response<Reply>, &'static str)| {
        core.tally.refused(reason);
        Box::new(response)
    };
    // Before the body is read, and before waiting for anything.
    look(core, &seat.sandbox).await.map_err(|denied| refuse(reply::denied(&denied)))?;
    let (head, body) = request.into_parts();
    let (body, held) = read(seat, &head.headers, body).await.map_err(refuse)?;
    let order = Outgoing {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: headers::upstream(&head.headers),
        body,
    };
    let session = session(&head.headers);
    let counted = route == Route::Messages;
    let sender = Sender { sandbox: &seat.sandbox, session: &session, arrived, counted };
    let answer = Box::pin(forward(core, &order, &sender)).await;
    drop(held);
    answer.map(respond).map_err(|failure| refuse(reply::failure(&failure)))
}

fn respond(answer: Answer) -> Response<Reply> {
    let status = answer.response.status();
    let headers = headers::downstream(answer.response.headers());
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let content_type = text(CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let body = Metered::new(answer, &content_type, length, status.is_success());
    let mut response = Response::new(Reply::Upstream(Box::new(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Whether the request carries the sandbox's token, as `x-api-key` or as a bearer. Takes the same time wherever a
/// wrong token differs.
fn may_enter(token: &SecretString, headers: &HeaderMap) -> bool {
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked(7))
        .and_then(|(scheme, rest)| scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest));
    let key = headers.get("x-api-key").map(|value| value.as_bytes());
    let token = token.expose_secret().as_bytes();
    !token.is_empty() && [key, bearer].into_iter().flatten().any(|given| bool::from(given.ct_eq(token)))
}

/// The id that the client gives its session, as far as it is plain text.
fn session(headers: &HeaderMap) -> String {
    let value = headers.get("x-claude-code-session-id").and_then(|value| value.to_str().ok());
    value.unwrap_or_default().chars().filter(char::is_ascii_graphic).take(MAX_SESSION).collect()
}

/// Reads the body whole: it may have to be sent to another upstream. Room is taken for all of it before.
async fn read(
    seat: &Seat,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Bytes, OwnedSemaphorePermit), (Response<Reply>, &'static str)> {
    let limit = seat.core.limits.body_bytes;
    let too_large = || {
        let message = format!("Hostel: a request has at most {limit} bytes.");
        (reply::error(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", &message), "too_large")
    };
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let room = match declared {
        Some(length) if length > limit => return Err(too_large()),
        Some(length) => length,
        // Of a chunked body, all that it may become.
        None if hyper::body::Body::is_end_stream(&body) => 0,
        None => limit,
    };
    let reading = async {
        let units = u32::try_from(room.div_ceil(HELD_UNIT)).unwrap_or(u32::MAX);
        let held = Arc::clone(&seat.held).acquire_many_owned(units).await.ok()?;
        Some((Limited::new(body, limit).collect().await, held))
    };
    match tokio::time::timeout(seat.core.limits.body_timeout, reading).await {
        Ok(Some((Ok(body), held))) => Ok((body.to_bytes(), held)),
        Ok(Some((Err(error), _))) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(_) => {
            let message = "Hostel: the request's body broke off.";
            Err((reply::error(StatusCode::BAD_REQUEST, "invalid_request_error", message), "body"))
        }
        Err(_) => {
            let message = "Hostel: the request's body did not come in time.";
            Err((reply::error(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message), "body"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_clients_need_is_forwarded() {
        let get = |path| route(&Method::GET, path);
        assert_eq!(route(&Method::POST, "/v1/messages"), Some(Route::Messages));
        assert_eq!(route(&Method::POST, "/v1/messages/count_tokens"), Some(Route::Free));
        assert_eq!(get("/v1/models"), Some(Route::Free));
        assert_eq!(get("/v1/models/claude-opus-5-5"), Some(Route::Free));
        assert_eq!(route(&Method::HEAD, "/api/hello"), Some(Route::Hello));
        for path in [
            "/v1/messages",
            "/v1/models/",
            "/v1/models/..",
            "/v1/models/a/b",
            "/v1/models/%2e%2e",
            "/v1/files",
        ] {
            assert_eq!(get(path), None, "{path}");
        }
        assert_eq!(route(&Method::POST, "/v1/messages/batches"), None);
        assert_eq!(route(&Method::POST, "/v1/complete"), None);
    }
}
