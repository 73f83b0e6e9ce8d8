//! Hosts, a sandbox's doors, and what a program inside can try.

use hostel_egress::authority::Authority;
use hostel_egress::secret::SecretSet;
use hostel_egress::{
    Attachment, Decision, Discard, Doors, Egress, Names, Opener, OpenerSettings, Origin, Presets, Recorder,
    Ruleset, Settings, Table,
};
use hostel_sandbox::SandboxId;
use hostel_sandbox::network::{NetworkPolicy, NetworkRule, RuleAction};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How long a connection may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sandbox that is served, and the hosts that it may know.
pub(crate) struct World {
    pub(crate) table: Arc<Table>,
    pub(crate) sandbox: Attachment,
    pub(crate) roots: rustls::RootCertStore,
    proxy: SocketAddr,
    transparent: SocketAddr,
    pub(crate) dns_udp: SocketAddr,
    pub(crate) dns_tcp: SocketAddr,
    meant: Arc<Mutex<HashMap<u16, SocketAddr>>>,
    certificate: Certificate,
    hosts: JoinSet<()>,
}

#[derive(Clone)]
struct Certificate {
    issuer: Arc<rcgen::CertifiedIssuer<'static, rcgen::KeyPair>>,
}

impl Certificate {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { issuer: Arc::new(rcgen::CertifiedIssuer::self_signed(params, key).unwrap()) }
    }

    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &*self.issuer).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A host of the outer world, with what it heard.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) heard: Arc<Mutex<Vec<u8>>>,
}

impl Host {
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

/// An allowing rule for a pattern and a port.
pub(crate) fn allow(host: &str, port: u16) -> NetworkRule {
    NetworkRule { ports: vec![port], ..NetworkRule::allow(host.parse().unwrap()) }
}

/// A denying rule for all ports.
pub(crate) fn deny(host: &str) -> NetworkRule {
    NetworkRule { action: RuleAction::Deny, ..NetworkRule::allow(host.parse().unwrap()) }
}

pub(crate) fn rules(policy: &NetworkPolicy) -> Ruleset {
    Ruleset::new(policy, &Presets::default()).unwrap()
}

impl World {
    /// A sandbox that may reach nothing yet.
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default(), Arc::new(Discard)).await
    }

    pub(crate) async fn with(settings: Settings, recorder: Arc<dyn Recorder>) -> Self {
        let table = Arc::new(Table::default());
        let meant: Arc<Mutex<HashMap<u16, SocketAddr>>> = Arc::default();
        let told = Arc::clone(&meant);
        let origin = Origin::Hook(Arc::new(move |stream: &TcpStream| {
            let port = stream.peer_addr()?.port();
            told.lock().unwrap().get(&port).copied().ok_or_else(|| std::io::Error::other("not meant"))
        }));
        let settings = Settings {
            names: Names::Fixed(Arc::clone(&table)),
            reachable: vec!["127.1.0.0/16".parse().unwrap()],
            origin,
            ..settings
        };
        let certificate = Certificate::new();
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(&directory.path().join("ca")).unwrap());
        let mut outside = rustls::RootCertStore::empty();
        outside.add(certificate.issuer.der().clone()).unwrap();
        let mut roots = outside.clone();
        roots.add(pem(authority.certificate_pem())).unwrap();
        let quick = OpenerSettings { head_timeout: Duration::from_secs(1), ..OpenerSettings::default() };
        let opener = Opener::new(authority, outside, quick).unwrap();
        let egress = Egress::new(settings, recorder, Arc::new(opener)).unwrap();
        let listen = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            (listener.local_addr().unwrap(), listener)
        };
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_nonblocking(true).unwrap();
        let dns_udp = udp.local_addr().unwrap();
        let ((transparent, one), (proxy, two), (dns_tcp, three)) = (listen(), listen(), listen());
        let doors =
            Doors { transparent: Some(one), proxy: Some(two), dns_udp: Some(udp), dns_tcp: Some(three) };
        let none = Arc::new(SecretSet::none());
        let sandbox = egress.attach(SandboxId::generate(), Ruleset::none(), none, doors).unwrap();
        let hosts = JoinSet::new();
        Self { table, sandbox, roots, proxy, transparent, dns_udp, dns_tcp, meant, certificate, hosts }
    }

    /// Puts an allowlist in force.
    pub(crate) fn policy(&self, list: Vec<NetworkRule>) {
        self.sandbox.set_policy(rules(&NetworkPolicy::allowlist(list)));
    }

    /// A host at an address, named in the table, that answers every request with 200 and its own name.
    pub(crate) async fn http(&mut self, name: &str, address: &str) -> Host {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        self.answering(name, address, answer).await
    }

    /// A host that answers every request with the same.
    pub(crate) async fn answering(&mut self, name: &str, address: &str, answer: String) -> Host {
        let (host, listener) = self.host(name, address).await;
        let heard = Arc::clone(&host.heard);
        self.hosts.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                clients.spawn(answer_all(stream, answer.clone(), Arc::clone(&heard)));
            }
        });
        host
    }

    /// The same in TLS.
    pub(crate) async fn https(&mut self, name: &str, address: &str) -> Host {
        let (host, listener) = self.host(name, address).await;
        let (heard, acceptor) = (Arc::clone(&host.heard), self.certificate.acceptor(name));
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        self.hosts.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, heard) = (acceptor.clone(), answer.clone(), Arc::clone(&heard));
                clients.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer_all(stream, answer, heard).await;
                    }
                });
            }
        });
        host
    }

    /// A host that reads so many bytes of each client, and no more.
    pub(crate) async fn reading(&mut self, name: &str, address: &str, bytes: usize) -> Host {
        let (host, listener) = self.host(name, address).await;
        self.hosts.spawn(async move {
            let mut full = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut part = (&mut stream).take(bytes as u64);
                let _ = tokio::io::copy(&mut part, &mut tokio::io::sink()).await;
                full.push(stream);
            }
        });
        host
    }

    /// A host that says something first and then sends back what it hears, until the client's end.
    pub(crate) async fn echo(&mut self, name: &str, address: &str, first: &'static [u8]) -> Host {
        let (host, listener) = self.host(name, address).await;
        self.hosts.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                clients.spawn(async move {
                    let _ = stream.write_all(first).await;
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.shutdown().await;
                });
            }
        });
        host
    }

    async fn host(&mut self, name: &str, address: &str) -> (Host, TcpListener) {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        self.table.set(name, &[at.ip()]);
        (Host { address: at, heard: Arc::default() }, listener)
    }

    /// A connection that was meant for any address.
    pub(crate) async fn direct(&self, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        self.meant.lock().unwrap().insert(socket.local_addr().unwrap().port(), to);
        socket.connect(self.transparent).await.unwrap()
    }

    /// A connection to the proxy.
    pub(crate) async fn proxied(&self) -> TcpStream {
        TcpStream::connect(self.proxy).await.unwrap()
    }

    /// CONNECT; the stream where it is granted, else the answer.
    pub(crate) async fn connect(&self, authority: &str) -> Result<TcpStream, String> {
        let mut stream = self.proxied().await;
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        if head.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(head) }
    }

    /// TLS over a connection.
    pub(crate) async fn tls(&self, stream: TcpStream, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The reason of the latest decision that refused something.
    pub(crate) fn refused(&self) -> String {
        let decision = self.sandbox.recent().into_iter().rev().find(|decision| !decision.allowed);
        decision.map_or_else(|| "nothing".to_owned(), |decision| decision.reason.clone())
    }

    /// The latest decision that allowed something.
    pub(crate) fn allowed(&self) -> Arc<Decision> {
        self.sandbox.recent().into_iter().rev().find(|decision| decision.allowed).unwrap()
    }
}

