//! Who is let in, and what holds of every request.

use super::problem::Problem;
use crate::config::Config;
use crate::tokens::Tokens;
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tracing::Instrument as _;

/// How long an answer may take where it needs nobody's patience.
const SOON: Duration = Duration::from_secs(60);
/// Longest request id that is taken from a client.
const REQUEST_ID: usize = 64;
/// Paths that need no token.
const OPEN: &[&str] = &["/health", "/healthz"];

/// Puts the guards before a router.
pub(crate) fn guarded(router: Router, config: &Config) -> Router {
    router
        .layer(middleware::from_fn_with_state(config.tokens.clone(), admit))
        .layer(middleware::from_fn(record))
}

/// Lets in who has a token or, where there are none, who is on this machine and no page of another site.
async fn admit(State(tokens): State<Tokens>, request: Request, next: Next) -> Response {
    let allowed = if tokens.is_empty() {
        of_this_machine(request.method(), request.uri(), request.headers())
    } else if OPEN.contains(&request.uri().path()) {
        Ok(())
    } else {
        authorized(&tokens, request.headers())
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(problem) if is_grpc(request.headers()) => problem.status_of_grpc().into_http::<Body>(),
        Err(problem) => problem.into_response(),
    }
}

/// Whether a client reads gRPC and nothing else.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn authorized(tokens: &Tokens, headers: &HeaderMap) -> Result<(), Problem> {
    let refused =
        |detail: &str| Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized", detail));
    let Some(value) = headers.get(AUTHORIZATION) else {
        return refused("give a token: Authorization: Bearer TOKEN");
    };
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && tokens.accept(token.trim()) => {
            Ok(())
        }
        _ => refused("this is no token of this server: Authorization: Bearer TOKEN"),
    }
}

/// What proxies say of whom they ask for (RFC 7239, RFC 9110 7.6.3, and what was there before these).
const FORWARDED: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// Without tokens whoever reaches the port may do everything. A web page that a browser here shows must not be among
/// them: neither by a name that its owner points to this machine, nor by a request across sites.
fn of_this_machine(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |reason, detail: String| {
        let detail = format!("{detail}; to let others in, start the server with --tokens-file");
        Err(Problem::new(StatusCode::FORBIDDEN, reason, "Forbidden", detail))
    };
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    for host in [uri.authority().map(Authority::as_str), text(HOST.as_str())].into_iter().flatten() {
        if !is_loopback(host) {
            return refused(
                "foreign_host",
                format!(
                    "without tokens only 127.0.0.1, [::1] and localhost are served, and the host is {host:.100?}"
                ),
            );
        }
    }
    for name in FORWARDED {
        if headers.contains_key(name) {
            let detail =
                format!("without tokens nobody is served through a proxy, and there is a header {name}");
            return refused("through_proxy", detail);
        }
    }
    let origin = text(ORIGIN.as_str());
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host));
    if let Some(origin) = origin.filter(|origin| !own(origin)) {
        return refused(
            "foreign_origin",
            format!("without tokens pages of other sites are not served, and the origin is {origin:.100?}"),
        );
    }
    let navigates = method == Method::GET && text("sec-fetch-mode") == Some("navigate");
    if text("sec-fetch-site") == Some("cross-site") && !navigates {
        return refused("foreign_origin", "without tokens pages of other sites are not served".to_owned());
    }
    Ok(())
}

/// Whether a name, with or without a port, can only be this machine.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let host = host.to_ascii_lowercase();
    address.map_or(host == "localhost" || host.ends_with(".localhost"), |address| address.is_loopback())
}

/// Gives each request an id, for logs and the caller, and tells about it.
async fn record(request: Request, next: Next) -> Response {
    let given = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let given = given.filter(|id| (1..=REQUEST_ID).contains(&id.len()));
    let id = given.map_or_else(hostel_session::new_id, ToOwned::to_owned);
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("request", id = %id, method = %request.method(), path = path.as_deref().unwrap_or("-"));
    let begin = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, duration) = (response.status().as_u16(), begin.elapsed());
    span.in_scope(|| tracing::debug!(status, ?duration, "answered"));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Gives up on what does not answer.
pub(super) async fn answer_soon(request: Request, next: Next) -> Response {
    tokio::time::timeout(SOON, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("this took longer than {SOON:?}; it may still happen");
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "slow", "Timeout", detail).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &str)]) -> Result<(), Problem> {
        let headers = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        of_this_machine(&Method::POST, &Uri::from_static("/api/sessions"), &headers.collect())
    }

    #[test]
    fn only_this_machine_gets_in_without_tokens() {
        for host in
            ["localhost", "localhost:3333", "127.0.0.1:3333", "[::1]:3333", "app.localhost", "LOCALHOST"]
        {
            assert!(asked(&[("host", host)]).is_ok(), "{host}");
        }
        for host in [
            "rebound.example.com",
            "localhost.example.com:3333",
            "10.0.0.1",
            "",
            "a b",
            "user@127.0.0.1.example.com",
        ] {
            let problem = asked(&[("host", host)]).unwrap_err();
            assert!(problem.detail().contains("--tokens-file"), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_do_not_get_in() {
        for origin in ["http://localhost:8080", "http://127.0.0.1", "https://[::1]:1"] {
            assert!(asked(&[("host", "localhost"), ("origin", origin)]).is_ok(), "{origin}");
        }
        for origin in ["https://example.com", "null", "http://localhost.example.com", "file://"] {
            assert_eq!(
                asked(&[("host", "localhost"), ("origin", origin)]).unwrap_err().reason(),
                "foreign_origin",
                "{origin}"
            );
        }
        assert!(asked(&[("sec-fetch-site", "cross-site")]).is_err());
        assert!(asked(&[("sec-fetch-site", "same-origin")]).is_ok());
    }
}
