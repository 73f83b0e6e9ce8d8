//! HTTP between a sandbox and one host, request by request, with TLS opened where it is spoken.
//!
//! Every request is parsed and written anew, so what was decided about is what is sent. Nothing is buffered whole:
//! bodies stream both ways. A request goes to the one host that the connection was let through for, and to no other.

mod body;
mod denied;
mod exchange;
mod guard;
mod head;
mod inject;
mod path;
mod scrub;
mod tasks;
#[cfg(test)]
mod tests;
mod tunnel;
mod upstream;

use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::secret::SecretSet;
use async_trait::async_trait;
use exchange::Exchange;
use guard::{Guard, Watch};
use hostel_sandbox::network::normal_name;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tasks::Owner;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// A name in the form of [`normal_name`], or an address.
    pub(crate) host: String,
    /// The TCP port.
    pub(crate) port: u16,
    /// Whether TLS is spoken on both sides, or plain HTTP.
    pub(crate) tls: bool,
    /// Whether the connection ends after one answer: the next request of a proxy's client may be for another host.
    pub(crate) once: bool,
}

/// What decides about requests and makes connections.
#[async_trait]
pub(crate) trait Gate: Send + Sync + 'static {
    /// Whether this request may be sent. `path` is what the rules are to be held against, without the query.
    async fn admit(&self, method: &str, path: &str, host: &str) -> std::result::Result<(), Refusal>;
    /// A new connection to the host.
    async fn dial(&self) -> Result<TcpStream>;
    /// A place for one more connection to the host, kept for as long as that lasts: over HTTP/2 one connection of the
    /// sandbox may need many.
    fn place(&self) -> std::result::Result<Option<OwnedSemaphorePermit>, Refusal> {
        Ok(None)
    }
    /// Notes that a secret is about to be sent, and may refuse it.
    async fn secret_used(&self, secret: &str) -> std::result::Result<(), Refusal>;
    /// Whether a rule for this host looks at paths. If so, a path that servers read in different ways is refused, and
    /// [`Self::admit`] gets the decoded one; else it gets the path as it was sent.
    fn reads_paths(&self) -> bool {
        true
    }
}

/// Why something was not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A stable word for programs.
    pub(crate) reason: &'static str,
    /// For people: what was refused, and by which rule.
    pub(crate) message: String,
}

/// Bounds of one connection.
#[derive(Debug, Clone)]
pub struct OpenerSettings {
    /// Longest head of a message: its first line and its headers, in bytes.
    pub max_head: usize,
    /// Most headers of a message.
    pub max_headers: usize,
    /// Longest body of a message, in bytes.
    pub max_body: u64,
    /// Most requests at a time on one HTTP/2 connection.
    pub max_streams: u32,
    /// Time for a TLS handshake, and for connecting.
    pub handshake_timeout: Duration,
    /// Time for a request's head, from the end of the last answer.
    pub head_timeout: Duration,
    /// Time from a request to the head of its answer.
    pub answer_timeout: Duration,
    /// Longest pause within a body or a tunnel.
    pub idle_timeout: Duration,
    /// Whether secrets are put into requests over plain HTTP too, where all on the way can read them.
    pub secrets_without_tls: bool,
}

impl Default for OpenerSettings {
    fn default() -> Self {
        Self {
            max_head: 32 * 1024,
            max_headers: 128,
            max_body: 16 << 30,
            max_streams: 64,
            handshake_timeout: Duration::from_secs(15),
            head_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(10 * 60),
            secrets_without_tls: false,
        }
    }
}

/// Serves HTTP to sandboxes, opening TLS. One per daemon.
pub struct Opener {
    authority: Arc<Authority>,
    /// For hosts asked over HTTP/1.1, and for those asked over HTTP/2, which may answer in either.
    clients: (Arc<ClientConfig>, Arc<ClientConfig>),
    settings: Arc<OpenerSettings>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Opener {
    /// Shows sandboxes certificates of `authority` and believes hosts that `roots` vouch for.
    ///
    /// # Errors
    /// [`Error::Certificate`] where TLS cannot be set up.
    pub fn new(authority: Arc<Authority>, roots: RootCertStore, settings: OpenerSettings) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut old = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Certificate(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut new = old.clone();
        old.alpn_protocols = vec![b"http/1.1".to_vec()];
        new.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { authority, clients: (Arc::new(old), Arc::new(new)), settings: Arc::new(settings) })
    }

