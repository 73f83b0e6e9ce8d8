//! One upstream: its connections, its key, and how many may ask at once.

use crate::config::{KeyHeader, Timeouts, Upstream};
use crate::error::{Error, Result};
use crate::intake::Held;
use crate::scrub::Pattern;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{Client, Request, Response, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that share one HTTP/2 connection before another is opened: servers commonly allow about 100.
const PER_CLIENT: usize = 64;
/// Most connections over HTTP/2 to one upstream.
const MAX_CLIENTS: usize = 16;
const IDLE_CONNECTION: Duration = Duration::from_secs(300);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const STREAM_WINDOW: u32 = 512 << 10;
/// For all that share a connection: clients that do not read must not keep the others from theirs.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// A request as it goes to whichever upstream.
pub(crate) struct Outgoing {
    pub method: Method,
    /// Begins with `/v1/`.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Arc<Held>,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// The connection was refused, so nothing was sent.
    Connect,
    /// The connection did not come in time, so nothing was sent.
    ConnectTimeout,
    /// The head of the response did not come in time.
    Timeout,
    /// The connection broke after something was sent.
    Broken,
}

impl SendFailure {
    /// Whether the upstream may have got the request.
    pub(crate) fn was_sent(self) -> bool {
        matches!(self, Self::Timeout | Self::Broken)
    }
}

/// An upstream, ready to use.
pub(crate) struct Line {
    pub name: Arc<str>,
    pub timeouts: Timeouts,
    /// The key, to be looked for in answers.
    pub pattern: Option<Pattern>,
    base: Url,
    key: (HeaderName, HeaderValue),
    clients: Vec<Client>,
    places: Arc<Semaphore>,
    max_concurrent: usize,
}

/// The certificates that the system trusts.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's certificates cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

impl Line {
    /// Makes the clients of an upstream. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Configuration`] for a key that no header can carry, and for certificates that cannot be read.
    pub(crate) fn new(upstream: &Upstream, roots: &RootCertStore) -> Result<Self> {
        let count = upstream.max_concurrent.div_ceil(PER_CLIENT).clamp(1, MAX_CLIENTS);
        let tls = tls(upstream, roots.clone())?;
        let clients = (0..count).map(|_| client(upstream, &tls)).collect::<Result<_>>()?;
        Ok(Self {
            name: Arc::from(upstream.name.as_str()),
            timeouts: upstream.timeouts,
            pattern: Pattern::new(upstream.key.expose_secret()),
            base: upstream.base_url.clone(),
            key: key(upstream)?,
            clients,
            places: Arc::new(Semaphore::new(upstream.max_concurrent)),
            max_concurrent: upstream.max_concurrent,
        })
    }

    /// Waits for a place, first come first served; `None` where none came in time.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::time::timeout(self.timeouts.queue, place).await.ok()?.ok()
    }

    /// Sends once.
    pub(crate) async fn send(&self, order: &Outgoing) -> Result<Response, SendFailure> {
        let mut url = self.base.clone();
        let path = format!("{}{}", self.base.path().trim_end_matches('/'), order.path);
        url.set_path(&path);
        url.set_query(order.query.as_deref());
        let mut request = Request::new(order.method.clone(), url);
        *request.headers_mut() = order.headers.clone();
        request.headers_mut().insert(self.key.0.clone(), self.key.1.clone());
        if order.method == Method::POST {
            *request.body_mut() = Some(order.body.bytes.clone().into());
        }
        let sent = self.client().execute(request);
        match tokio::time::timeout(self.timeouts.first_byte, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let failure = match (error.is_timeout(), error.is_connect()) {
                    (true, true) => SendFailure::ConnectTimeout,
                    (true, false) => SendFailure::Timeout,
                    (false, true) => SendFailure::Connect,
                    (false, false) => SendFailure::Broken,
                };
                tracing::warn!(upstream = %self.name, error = %chain(&error.without_url()), "no answer");
                Err(failure)
            }
            Err(_) => Err(SendFailure::Timeout),
        }
    }

    /// Few requests share the first client's warm connection; many are spread.
    fn client(&self) -> &Client {
        let busy = self.max_concurrent.saturating_sub(self.places.available_permits()).saturating_sub(1);
        &self.clients[(busy / PER_CLIENT) % self.clients.len()]
    }
}

/// Whether another upstream may do better.
pub(crate) fn is_failure(status: StatusCode) -> bool {
    // 529 of Anthropic's ("overloaded") is one of them.
    status.is_server_error()
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn key(upstream: &Upstream) -> Result<(HeaderName, HeaderValue)> {
    let key = upstream.key.expose_secret();
    let (name, value) = match upstream.key_header {
        KeyHeader::ApiKey => (HeaderName::from_static("x-api-key"), HeaderValue::from_str(key)),
        KeyHeader::Bearer => (AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}"))),
    };
    let mut value = value.map_err(|_| {
        Error::configuration(format!("upstream {:?}", upstream.name), "no header can carry its key")
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn tls(upstream: &Upstream, mut roots: RootCertStore) -> Result<ClientConfig> {
    let wrong = |detail: String| Error::configuration(format!("upstream {:?}", upstream.name), detail);
    for pem in &upstream.extra_roots {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| wrong(format!("extra roots: {error}")))?;
            roots.add(certificate).map_err(|error| wrong(format!("extra roots: {error}")))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn client(upstream: &Upstream, tls: &ClientConfig) -> Result<Client> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(upstream.timeouts.connect)
        .pool_idle_timeout(IDLE_CONNECTION)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true);
    if upstream.http2_prior_knowledge {
        builder = builder.http2_prior_knowledge();
    }
    builder.build().map_err(|error| {
        Error::configuration(format!("upstream {:?}", upstream.name), format!("no client: {error}"))
    })
}
