//! A sandbox's side, the opener, and a host, joined by sockets.

use super::super::{Gate, Opener, OpenerSettings, Refusal, Target};
use super::host::{Handler, TestAuthority, serve};
use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::secret::{SecretSet, SecretValue};
use async_trait::async_trait;
use bytes::Bytes;
use hostel_sandbox::id::SandboxId;
use hostel_sandbox::secret::{SecretForm, SecretRef};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) const HOST: &str = "api.example.com";
pub(super) const VALUE: &str = "s3cret/with+odd=chars-0123456789";
pub(super) const PLACEHOLDER: &str = "hostel-secret-token-00112233445566778899aabbccddeeff";

/// What the gate of the tests was asked.
#[derive(Default)]
pub(super) struct TestGate {
    pub(super) host: Option<SocketAddr>,
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) used: Mutex<Vec<String>>,
    pub(super) dials: AtomicUsize,
    pub(super) refuses_secrets: bool,
    pub(super) reads_paths: bool,
}

#[async_trait]
impl Gate for TestGate {
    async fn admit(&self, method: &str, path: &str, host: &str) -> std::result::Result<(), Refusal> {
        self.asked.lock().unwrap().push(format!("{method} {host}{path}"));
        if path.starts_with("/forbidden") || method == "PURGE" {
            return Err(Refusal { reason: "denied_by_rule", message: "rule 3 denies it".to_owned() });
        }
        Ok(())
    }

    async fn dial(&self) -> Result<TcpStream> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        let failed = |problem: String| Error::Http { peer: "the host".to_owned(), problem };
        let host = self.host.ok_or_else(|| failed("nothing listens".to_owned()))?;
        TcpStream::connect(host).await.map_err(|error| failed(error.to_string()))
    }

    async fn secret_used(&self, secret: &str) -> std::result::Result<(), Refusal> {
        if self.refuses_secrets {
            return Err(Refusal { reason: "audit_failed", message: "the log cannot be written".to_owned() });
        }
        self.used.lock().unwrap().push(secret.to_owned());
        Ok(())
    }

    fn reads_paths(&self) -> bool {
        self.reads_paths
    }
}

/// How a world differs from the usual one.
pub(super) struct Options {
    pub(super) tls: bool,
    pub(super) protocols: &'static [&'static str],
    pub(super) names: &'static [&'static str],
    pub(super) trusted: bool,
    pub(super) secrets: Vec<(SecretRef, SecretValue, String)>,
    pub(super) gate: TestGate,
    pub(super) settings: OpenerSettings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: true,
            protocols: &["h2", "http/1.1"],
            names: &[HOST],
            trusted: true,
            secrets: Vec::new(),
            gate: TestGate { reads_paths: true, ..TestGate::default() },
            settings: OpenerSettings::default(),
        }
    }
}

/// The secret of the tests in this form, bound to these hosts.
pub(super) fn secret(hosts: &[&str], form: SecretForm) -> Vec<(SecretRef, SecretValue, String)> {
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let secret = SecretRef { name: "token".to_owned(), hosts, form, env: None };
    vec![(secret, SecretValue::new("token", VALUE.as_bytes()).unwrap(), PLACEHOLDER.to_owned())]
}

pub(super) struct World {
    pub(super) gate: Arc<TestGate>,
    pub(super) front: SocketAddr,
    pub(super) ca_pem: String,
    pub(super) tls: bool,
    state: tempfile::TempDir,
    /// The opener's connections; dropped first in [`Self::cut`].
    pub(super) serving: JoinSet<()>,
    tasks: JoinSet<()>,
}

impl World {
    pub(super) async fn new(options: Options, handler: Handler) -> Self {
        let mut tasks = JoinSet::new();
        let theirs = TestAuthority::new();
        let acceptor = options.tls.then(|| theirs.acceptor(options.names, options.protocols));
        let host = serve(&mut tasks, acceptor, handler).await;
        let roots = if options.trusted { theirs.roots() } else { TestAuthority::new().roots() };
        Self::with_host(options, host, roots, tasks).await
    }

