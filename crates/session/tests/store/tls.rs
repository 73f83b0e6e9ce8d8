//! PostgreSQL over TLS.

use crate::place::open;
use crate::postgres::Server;
use hostel_session::{Error, StoreUrl, open_store};
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn only_with_the_right_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("server.crt"), made.cert.pem()).unwrap();
    std::fs::write(path("server.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(path("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let roots = tempfile::tempdir().unwrap();
    std::fs::write(roots.path().join("right.crt"), made.cert.pem()).unwrap();
    std::fs::write(roots.path().join("wrong.crt"), other.cert.pem()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = ["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key"];
    let listen = ["listen_addresses=127.0.0.1".to_owned(), format!("port={port}")];
    let options = settings.iter().map(|&setting| setting.to_owned()).chain(listen);
    let options = options.flat_map(|setting| ["-c".to_owned(), setting]).collect();
    let Some(server) = Server::own_with(directory, options) else { return };

    let url = |root: &str, host: &str| {
        let root = roots.path().join(root);
        format!("postgres://hostel@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={}", root.display())
    };
    let store = open(&url("right.crt", "localhost")).await;
    store.check().await.unwrap();
    store.close().await;
    for (root, host) in [("wrong.crt", "localhost"), ("right.crt", "127.0.0.1")] {
        let refused = open_store(&url(root, host).parse::<StoreUrl>().unwrap()).await;
        assert!(matches!(refused, Err(Error::Store { .. })), "{root} {host}");
    }
    drop(server);
}
