//! One request and its answer.

use super::body::{Relay, clean};
use super::denied::{Denied, MARK};
use super::guard::Watch;
use super::inject::{Filled, fill};
use super::scrub::Patterns;
use super::tasks::Tasks;
use super::tunnel::Tunnel;
use super::upstream::Upstream;
use super::{Gate, OpenerSettings, Target, path};
use crate::error::{Error, Result};
use crate::secret::{Bound, SecretSet};
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use rustls::ClientConfig;
use std::sync::{Arc, Mutex, PoisonError};

/// An answer's body: the host's, or our own.
pub(super) type AnswerBody = Either<Relay, Full<Bytes>>;

/// Headers in which servers take another method.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
/// The field of a query in which they do.
const METHOD_IN_QUERY: &str = "_method";
/// Headers in which they take another path.
const PATH_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];
/// Headers that are about one connection (RFC 9110 §7.6.1), and those meant for a proxy.
const HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What all requests of one connection share.
pub(super) struct Exchange {
    target: Target,
    authority: String,
    gate: Arc<dyn Gate>,
    secrets: Arc<SecretSet>,
    settings: Arc<OpenerSettings>,
    upstream: Arc<Upstream>,
    watch: Arc<Watch>,
    tunnel: Mutex<Option<Tunnel>>,
}

impl Exchange {
    pub(super) fn new(
        target: Target,
        gate: Arc<dyn Gate>,
        secrets: Arc<SecretSet>,
        settings: Arc<OpenerSettings>,
        tasks: Tasks,
        tls: Option<Arc<ClientConfig>>,
        watch: Arc<Watch>,
    ) -> Result<Arc<Self>> {
        let upstream = Upstream::new(&target, Arc::clone(&gate), Arc::clone(&settings), tasks, tls)
            .map_err(|error| Error::Tls { peer: target.host.clone(), problem: error.to_string() })?;
        Ok(Arc::new(Self {
            authority: path::authority(&target),
            target,
            gate,
            secrets,
            settings,
            upstream,
            watch,
            tunnel: Mutex::default(),
        }))
    }

    /// The tunnel that a request has asked for and got.
    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Answers a request: from the host, or with why not.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let (mut response, last) = match self.watch.problem() {
            Some(problem) => (problem.into_response(), true),
            None => {
                let response = Box::pin(self.pass(request)).await.unwrap_or_else(Denied::into_response);
                (response, self.target.once)
            }
        };
        // A connection that changes the protocol is no longer one of requests.
        if last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Many servers take the method from a header where there is one: it must be allowed too. Some take the path.
    async fn check_overrides(&self, headers: &mut HeaderMap, path: &str) -> Result<(), Denied> {
        for (name, value) in headers.iter().filter(|(name, _)| is_among(name, &METHOD_OVERRIDES)) {
            let method =
                value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_alphabetic()));
            let method =
                method.ok_or_else(|| Denied::bad("bad_request", format!("{name} names no method")))?;
            self.gate.admit(method, path, &self.target.host).await?;
        }
        if self.gate.reads_paths() {
            let overrides = headers.keys().filter(|name| is_among(name, &PATH_OVERRIDES));
            for name in overrides.cloned().collect::<Vec<_>>() {
                headers.remove(name);
            }
        }
        Ok(())
    }

    /// Some take it from the query.
    async fn check_query(&self, query: &str, path: &str) -> Result<(), Denied> {
        for (_, method) in
            form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == METHOD_IN_QUERY)
        {
            // What is no method is none for anybody. Frameworks take one in any case here.
            if !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                self.gate.admit(&method.to_ascii_uppercase(), path, &self.target.host).await?;
            }
        }
        Ok(())
    }

    async fn pass(&self, mut request: Request<Incoming>) -> Result<Response<AnswerBody>, Denied> {
        self.check(&request)?;
        let path = path::for_rules(request.uri().path(), self.gate.reads_paths())?;
        self.gate.admit(request.method().as_str(), &path, &self.target.host).await?;
        self.check_overrides(request.headers_mut(), &path).await?;
        self.check_query(request.uri().query().unwrap_or_default(), &path).await?;
        let bound = self.bound().await;
        let upgrade = wanted_upgrade(&request);
        if upgrade.is_some() && !bound.is_empty() {
            let message = format!(
                "{} gets a secret, and what comes back through a tunnel cannot be cleaned of it",
                self.target.host
            );
            return Err(Denied::new(StatusCode::FORBIDDEN, "upgrade_with_secret", message));
        }
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        tidy_request(&mut parts.headers, upgrade, !bound.is_empty())?;
        let Filled { used, credentials } = fill(&mut parts.headers, &bound)?;
        for secret in &used {
            self.gate.secret_used(secret).await?;
        }
        let head = parts.method == Method::HEAD;
        // Nothing the server side noted about the request may reach the client side.
        parts.extensions.clear();
        let body = Relay::request(body, self.settings.max_body, self.settings.idle_timeout);
        let (response, lease) = self.upstream.send(Request::from_parts(parts, body), &self.authority).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, client);
        }
        let patterns = (!bound.is_empty()).then(|| Arc::new(Patterns::new(&bound, credentials)));
        let (mut parts, body) = response.into_parts();
        check_encoding(&parts.headers, patterns.is_some(), &self.target.host)?;
        strip(&mut parts.headers);
        parts.headers.remove(MARK);
        parts.version = Version::default();
        parts.extensions.clear();
        if let Some(patterns) = &patterns {
            clean(&mut parts.headers, patterns);
            let bodyless = head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            if !bodyless {
                // The length changes where a secret is taken out.
                parts.headers.remove(header::CONTENT_LENGTH);
            }
        }
        let body = Relay::answer(body, self.settings.max_body, self.settings.idle_timeout, patterns, lease);
        Ok(Response::from_parts(parts, Either::Left(body)))
    }

    /// Checks that the request is for the target, in every place where it names one, and of a kind that is passed on.
    fn check(&self, request: &Request<Incoming>) -> Result<(), Denied> {
        if request.method() == Method::CONNECT {
            let message = "a CONNECT inside a connection to a host is not passed on";
            return Err(Denied::new(StatusCode::FORBIDDEN, "connect_inside", message));
        }
        let headers = request.headers();
        let mut named = false;
        if let Some(authority) = request.uri().authority() {
            path::check_authority(authority.as_str(), &self.target)?;
            named = true;
        }
        for host in headers.get_all(header::HOST) {
            let text = host.to_str().map_err(|_| Denied::bad("bad_request", "the host is not a name"))?;
            path::check_authority(text, &self.target)?;
            named = true;
        }
        if !named {
            return Err(Denied::bad("bad_request", "the request does not name a host"));
        }
        let own = if self.target.tls { "https" } else { "http" };
        if request.uri().scheme_str().is_some_and(|scheme| !scheme.eq_ignore_ascii_case(own)) {
            let message = format!("the request names another scheme than {own}");
            return Err(Denied::new(StatusCode::MISDIRECTED_REQUEST, "name_mismatch", message));
        }
        if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
            return Err(Denied::bad("bad_request", "there is more than one content-length"));
        }
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > self.settings.max_body) {
            let message = format!("the body has more than {} bytes", self.settings.max_body);
            return Err(Denied::new(StatusCode::PAYLOAD_TOO_LARGE, "limit", message));
        }
        Ok(())
    }

    /// The secrets that may go over this connection.
    async fn bound(&self) -> Vec<Bound> {
        if self.target.tls || self.settings.secrets_without_tls {
            self.secrets.bound(&self.target.host).await
        } else {
            Vec::new()
        }
    }

    /// Passes on that the host changes the protocol.
    fn switch(
        &self,
        mut response: Response<Incoming>,
        client: Option<OnUpgrade>,
    ) -> Result<Response<AnswerBody>, Denied> {
        let Some(client) = client else {
            let message = format!("{} changes the protocol, unasked", self.target.host);
            return Err(Denied::gateway("upstream_failed", message));
        };
        let host = hyper::upgrade::on(&mut response);
        self.watch.upgrade();
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tunnel { client, host });
        let (mut parts, _) = response.into_parts();
        parts.extensions.clear();
        Ok(Response::from_parts(parts, Either::Right(Full::default())))
    }
}

