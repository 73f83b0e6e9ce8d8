//! Connections to the host, for one connection of the sandbox: made when needed, used again while they last.

use super::body::Relay;
use super::denied::Denied;
use super::tasks::Tasks;
use super::{Gate, OpenerSettings, Target};
use crate::decision::Reason;
use crate::error::Error;
use http::{Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Time for a used connection to be ready for the next request.
const READY: Duration = Duration::from_secs(1);
/// Most connections that wait for a request.
const MOST_IDLE: usize = 8;

/// The connections to one host.
pub(super) struct Upstream {
    gate: Arc<dyn Gate>,
    host: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    settings: Arc<OpenerSettings>,
    tasks: Tasks,
    /// Connections of HTTP/1.1 that wait for a request.
    idle: Mutex<Vec<Old>>,
    /// What the host speaks. Held while the first connection is made, so that HTTP/2 needs only one.
    spoken: tokio::sync::Mutex<Spoken>,
}

/// What a connection holds while it lasts.
type Place = Option<OwnedSemaphorePermit>;

type Old = http1::SendRequest<Relay>;
type New = http2::SendRequest<Relay>;

#[derive(Clone)]
enum Spoken {
    Unknown,
    Old,
    New(New),
}

enum Sender {
    Old(Old),
    New(New),
}

/// A connection that is busy with an answer.
pub(super) struct Lease(Option<(Arc<Upstream>, Old)>);

impl Lease {
    /// The answer is read to its end: the next request may use the connection.
    pub(super) fn give_back(self) {
        if let Some((upstream, sender)) = self.0
            && !sender.is_closed()
        {
            let mut idle = upstream.idle();
            if idle.len() < MOST_IDLE {
                idle.push(sender);
            }
        }
    }
}

impl Upstream {
    pub(super) fn new(
        target: &Target,
        gate: Arc<dyn Gate>,
        settings: Arc<OpenerSettings>,
        tasks: Tasks,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Arc<Self>, rustls::pki_types::InvalidDnsNameError> {
        let name = ServerName::try_from(target.host.clone());
        let tls = tls.map(|config| Ok((TlsConnector::from(config), name?))).transpose()?;
        Ok(Arc::new(Self {
            gate,
            host: target.host.clone(),
            // Without TLS nobody says that HTTP/2 is spoken.
            spoken: tokio::sync::Mutex::new(if tls.is_some() { Spoken::Unknown } else { Spoken::Old }),
            tls,
            settings,
            tasks,
            idle: Mutex::default(),
        }))
    }

    /// Sends a request with this authority and gives the answer's head. A request that a used connection did not take
    /// any more goes to a new one; one that was sent is never sent again.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Relay>,
        authority: &str,
    ) -> Result<(Response<Incoming>, Lease), Denied> {
        let mut fresh = false;
        loop {
            let sender = self.sender(fresh).await?;
            shape(&mut request, authority, matches!(sender, Sender::New(_)), self.tls.is_some())?;
            let sent = timeout(self.settings.answer_timeout, async {
                match sender {
                    Sender::Old(mut sender) => match sender.try_send_request(request).await {
                        Ok(response) => Ok((response, Lease(Some((Arc::clone(self), sender))))),
                        Err(mut error) => Err((error.take_message(), error.into_error())),
                    },
                    Sender::New(mut sender) => match sender.try_send_request(request).await {
                        Ok(response) => Ok((response, Lease(None))),
                        Err(mut error) => Err((error.take_message(), error.into_error())),
                    },
                }
            });
            match sent.await {
                Ok(Ok(answered)) => return Ok(answered),
                Ok(Err((Some(unsent), _))) if !fresh => {
                    request = unsent;
                    fresh = true;
                }
                Ok(Err((_, error))) => {
                    let message = format!("{} broke off: {}", self.host, chain(&error));
                    return Err(Denied::gateway("upstream_failed", message));
                }
                Err(_) => {
                    let message = format!("{} did not answer in time", self.host);
                    return Err(Denied::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message));
                }
            }
        }
    }

    /// A connection that can take a request now; with `fresh`, none that was used before.
    async fn sender(self: &Arc<Self>, fresh: bool) -> Result<Sender, Denied> {
        if fresh {
            self.idle().clear();
        }
        loop {
            let Some(mut sender) = self.idle().pop() else { break };
            if matches!(timeout(READY, sender.ready()).await, Ok(Ok(()))) {
                return Ok(Sender::Old(sender));
            }
        }
        let mut spoken = self.spoken.lock().await;
        match &*spoken {
            Spoken::Old => {
                drop(spoken);
                return Box::pin(self.connect()).await;
            }
            Spoken::New(sender) if !fresh && !sender.is_closed() => return Ok(Sender::New(sender.clone())),
            Spoken::New(_) | Spoken::Unknown => {}
        }
        let sender = Box::pin(self.connect()).await?;
        *spoken = match &sender {
            Sender::Old(_) => Spoken::Old,
            Sender::New(sender) => Spoken::New(sender.clone()),
        };
        Ok(sender)
    }

    async fn connect(self: &Arc<Self>) -> Result<Sender, Denied> {
        let place = self.gate.place()?;
        let limit = self.settings.handshake_timeout;
        let late = |_| {
            let message = format!("connecting to {} took too long", self.host);
            Denied::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
        };
        let stream = match timeout(limit, self.gate.dial()).await.map_err(late)? {
            Ok(stream) => stream,
            // That the host does not answer is no refusal.
            Err(Error::Refused { reason, message })
                if !matches!(reason, Reason::ConnectFailed | Reason::ResolveFailed) =>
            {
                return Err(Denied::new(StatusCode::FORBIDDEN, reason.as_str(), message));
            }
            Err(error) => {
                let message = format!("cannot connect to {}: {error}", self.host);
                return Err(Denied::gateway("connect_failed", message));
            }
        };
        // Without it small messages may wait; a socket that does not take it still works.
        let _ = stream.set_nodelay(true);
        let Some((connector, name)) = &self.tls else { return self.handshake_old(stream, place).await };
        let connected = timeout(limit, connector.connect(name.clone(), stream)).await.map_err(late)?;
        let stream = connected.map_err(|error| {
            let message = format!("TLS with {} failed: {error}", self.host);
            Denied::gateway("upstream_tls", message)
        })?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.handshake_new(stream, place).await
        } else {
            self.handshake_old(stream, place).await
        }
    }

    async fn handshake_old<S>(&self, stream: S, place: Place) -> Result<Sender, Denied>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_headers(self.settings.max_headers)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.failed(&error))?;
        self.tasks.start(async move {
            // Its failure is the failure of the request that waits for it.
            let _ = connection.with_upgrades().await;
            drop(place);
        });
        Ok(Sender::Old(sender))
    }

    async fn handshake_new<S>(&self, stream: S, place: Place) -> Result<Sender, Denied>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(self.tasks.clone())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.settings.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(self.settings.head_timeout)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.failed(&error))?;
        self.tasks.start(async move {
            let _ = connection.await;
            drop(place);
        });
        Ok(Sender::New(sender))
    }

    fn failed(&self, error: &hyper::Error) -> Denied {
        Denied::gateway("upstream_failed", format!("{} broke off: {}", self.host, chain(error)))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Old>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the request's target for the version that is spoken: with `:authority` in HTTP/2, with `Host` before.
fn shape(request: &mut Request<Relay>, authority: &str, new: bool, tls: bool) -> Result<(), Denied> {
    let malformed = |_| Denied::bad("bad_request", "the request's target is malformed");
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    if new {
        let scheme = if tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(malformed)?;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
    } else {
        *request.uri_mut() = Uri::builder().path_and_query(path).build().map_err(malformed)?;
        *request.version_mut() = Version::HTTP_11;
        let host = http::HeaderValue::from_str(authority)
            .map_err(|_| Denied::bad("bad_request", "the host's name is malformed"))?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().remove(header::TE);
    }
    Ok(())
}

/// An error with its causes, which hyper keeps apart.
fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
