//! Secrets that a sandbox uses and never holds.

use super::setup::{daemon, here, usable};
use hostel_tests::{Setup, TestDaemon};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Not to be found anywhere in a sandbox.
const VALUE: &str = "the-real-value-7d1f9c";

/// A TLS server of our own authority that keeps the heads it was sent and echoes the credentials.
struct Secure {
    port: u16,
    authority: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Secure {
    fn start(name: &str) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(parameters, authority_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private.into())
            .unwrap();
        let listener = TcpListener::bind((here().unwrap(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (config, kept) = (Arc::new(config), Arc::clone(&seen));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut tls = rustls::Stream::new(&mut session, &mut stream);
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && matches!(tls.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let credentials = head.lines().find(|line| line.to_lowercase().starts_with("authorization"));
                let body = format!("you sent {}", credentials.unwrap_or("nothing"));
                kept.lock().unwrap().push(head.clone());
                let length = body.len();
                let _ = write!(
                    tls,
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = tls.flush();
            }
        });
        Self { port, authority, seen }
    }
}

/// Every place in a sandbox where the value could be: memory, environment, command lines, files. What held it.
fn holders(daemon: &TestDaemon) -> Vec<String> {
    let mut found = Vec::new();
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let process = entry.path();
        let inside = fs::read_link(process.join("ns/pid")).is_ok_and(|namespace| namespace != own);
        let ours = fs::read_to_string(process.join("cgroup")).is_ok_and(|groups| groups.contains("hostel"));
        if inside && ours {
            found.extend(memory(&process));
            for name in ["environ", "cmdline"] {
                if contains(&fs::read(process.join(name)).unwrap_or_default()) {
                    found.push(format!("{} {name}", process.display()));
                }
            }
            for place in ["run", "tmp", "etc", "home", "root", "workspace", "var"] {
                files(&process.join("root").join(place), &mut found);
            }
        }
    }
    assert!(
        !daemon.hostel(&["sandbox", "list", "-q"]).success().is_empty(),
        "there is a sandbox to look into"
    );
    found
}

fn contains(bytes: &[u8]) -> bool {
    bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes())
}

fn memory(process: &Path) -> Vec<String> {
    let Ok(maps) = fs::read_to_string(process.join("maps")) else { return Vec::new() };
    let Ok(memory) = fs::File::open(process.join("mem")) else { return Vec::new() };
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut content = vec![0; usize::try_from(end - start).unwrap().min(256 << 20)];
        // What is mapped and not there cannot be read, and holds nothing.
        if memory.read_at(&mut content, start).is_ok() && contains(&content) {
            found.push(format!("{} {line}", process.display()));
        }
    }
    found
}

fn files(place: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() && contains(&fs::read(&path).unwrap_or_default()) {
            found.push(path.display().to_string());
        }
    }
}

/// A request with the credentials that the environment has, kept with its answer; it stays to be looked at.
fn program(port: u16) -> String {
    format!(
        "const fs = require('fs'), https = require('https'); const token = process.env.TOKEN;
         https.get('https://api.example.com:{port}/', {{ headers: {{ authorization: 'Bearer ' + token }} }}, (answer) => {{
             let text = ''; answer.on('data', (part) => text += part);
             answer.on('end', () => fs.writeFileSync('/workspace/out', token + '\\n' + text));
         }}).on('error', (error) => fs.writeFileSync('/workspace/out', 'failed ' + error));
         setInterval(() => token, 1000);"
    )
}

#[test]
fn a_secret_is_used_and_never_held() {
    if !usable("secrets") {
        return;
    }
    let secure = Secure::start("api.example.com");
    let place = tempfile::tempdir().unwrap();
    let (trust, secrets) = (place.path().join("ca.pem"), place.path().join("secrets"));
    fs::write(&trust, &secure.authority).unwrap();
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("token"), VALUE).unwrap();
    fs::set_permissions(secrets.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    let environment = vec![("HOSTEL_TRUST", trust.into()), ("HOSTEL_SECRETS_DIR", secrets.into())];
    let (daemon, _names) = daemon(Setup { environment, ..Setup::default() });

    let (port, script) = (secure.port, program(secure.port));
    let named = format!("api.example.com:{port}");
    let secret = "name=token,host=api.example.com,env=TOKEN";
    let create = ["sandbox", "create", "-q", "--allow", &named, "--secret", secret];
    let id = daemon.hostel(&create).success().to_owned();
    let start = ["exec", "--detach", &id, "--", "node", "-e", &script];
    assert_eq!(daemon.hostel(&start).code, Some(0));
    let read = || daemon.hostel(&["exec", &id, "--", "cat", "/workspace/out"]).stdout;
    hostel_tests::eventually("the answer is there", || {
        read().contains("you sent") || read().contains("failed")
    });
    let printed = read();
    let placeholder = printed.lines().next().unwrap();
    assert!(placeholder.starts_with("hostel-secret-token-"), "{printed}");
    let echoed = format!("Bearer {placeholder}");
    assert!(printed.contains(&echoed) && !printed.contains(VALUE), "the answer is scrubbed: {printed}");
    let seen = secure.seen.lock().unwrap().clone();
    assert!(seen[0].to_lowercase().contains(&format!("authorization: bearer {VALUE}")), "{seen:?}");
    assert_eq!(holders(&daemon), Vec::<String>::new(), "the value is nowhere in the sandbox");
    assert!(!daemon.log().contains(VALUE), "nor in the log");

    let used = daemon.hostel(&["--json", "sandbox", "network", &id]);
    assert!(used.success().contains("\"secret\""), "{used:?}");
    assert!(daemon.hostel(&["audit", "verify"]).success().contains("whole"));
}
