//! A secret on its whole way: out of the vault, through a sandbox's proxy, to the host it is bound to and to no
//! other. With programs from outside: curl, and git with its `Basic` credentials.
#![allow(clippy::unwrap_used, reason = "a test")]

use base64::Engine as _;
use hostel_egress::authority::Authority;
use hostel_egress::secret::{PlaceholderKey, SecretSet, SecretSource, SecretValue, Secrets, Vault};
use hostel_egress::{
    Attachment, Discard, Doors, Egress, Kind, Names, Opener, OpenerSettings, Presets, Ruleset, Settings,
    Table, Timeouts,
};
use hostel_sandbox::SandboxId;
use hostel_sandbox::network::{NetworkPolicy, NetworkRule};
use hostel_sandbox::secret::{SecretForm, SecretRef};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

const BOUND: &str = "api.example.com";
const OTHER: &str = "other.example.com";
const VALUE: &str = "the-real-value-0123456789";

struct World {
    proxy: SocketAddr,
    sandbox: Attachment,
    placeholder: String,
    /// What the bound host and the other one heard, and their ports.
    hosts: [(Arc<Mutex<String>>, u16); 2],
    /// Trusts our authority alone, and that of the hosts alone.
    trust: [PathBuf; 2],
    _state: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

/// Listens at an address and sends back each request's head as the body, over TLS.
async fn host(
    tasks: &mut JoinSet<()>,
    name: &str,
    address: &str,
    issuer: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
) -> (Arc<Mutex<String>>, u16) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let leaf = params.signed_by(&key, issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&heard);
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut head).await, Ok(1..)) {}
            let head = String::from_utf8(head).unwrap();
            own.lock().unwrap().push_str(&head);
            let status = if head.contains("authorization:") || !head.contains("/x.git") {
                "200 OK"
            } else {
                "401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\""
            };
            let length = head.len();
            let answer =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{head}");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (heard, port)
}

impl World {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let hosts = [
            host(&mut tasks, BOUND, "127.1.0.1", &issuer).await,
            host(&mut tasks, OTHER, "127.1.0.2", &issuer).await,
        ];
        let table = Arc::new(Table::default());
        table.set(BOUND, &["127.1.0.1".parse().unwrap()]);
        table.set(OTHER, &["127.1.0.2".parse().unwrap()]);
        let settings = Settings {
            names: Names::Fixed(table),
            reachable: vec!["127.1.0.0/16".parse().unwrap()],
            // Programs read their trust store between CONNECT and the handshake, which takes its time on a busy machine.
            timeouts: Timeouts { quiet: Duration::from_secs(8), ..Timeouts::default() },
            ..Settings::default()
        };
        let authority = Arc::new(Authority::load_or_create(&state.path().join("ca")).unwrap());
        let trust = [state.path().join("ours.pem"), state.path().join("theirs.pem")];
        std::fs::write(&trust[0], authority.certificate_pem()).unwrap();
        std::fs::write(&trust[1], issuer.pem()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let opener = Arc::new(Opener::new(authority, roots, OpenerSettings::default()).unwrap());
        let egress = Egress::new(settings, Arc::new(Discard), opener).unwrap();

        let vault = Vault::open(state.path(), None).unwrap();
        vault.put("token", &SecretValue::new("token", VALUE.as_bytes()).unwrap()).unwrap();
        let values = Arc::new(Secrets::new(Some(vault), SecretSource::from_parts(Vec::new(), None, [])));
        let secret = SecretRef {
            name: "token".to_owned(),
            hosts: vec![BOUND.parse().unwrap()],
            form: SecretForm::Placeholder,
            env: Some("API_TOKEN".to_owned()),
        };
        let key = PlaceholderKey::load_or_create(state.path()).unwrap();
        let id = SandboxId::generate();
        let secrets = SecretSet::open(id.clone(), &[secret], values, &key).unwrap();
        let placeholder = secrets.environment()["API_TOKEN"].clone();

        let allow =
            |host: &str, port| NetworkRule { ports: vec![port], ..NetworkRule::allow(host.parse().unwrap()) };
        let policy = NetworkPolicy::allowlist(vec![allow(BOUND, hosts[0].1), allow(OTHER, hosts[1].1)]);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let proxy = listener.local_addr().unwrap();
        let doors = Doors { transparent: None, proxy: Some(listener), dns_udp: None, dns_tcp: None };
        let rules = Ruleset::new(&policy, &Presets::default()).unwrap();
        let sandbox = egress.attach(id, rules, Arc::new(secrets), doors).unwrap();
        Self { proxy, sandbox, placeholder, hosts, trust, _state: state, _tasks: tasks }
    }

    /// curl with this trust; what it printed and whether it was content.
    async fn curl(&self, name: &str, port: u16, trust: usize) -> Option<(bool, String)> {
        let run = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", ""])
            .args(["--proxy", &format!("http://{}", self.proxy)])
            .args(["--header", &format!("x-api-key: {}", self.placeholder), "--cacert"])
            .arg(&self.trust[trust])
            .arg(format!("https://{name}:{port}/"))
            .kill_on_drop(true)
            .output()
            .await
            .ok()?;
        let text = [run.stdout, run.stderr].concat();
        Some((run.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    fn heard(&self, host: usize) -> String {
        self.hosts[host].0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn the_bound_host_gets_the_value_and_every_other_connection_is_untouched() {
    let world = World::new().await;
    let Some((good, text)) = world.curl(BOUND, world.hosts[0].1, 0).await else { return };
    assert!(good && text.contains(&world.placeholder) && !text.contains(VALUE), "{text}");
    assert!(world.heard(0).contains(&format!("x-api-key: {VALUE}")), "{}", world.heard(0));
    // The other host's TLS is its own from end to end: our authority vouches for nothing there.
    let (good, text) = world.curl(OTHER, world.hosts[1].1, 0).await.unwrap();
    assert!(!good && text.contains("certificate"), "{text}");
    let (good, text) = world.curl(OTHER, world.hosts[1].1, 1).await.unwrap();
    assert!(good && world.heard(1).contains(&format!("x-api-key: {}", world.placeholder)), "{text}");
    assert!(!world.heard(1).contains(VALUE));
    // The use is told, by name.
    let recent = world.sandbox.recent();
    let uses: Vec<_> = recent.iter().filter(|decision| decision.kind == Kind::Secret).collect();
    assert_eq!(uses.len(), 1);
    let told = format!("{recent:?}");
    assert!(told.contains("token") && !told.contains(VALUE), "{told}");
    world.sandbox.close().await;
}

#[tokio::test]
async fn git_logs_in_with_the_placeholder() {
    let world = World::new().await;
    let run = Command::new("git")
        .args(["-c", "credential.helper=", "-c", &format!("http.proxy=http://{}", world.proxy), "ls-remote"])
        .arg(format!("https://git:{}@{BOUND}:{}/x.git", world.placeholder, world.hosts[0].1))
        .env("GIT_SSL_CAINFO", &world.trust[0])
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("no_proxy", "")
        .kill_on_drop(true)
        .output()
        .await;
    let Ok(run) = run else { return };
    let sent = base64::engine::general_purpose::STANDARD.encode(format!("git:{VALUE}"));
    let heard = world.heard(0);
    // git asks without credentials first, and is told what is wanted.
    assert!(
        heard.contains(&format!("authorization: Basic {sent}")),
        "{heard} {run:?} {:?}",
        world.sandbox.recent()
    );
    assert!(!String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).contains(VALUE));
    world.sandbox.close().await;
}
