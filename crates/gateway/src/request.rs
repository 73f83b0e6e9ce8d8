//! One request of a client inside: whether it may, what goes on, and what comes back.

use crate::body::{Pump, Reply};
use crate::config::ApiFetches;
use crate::fetches;
use crate::forward::{Answer, Sender, forward};
use crate::headers;
use crate::intake::{self, Room};
use crate::reply;
use crate::shared::Core;
use crate::ticket::{Denied, look};
use crate::upstream::Outgoing;
use bytes::Bytes;
use hostel_sandbox::SandboxId;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use secrecy::{ExposeSecret as _, SecretString};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;
use subtle::ConstantTimeEq as _;
use tokio_util::task::TaskTracker;

/// Longest session id that is kept, in bytes.
const MAX_SESSION: usize = 128;

/// What all connections of one sandbox share.
pub(crate) struct Seat {
    pub core: Arc<Core>,
    pub sandbox: SandboxId,
    /// What its programs send in place of a key.
    pub token: SecretString,
    /// For bodies of its requests; see [`intake`].
    pub room: Room,
    /// The gateway's tasks, and of them the sandbox's, which its attachment waits for.
    pub tasks: [TaskTracker; 2],
}

impl Seat {
    pub(crate) fn new(
        core: Arc<Core>,
        sandbox: SandboxId,
        token: SecretString,
        tasks: [TaskTracker; 2],
    ) -> Self {
        let room = Room::of_sandbox(&core.limits);
        Self { core, sandbox, token, room, tasks }
    }

    /// Does something beside the connections. The gateway waits for it at its end, and so does whoever closes the
    /// attachment.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let [all, own] = &self.tasks;
        all.spawn(own.track_future(work));
    }
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// Answered here: clients probe it before they ask anything.
    Hello,
    /// A request to a model.
    Messages,
    /// Forwarded, and free. Only rates hold for it.
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
    let (head, mut body) = request.into_parts();
    match pass(&seat, &head, &mut body).await {
        Ok(response) => Ok(response),
        Err(refused) => {
            // Who was too slow already is not waited for again.
            if refused.status() != StatusCode::REQUEST_TIMEOUT {
                intake::drain(&seat.core.limits, &head.headers, &mut body).await;
            }
            Ok(*refused)
        }
    }
}

/// The error is the response, boxed for its size.
async fn pass(
    seat: &Seat,
    head: &Parts,
    body: &mut Incoming,
) -> Result<Response<Reply>, Box<Response<Reply>>> {
    let (core, arrived) = (&seat.core, Instant::now());
    let refuse = |(response, reason): (Response<Reply>, &'static str)| {
        core.tally.refused(reason);
        Box::new(response)
    };
    let route = route(&head.method, head.uri.path());
    if route == Some(Route::Hello) {
        return Ok(reply::empty());
    }
    if !may_enter(&seat.token, &head.headers) {
        return Err(refuse(reply::wrong_token()));
    }
    let counted = route.ok_or_else(|| refuse(reply::wrong_path()))? == Route::Messages;
    // Before the body is read, and before waiting for anything.
    look(core, &seat.sandbox, counted).await.map_err(|denied| refuse(reply::denied(&denied)))?;
    let is_looked_at = head.method == Method::POST && core.api_fetches == ApiFetches::Refuse;
    if is_looked_at && is_encoded(&head.headers) {
        return Err(refuse(reply::encoded()));
    }
    let held = intake::read(seat, &head.headers, body).await.map_err(refuse)?;
    if is_looked_at && let Some(refused) = unwanted(core, &held.bytes).await {
        // It was read all the same, and so counts towards the rate, as what is free did before.
        if counted {
            match look(core, &seat.sandbox, false).await {
                // Nobody is to wait for his rate to send it once more.
                Ok(()) | Err(Denied::Refused(_)) => {}
                Err(denied) => return Err(refuse(reply::denied(&denied))),
            }
        }
        return Err(refuse(refused));
    }
    let order = Outgoing {
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: headers::upstream(&head.headers),
        body: Arc::new(held),
    };
    let session = session(&head.headers);
    let sender = Sender { sandbox: &seat.sandbox, session: &session, arrived, counted };
    let answer = Box::pin(forward(core, &order, &sender)).await;
    answer.map(|answer| respond(seat, answer)).map_err(|failure| refuse(reply::failure(&failure)))
}

/// What is wrong with a body, where that is looked at.
async fn unwanted(core: &Core, body: &Bytes) -> Option<(Response<Reply>, &'static str)> {
    match fetches::find(body, &core.looking).await {
        Ok(fetch) => fetch.map(reply::fetches),
        Err(error) => Some(reply::no_json(&error)),
    }
}

/// Whether the body is something else than its bytes (RFC 9110, 8.4; `identity` is said by some who encode nothing).
fn is_encoded(headers: &HeaderMap) -> bool {
    let plain = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.trim().is_empty() || value.trim().eq_ignore_ascii_case("identity"))
    };
    !headers.get_all(CONTENT_ENCODING).iter().all(plain)
}

fn respond(seat: &Seat, answer: Answer) -> Response<Reply> {
    let status = answer.response.status();
    let headers = headers::downstream(answer.response.headers(), answer.pattern.as_ref());
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let content_type = text(CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let (reply, pump) = Pump::new(answer, &content_type, length, status.is_success());
    if let Some(pump) = pump {
        seat.spawn(pump.run());
    }
    let mut response = Response::new(reply);
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