fn pem(text: &str) -> CertificateDer<'static> {
    rustls::pki_types::pem::PemObject::from_pem_slice(text.as_bytes()).unwrap()
}

/// Answers each head with the same bytes.
async fn answer_all<S>(mut stream: S, answer: String, heard: Arc<Mutex<Vec<u8>>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut unanswered = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        heard.lock().unwrap().extend_from_slice(&buffer[..count]);
        unanswered.extend_from_slice(&buffer[..count]);
        while let Some(end) = unanswered.windows(4).position(|part| part == b"\r\n\r\n") {
            let head: Vec<u8> = unanswered.drain(..end + 4).collect();
            let last = String::from_utf8_lossy(&head).to_ascii_lowercase().contains("connection: close");
            if stream.write_all(answer.as_bytes()).await.is_err() || last {
                let _ = stream.shutdown().await;
                return;
            }
        }
    }
}

/// Reads a head of HTTP, and not a byte more; what came where the connection ended before.
pub(crate) async fn read_head<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Sends a request and reads all that comes until the end.
pub(crate) async fn ask<S>(mut stream: S, request: &str) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // The other side may refuse before it has read all.
    let _ = stream.write_all(request.as_bytes()).await;
    read_all(&mut stream).await
}

/// Reads until the end, or until the connection breaks.
pub(crate) async fn read_all<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "the connection does not end: {:?}", String::from_utf8_lossy(&all));
    String::from_utf8_lossy(&all).into_owned()
}

/// A GET that ends the connection.
pub(crate) fn get(host: &str) -> String {
    format!("GET /path HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