    /// A world whose host is already there.
    pub(super) async fn with_host(
        options: Options,
        host: SocketAddr,
        roots: RootCertStore,
        tasks: JoinSet<()>,
    ) -> Self {
        let state = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(state.path()).unwrap());
        let ca_pem = authority.certificate_pem().to_owned();
        let opener = Arc::new(Opener::new(authority, roots, options.settings).unwrap());
        let gate = Arc::new(TestGate { host: Some(host), ..options.gate });
        let secrets = Arc::new(SecretSet::new(SandboxId::generate(), options.secrets).unwrap());
        let port = if options.tls { 443 } else { 80 };
        let target = Target { host: HOST.to_owned(), port, tls: options.tls, once: false };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        let own = Arc::clone(&gate);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (opener, target) = (Arc::clone(&opener), target.clone());
                let (gate, secrets) = (Arc::clone(&own), Arc::clone(&secrets));
                connections.spawn(async move {
                    let _ = opener.serve(stream, target, gate, secrets).await;
                });
            }
        });
        Self { gate, front, ca_pem, tls: options.tls, state, serving, tasks }
    }

    pub(super) fn ca_file(&self) -> std::path::PathBuf {
        self.state.path().join("ca.pem")
    }

    /// TLS from the sandbox with this name and these protocols.
    pub(super) async fn connect(
        &self,
        name: &str,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.front).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Sends these bytes and gives what comes back until the end.
    pub(super) async fn raw(&self, request: &[u8]) -> String {
        let mut answer = Vec::new();
        // An answer may be followed by an unclean end, since what was sent behind a refused head is not read.
        if self.tls {
            let mut stream = self.connect(HOST, &[]).await.unwrap();
            stream.write_all(request).await.unwrap();
            let _ = stream.read_to_end(&mut answer).await;
        } else {
            let mut stream = TcpStream::connect(self.front).await.unwrap();
            stream.write_all(request).await.unwrap();
            let _ = stream.read_to_end(&mut answer).await;
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A client that speaks HTTP/1.1.
    pub(super) async fn old(&mut self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let stream = self.connect(HOST, &["http/1.1"]).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        self.tasks.spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        sender
    }

    /// A client that speaks HTTP/2.
    pub(super) async fn new_client(&mut self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let stream = self.connect(HOST, &["h2"]).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        self.tasks.spawn(async move {
            let _ = connection.await;
        });
        sender
    }

    /// One request over a connection of its own, in HTTP/2 or HTTP/1.1.
    pub(super) async fn ask(&mut self, two: bool, request: Request<Full<Bytes>>) -> (Response<()>, String) {
        let response = if two {
            let (mut parts, body) = request.into_parts();
            parts.uri = format!("https://{HOST}{}", parts.uri).parse().unwrap();
            parts.headers.remove("host");
            self.new_client().await.send_request(Request::from_parts(parts, body)).await.unwrap()
        } else {
            self.old().await.send_request(request).await.unwrap()
        };
        read(response).await
    }

    /// Cuts all connections of the sandbox.
    pub(super) async fn cut(&mut self) {
        self.serving.shutdown().await;
    }

    pub(super) fn dials(&self) -> usize {
        self.gate.dials.load(Ordering::Relaxed)
    }

    pub(super) fn used(&self) -> Vec<String> {
        self.gate.used.lock().unwrap().clone()
    }
}

/// An answer read to its end.
pub(super) async fn read(response: Response<Incoming>) -> (Response<()>, String) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, ()), String::from_utf8_lossy(&body).into_owned())
}

/// A request for the host.
pub(super) fn get(path: &str) -> http::request::Builder {
    Request::builder().uri(path).header("host", HOST)
}

pub(super) fn empty() -> Full<Bytes> {
    Full::default()
}