/// The protocol that the request asks to change to, where it is one that may pass: WebSocket (RFC 6455 §4.1). Others
/// are not asked for, and `h2c` would hide requests.
/// Whether a header has one of those names for a server that takes `_` for `-`, as those that make variables of them do.
fn is_among(name: &HeaderName, names: &[&str]) -> bool {
    names.contains(&name.as_str().replace('_', "-").as_str())
}

fn wanted_upgrade(request: &Request<Incoming>) -> Option<HeaderValue> {
    let headers = request.headers();
    let asked =
        headers.get(header::UPGRADE).filter(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))?;
    let plain = request.version() == Version::HTTP_11 && request.method() == Method::GET;
    let bodyless = hyper::body::Body::is_end_stream(request.body());
    (plain && bodyless && listed(headers, "upgrade")).then(|| asked.clone())
}

/// Whether the `Connection` header names this.
fn listed(headers: &HeaderMap, name: &str) -> bool {
    let lists = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(name))
}

/// Removes what is about the connection of before, and what the `Connection` header says is.
fn strip(headers: &mut HeaderMap) {
    let lists: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in lists {
        headers.remove(name);
    }
    for name in &HOP {
        headers.remove(name);
    }
}

/// Makes a request's headers ready for the host.
fn tidy_request(headers: &mut HeaderMap, upgrade: Option<HeaderValue>, secrets: bool) -> Result<(), Denied> {
    let trailers =
        headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip(headers);
    // Answered here: the sandbox is told to go on when its body is first asked for.
    headers.remove(header::EXPECT);
    headers.remove(header::TE);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if secrets {
        // An answer that cannot be read cannot be cleaned, nor can one of which the sandbox asks for a half of the secret
        // at a time. A server may always answer with the whole (RFC 9110 §14.2).
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // gRPC and Connect compress each message by itself.
        headers.remove("grpc-accept-encoding");
        headers.remove("connect-accept-encoding");
        headers.remove(header::RANGE);
        headers.remove(header::IF_RANGE);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    // HTTP/2 may send cookies apart; before, they must be together (RFC 9113 §8.2.3).
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1 {
        let together = HeaderValue::from_bytes(&cookies.join(b"; ".as_slice()))
            .map_err(|_| Denied::bad("bad_request", "the cookies are malformed"))?;
        headers.insert(header::COOKIE, together);
    }
    Ok(())
}

/// Refuses an answer whose body cannot be read here though secrets must be taken out of it.
fn check_encoding(headers: &HeaderMap, secrets: bool, host: &str) -> Result<(), Denied> {
    let other = |name: HeaderName, plain: &str| {
        headers.get_all(name).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(plain.as_bytes()))
    };
    let coded = other(header::CONTENT_ENCODING, "identity")
        || other(header::TRANSFER_ENCODING, "chunked")
        || other(HeaderName::from_static("grpc-encoding"), "identity")
        || other(HeaderName::from_static("connect-content-encoding"), "identity");
    if secrets && coded {
        let message =
            format!("{host} compressed its answer though asked not to; it cannot be cleaned of secrets");
        return Err(Denied::gateway("compressed_answer", message));
    }
    Ok(())
}
