//! TLS with an engine: certificates of both sides, and what happens without the right ones.

use crate::setup::{health, refusal};
use hostel_tests::{Setup, TestDaemon, TestEngine, eventually};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// An authority and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "engines of a test");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a directory as `DOCKER_CERT_PATH` names one.
    fn write(&self, directory: &Path, names: &[&str], purpose: ExtendedKeyUsagePurpose) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "somebody");
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("ca.pem"), self.0.pem()).unwrap();
        std::fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
    }
}

fn argument(name: &str, file: PathBuf) -> String {
    format!("{name}={}", file.display())
}

/// A daemon that is to use the engine with the certificates of a directory.
fn daemon_with(host: &str, image: &str, certificates: &Path) -> TestDaemon {
    let environment = vec![
        ("DOCKER_HOST", host.into()),
        ("DOCKER_TLS_VERIFY", "1".into()),
        ("DOCKER_CERT_PATH", certificates.into()),
        ("HOSTEL_DOCKER_IMAGE", image.into()),
    ];
    let mut daemon = TestDaemon::prepare(Setup { environment, ..Setup::default() });
    daemon.restart();
    daemon
}

#[test]
fn an_engine_is_used_over_tls_by_those_with_its_authority_s_certificates() {
    let place = tempfile::tempdir().unwrap();
    let (server, client, stranger) =
        (place.path().join("server"), place.path().join("client"), place.path().join("stranger"));
    let authority = Authority::new();
    authority.write(&server, &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    authority.write(&client, &[], ExtendedKeyUsagePurpose::ClientAuth);
    Authority::new().write(&stranger, &[], ExtendedKeyUsagePurpose::ClientAuth);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("tcp://localhost:{port}");
    let engine = TestEngine::start(&[
        "--host",
        &format!("tcp://127.0.0.1:{port}"),
        "--tlsverify",
        &argument("--tlscacert", server.join("ca.pem")),
        &argument("--tlscert", server.join("cert.pem")),
        &argument("--tlskey", server.join("key.pem")),
    ]);
    let Some(engine) = engine else { return };

    let mut daemon = daemon_with(&host, engine.image(), &client);
    assert_eq!(daemon.hostel(&["run", "--backend", "docker", "--", "echo", "hi"]).success(), "hi");
    // The relay's stream goes through TLS, too: a hijacked connection, and much through it.
    let id = daemon.sandbox(&["--backend", "docker"]);
    assert_eq!(daemon.shell(&id, "head -c 5000000 /dev/zero | wc -c"), "5000000");
    let bytes = daemon.hostel(&["exec", &id, "--", "head", "-c", "5000000", "/dev/zero"]);
    assert_eq!((bytes.code, bytes.stdout.len()), (Some(0), 5_000_000));
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.shell(&id, "echo taken back"), "taken back");

    // Without the client's certificates the engine refuses; one of another authority is none for us.
    let mut nobody = daemon_with(&host, engine.image(), &stranger);
    assert_eq!(health(&nobody)["health"], "unavailable", "{}", health(&nobody));
    let detail = health(&nobody)["detail"].to_string();
    assert!(detail.contains("certificate"), "{detail}");
    std::fs::copy(client.join("ca.pem"), stranger.join("ca.pem")).unwrap();
    assert_eq!(refusal(&nobody, &[])["reason"], "UNAVAILABLE");
    // Certificates are read anew for each attempt: whoever mends them need not restart anything.
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(client.join(name), stranger.join(name)).unwrap();
    }
    eventually("the mended certificates are used", || {
        nobody.hostel(&["run", "--backend", "docker", "--", "true"]).code == Some(0)
    });
    nobody.finish();
    let _ = daemon.hostel(&["sandbox", "rm", &id]).success();
    daemon.finish();
}