    /// Serves one connection from a sandbox until it ends. Dropping this cuts it with all that it started.
    ///
    /// # Errors
    /// [`Error::Tls`] where the handshake with the sandbox fails, [`Error::Http`] where the connection breaks off.
    /// What goes wrong with a single request is answered to the sandbox and is no error here.
    pub(crate) async fn serve<S>(
        &self,
        client: S,
        target: Target,
        gate: Arc<dyn Gate>,
        secrets: Arc<SecretSet>,
    ) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !target.tls {
            return Box::pin(self.serve_old(client, target, gate, secrets)).await;
        }
        let stream = Box::pin(self.accept(client, &target)).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            Box::pin(self.serve_new(stream, target, gate, secrets)).await
        } else {
            Box::pin(self.serve_old(stream, target, gate, secrets)).await
        }
    }

    /// The sandbox's side of TLS.
    async fn accept<S>(&self, client: S, target: &Target) -> Result<tokio_rustls::server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let failed = |problem: String| Error::Tls { peer: "the sandbox".to_owned(), problem };
        let accept = async {
            let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), client);
            let hello = acceptor.await.map_err(|error| failed(error.to_string()))?;
            let named = hello.client_hello().server_name().map(str::to_owned);
            if let Some(name) = named
                && normal_name(&name).ok().as_ref() != Some(&target.host)
            {
                return Err(failed(format!("it asked for {name:?} on a connection to {:?}", target.host)));
            }
            let config = self.authority.server_config(&target.host)?;
            hello.into_stream(config).await.map_err(|error| failed(error.to_string()))
        };
        timeout(self.settings.handshake_timeout, accept)
            .await
            .unwrap_or_else(|_| Err(failed("the handshake took too long".to_owned())))
    }

    /// HTTP/1.1 from the sandbox.
    async fn serve_old<S>(
        &self,
        client: S,
        target: Target,
        gate: Arc<dyn Gate>,
        secrets: Arc<SecretSet>,
    ) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let owner = Owner::default();
        let watch = Arc::new(Watch::default());
        let io = TokioIo::new(Guard::new(client, Arc::clone(&watch), &self.settings));
        let tls = target.tls.then(|| Arc::clone(&self.clients.0));
        let exchange =
            Exchange::new(target, gate, secrets, Arc::clone(&self.settings), owner.tasks(), tls, watch)?;
        let own = Arc::clone(&exchange);
        let service = service_fn(move |request| {
            let exchange = Arc::clone(&exchange);
            async move { Ok::<_, Infallible>(exchange.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.head_timeout)
            .max_headers(self.settings.max_headers)
            .serve_connection(io, service)
            .with_upgrades()
            .await;
        if let Some(tunnel) = own.take_tunnel() {
            tunnel.run(self.settings.idle_timeout).await;
        }
        owner.finish().await;
        ended(served)
    }

    /// HTTP/2 from the sandbox.
    async fn serve_new<S>(
        &self,
        client: S,
        target: Target,
        gate: Arc<dyn Gate>,
        secrets: Arc<SecretSet>,
    ) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let owner = Owner::default();
        let tls = Some(Arc::clone(&self.clients.1));
        let watch = Arc::new(Watch::default());
        let exchange =
            Exchange::new(target, gate, secrets, Arc::clone(&self.settings), owner.tasks(), tls, watch)?;
        let service = service_fn(move |request| {
            let exchange = Arc::clone(&exchange);
            async move { Ok::<_, Infallible>(exchange.answer(request).await) }
        });
        let served = http2::Builder::new(owner.tasks())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.settings.max_streams)
            .max_header_list_size(u32::try_from(self.settings.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(self.settings.head_timeout)
            .serve_connection(TokioIo::new(client), service)
            .await;
        owner.finish().await;
        ended(served)
    }
}

/// How a connection ended: one that was silent for too long ended well.
fn ended(served: hyper::Result<()>) -> Result<()> {
    match served {
        Err(error) if !error.is_timeout() => {
            Err(Error::Http { peer: "the sandbox".to_owned(), problem: error.to_string() })
        }
        _ => Ok(()),
    }
}
