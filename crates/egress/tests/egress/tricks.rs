//! Every trick that a program could use to reach what it may not.

use crate::world::{World, allow, ask, deny, get, ip, read_all, rules};
use hostel_egress::{Discard, Settings};
use hostel_sandbox::network::{NetworkPolicy, NetworkRule};
use tokio::io::AsyncWriteExt;

const SPECIAL: &[&str] = &[
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "fc00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "2001:0:7f00:1::1",
    "::127.0.0.1",
    "ff02::1",
    "2001:db8::1",
];

fn shown(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[tokio::test]
async fn an_ip_literal_needs_a_rule_of_its_own() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let answer = world.connect(&host.address.to_string()).await.unwrap_err();
    assert!(answer.contains("403") && answer.contains("x-hostel-denied: no_rule"), "{answer}");
    let answer =
        ask(world.proxied().await, &format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", host.address))
            .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // Bytes without a name, to an address that no answer of ours gave.
    let answer = ask(world.direct(host.address).await, "SSH-2.0-x\r\n").await;
    assert_eq!((answer.as_str(), world.refused().as_str()), ("", "no_rule"));
    let literal = host.address.to_string();
    let answer = ask(world.direct(host.address).await, &get(&literal)).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(host.heard(), "");

    world.policy(vec![allow("127.1.0.0/24", host.address.port())]);
    let answer = ask(world.direct(host.address).await, &get(&literal)).await;
    assert!(answer.ends_with("api.example.com"), "{answer}");
    assert_eq!(world.allowed().rule, Some(format!("allow 127.1.0.0/24 port {}", host.address.port())));
}

#[tokio::test]
async fn other_names_on_an_allowed_address_are_refused() {
    let mut world = World::new().await;
    let host = world.https("api.example.com", "127.1.0.1").await;
    let port = host.address.port();
    world.policy(vec![allow("api.example.com", port)]);
    world.table.set("other.example.com", &[host.address.ip()]);
    assert!(world.tls(world.direct(host.address).await, "other.example.com").await.is_err());
    assert_eq!(world.refused(), "no_rule");
    let tls = world.tls(world.direct(host.address).await, "api.example.com").await.unwrap();
    assert!(ask(tls, &get("api.example.com")).await.ends_with("api.example.com"));

    // An allowed name, at an address that is not its own.
    let elsewhere = world.https("elsewhere.example.com", "127.1.0.2").await;
    world.policy(vec![allow("api.example.com", elsewhere.address.port())]);
    assert!(world.tls(world.direct(elsewhere.address).await, "api.example.com").await.is_err());
    assert_eq!((world.refused().as_str(), elsewhere.heard().as_str()), ("name_mismatch", ""));
    let answer = ask(world.direct(elsewhere.address).await, &get("api.example.com")).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

#[tokio::test]
async fn a_name_that_turns_to_an_inner_address_is_refused() {
    let mut world = World::new().await;
    let host = world.http("rebind.example.com", "127.1.0.1").await;
    let port = host.address.port();
    world.policy(vec![allow("rebind.example.com", port)]);
    let url = format!("rebind.example.com:{port}");
    assert!(world.connect(&url).await.is_ok());
    let inner = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    world.policy(vec![allow("rebind.example.com", inner.local_addr().unwrap().port())]);
    world.table.set("rebind.example.com", &[ip("127.0.0.1")]);
    let url = format!("rebind.example.com:{}", inner.local_addr().unwrap().port());
    let answer = world.connect(&url).await.unwrap_err();
    assert!(answer.contains("x-hostel-denied: private_address"), "{answer}");
    // Of several addresses, only those that are public are used.
    world.table.set("rebind.example.com", &[ip("127.0.0.1"), ip("10.0.0.1"), host.address.ip()]);
    world.policy(vec![allow("rebind.example.com", port)]);
    let url = format!("rebind.example.com:{port}");
    assert!(ask(world.connect(&url).await.unwrap(), &get(&url)).await.contains("200 OK"));
    assert_eq!(world.allowed().address, Some(host.address.ip()));
}

#[tokio::test]
async fn special_addresses_are_refused_by_name_and_by_literal() {
    let world = World::new().await;
    let everything = ["0.0.0.0/0", "::/0"]
        .map(|block| NetworkRule { ports: vec![443], ..NetworkRule::allow(block.parse().unwrap()) });
    let allowlist = [&everything[..], &[allow("*.example.com", 443)]].concat();
    for policy in [NetworkPolicy::allowlist(allowlist), NetworkPolicy::open()] {
        world.sandbox.set_policy(rules(&policy));
        for address in SPECIAL {
            world.table.set("inner.example.com", &[ip(address)]);
            for authority in ["inner.example.com:443".to_owned(), shown(address, 443)] {
                let answer = world.connect(&authority).await.unwrap_err();
                assert!(answer.contains("x-hostel-denied: private_address"), "{address}: {answer}");
            }
            let answer = ask(world.direct((ip(address), 443).into()).await, &get(&shown(address, 443))).await;
            assert!(!answer.contains("200 OK"), "{address}: {answer}");
            assert_eq!(world.refused(), "private_address", "{address}");
        }
    }
}

#[tokio::test]
async fn a_redirect_leads_nowhere_else() {
    let mut world = World::new().await;
    let location =
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n";
    let host = world.answering("api.example.com", "127.1.0.1", location.to_owned()).await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let request = format!(
        "GET http://api.example.com:{0}/ HTTP/1.1\r\nHost: api.example.com:{0}\r\nConnection: close\r\n\r\n",
        host.address.port()
    );
    assert!(ask(world.proxied().await, &request).await.contains("169.254.169.254"));
    let request = "GET http://169.254.169.254/latest HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n";
    assert!(ask(world.proxied().await, request).await.starts_with("HTTP/1.1 403"));
    assert!(
        ask(world.direct((ip("169.254.169.254"), 80).into()).await, &get("169.254.169.254"))
            .await
            .starts_with("HTTP/1.1 403")
    );
}

#[tokio::test]
async fn the_name_in_tls_is_the_one_that_was_asked_for() {
    let mut world = World::new().await;
    let host = world.https("api.example.com", "127.1.0.1").await;
    let port = host.address.port();
    world.policy(vec![allow("api.example.com", port), allow("other.example.com", port)]);
    let url = format!("api.example.com:{port}");
    // Both names are allowed, and yet one is not the other.
    let stream = world.connect(&url).await.unwrap();
    assert!(world.tls(stream, "other.example.com").await.is_err());
    assert_eq!(world.refused(), "name_mismatch");
    // No name at all: the host would choose.
    let stream = world.connect(&url).await.unwrap();
    assert!(world.tls(stream, "192.0.2.1").await.is_err());
    assert_eq!(world.refused(), "no_name");
    let tls = world.tls(world.connect(&url).await.unwrap(), "api.example.com").await.unwrap();
    assert!(ask(tls, &get(&url)).await.ends_with("api.example.com"));
}

/// A ClientHello with a name, and with an extension that may hide another one.
fn hiding_hello(name: &str) -> Vec<u8> {
    let short = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let entry = [&[0][..], &short(name.len()), name.as_bytes()].concat();
    let names = [&short(entry.len())[..], &entry].concat();
    let extensions = [&[0, 0][..], &short(names.len()), &names, &[0xfe, 0x0d], &short(32), &[0; 32]].concat();
    let fixed = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let body = [&fixed[..], &short(extensions.len()), &extensions].concat();
    let message = [&[1, 0][..], &short(body.len()), &body].concat();
    [&[22, 3, 1][..], &short(message.len()), &message].concat()
}

#[tokio::test]
async fn a_hidden_name_passes_only_where_it_is_let_or_nothing_is_hidden_from_us() {
    for allowed in [false, true] {
        let settings = Settings { encrypted_hello: allowed, ..Settings::default() };
        let mut world = World::with(settings, std::sync::Arc::new(Discard)).await;
        let host = world.https("api.example.com", "127.1.0.1").await;
        let port = host.address.port();
        let url = format!("api.example.com:{port}");
        let rule = allow("api.example.com", port);
        for opened in [false, true] {
            world.policy(vec![NetworkRule { open_tls: opened, ..rule.clone() }]);
            let mut stream = world.connect(&url).await.unwrap();
            stream.write_all(&hiding_hello("api.example.com")).await.unwrap();
            read_all(&mut stream).await;
            // The first of the two is refused where it is not let, and the second never.
            let hidden = world.sandbox.recent().into_iter().filter(|one| one.reason == "hidden_name");
            assert_eq!(hidden.count(), usize::from(!allowed), "{allowed} {opened}");
        }
    }
}

#[tokio::test]
async fn the_host_of_a_request_is_the_one_that_was_asked_for() {
    let mut world = World::new().await;
    let host = world.https("api.example.com", "127.1.0.1").await;
    let port = host.address.port();
    world.policy(vec![
        NetworkRule { open_tls: true, ..allow("api.example.com", port) },
        allow("other.example.com", port),
    ]);
    // Fronting in TLS that is opened.
    let stream = world.connect(&format!("api.example.com:{port}")).await.unwrap();
    let tls = world.tls(stream, "api.example.com").await.unwrap();
    let answer = ask(tls, &get("other.example.com")).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert_eq!(host.heard(), "");

    // Fronting in plain HTTP, by tunnel and by address.
    let plain = world.http("web.example.com", "127.1.0.2").await;
    let port = plain.address.port();
    world.policy(vec![allow("web.example.com", port)]);
    let stream = world.connect(&format!("web.example.com:{port}")).await.unwrap();
    let answer = ask(stream, &get("other.example.com")).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    let answer = ask(world.direct(plain.address).await, &get("other.example.com")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // The second request of a connection is looked at like the first.
    let url = format!("web.example.com:{port}");
    let two = format!("GET / HTTP/1.1\r\nHost: {url}\r\n\r\n{}", get("other.example.com"));
    let answer = ask(world.direct(plain.address).await, &two).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 421"), "{answer}");
    assert!(!plain.heard().contains("other.example.com"));
}

#[tokio::test]
async fn no_relay_is_asked_for_another_host() {
    let mut world = World::new().await;
    let relay = world.http("relay.example.com", "127.1.0.1").await;
    let port = relay.address.port();
    world.policy(vec![allow("relay.example.com", port)]);
    let stream = world.connect(&format!("relay.example.com:{port}")).await.unwrap();
    let answer =
        ask(stream, "CONNECT evil.example.net:443 HTTP/1.1\r\nHost: evil.example.net:443\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let stream = world.connect(&format!("relay.example.com:{port}")).await.unwrap();
    let answer =
        ask(stream, "GET http://evil.example.net/ HTTP/1.1\r\nHost: relay.example.com\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(!relay.heard().contains("evil"), "{}", relay.heard());
}

#[tokio::test]
async fn absolute_requests_are_held_to_their_host() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    let port = host.address.port();
    world.policy(vec![NetworkRule {
        methods: vec!["GET".to_owned()],
        path_prefix: Some("/ok/".to_owned()),
        ..allow("api.example.com", port)
    }]);
    let request = |method: &str, url: &str, host: &str| {
        format!("{method} {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let own = format!("api.example.com:{port}");
    for (method, url, host, status) in [
        ("GET", format!("http://{own}/ok/x"), own.as_str(), "200"),
        ("POST", format!("http://{own}/ok/x"), own.as_str(), "403"),
        ("GET", format!("http://{own}/no"), own.as_str(), "403"),
        ("GET", format!("http://{own}/ok/../no"), own.as_str(), "4"),
        ("GET", format!("http://{own}/ok/%2e%2e/no"), own.as_str(), "4"),
        ("GET", format!("http://{own}/ok/x"), "evil.example.net", "4"),
        ("GET", "http://evil.example.net/ok/x".to_owned(), own.as_str(), "403"),
        ("GET", format!("https://{own}/ok/x"), own.as_str(), "400"),
        ("GET", format!("http://user@{own}/ok/x"), own.as_str(), "400"),
        ("GET", "/ok/x".to_owned(), own.as_str(), "400"),
    ] {
        let answer = ask(world.proxied().await, &request(method, &url, host)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method} {url} {host}: {answer}");
    }
    assert_eq!(host.heard().matches("HTTP/1.1").count(), 1, "{}", host.heard());
}

#[tokio::test]
async fn smuggled_requests_go_nowhere() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let url = format!("api.example.com:{}", host.address.port());
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Host: evil.example.net\r\n",
        "Content-Length: +4\r\n",
        "X: a\nY: b\r\n",
    ] {
        let request = format!(
            "POST /a HTTP/1.1\r\nHost: {url}\r\n{fields}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {url}\r\n\r\n"
        );
        let answer = ask(world.direct(host.address).await, &request).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
            "{fields:?}: {answer}"
        );
        let request = request.replace("POST /a", &format!("POST http://{url}/a"));
        let answer = ask(world.proxied().await, &request).await;
        assert!(!answer.contains("200 OK"), "{fields:?}: {answer}");
    }
    assert!(!host.heard().contains("smuggled"), "{}", host.heard());
}

#[tokio::test]
async fn a_request_cannot_pass_as_something_else() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let url = format!("api.example.com:{}", host.address.port());
    for request in [
        "\r\n\r\nGET /x HTTP/1.1\r\nHost: evil.example.net\r\n\r\n",
        "get /x HTTP/1.1\r\nHost: evil.example.net\r\n\r\n",
        "GET\t/x HTTP/1.1\r\nHost: evil.example.net\r\n\r\n",
        "GET /x\u{e9} HTTP/1.1\r\nHost: evil.example.net\r\n\r\n",
        "GET /x HTTP/1.1\nHost: evil.example.net\n\n",
        "GET\u{b}/x\u{b}HTTP/1.1\r\nHost: evil.example.net\r\n\r\n",
        "GET\u{c}/x\u{1f}HTTP/1.1\r\nHost: evil.example.net\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let stream = world.connect(&url).await.unwrap();
        let answer = ask(stream, request).await;
        assert!(!answer.contains("200 OK"), "{request:?}: {answer}");
    }
    assert_eq!(host.heard(), "");
}

#[tokio::test]
async fn a_name_is_the_same_in_every_form() {
    let mut world = World::new().await;
    let host = world.https("xn--bcher-kva.example.com", "127.1.0.1").await;
    let port = host.address.port();
    world.policy(vec![
        allow("b\u{fc}cher.example.com", port),
        allow("*.example.org", port),
        deny("bad.example.org"),
    ]);
    world.table.set("bad.example.org", &[host.address.ip()]);
    for name in ["xn--bcher-kva.example.com", "XN--BCHER-KVA.Example.COM.", "b\u{fc}cher.example.com"] {
        assert!(world.connect(&format!("{name}:{port}")).await.is_ok(), "{name}");
    }
    for name in ["bad.example.org", "BAD.example.org", "bad.example.org.", "\u{ff22}ad.example.org"] {
        let answer = world.connect(&format!("{name}:{port}")).await.unwrap_err();
        assert!(answer.contains("denied_by_rule") || answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
    }
    // The wildcard means names below, and nothing that only ends alike.
    for name in ["example.org", "badexample.org", "example.org.evil.example.net"] {
        world.table.set(name, &[host.address.ip()]);
        let answer = world.connect(&format!("{name}:{port}")).await.unwrap_err();
        assert!(answer.contains("no_rule"), "{name}: {answer}");
    }
    for name in [
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "a..example.org",
        "-a.example.org",
        "a%00.example.org",
    ] {
        let answer = world.connect(&format!("{name}:{port}")).await.unwrap_err();
        assert!(answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_port_is_part_of_the_rule() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.policy(vec![NetworkRule::allow("api.example.com".parse().unwrap())]);
    let url = format!("api.example.com:{}", host.address.port());
    assert!(world.connect(&url).await.unwrap_err().contains("no_rule"));
    let answer = ask(world.direct(host.address).await, &get(&url)).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(host.heard(), "");
}

#[tokio::test]
async fn a_denied_name_stays_so_at_an_allowed_address() {
    let mut world = World::new().await;
    let host = world.https("bad.example.com", "127.1.0.1").await;
    let port = host.address.port();
    let denied = vec![allow("127.1.0.0/16", port), deny("bad.example.com")];
    let open = NetworkPolicy { rules: vec![deny("bad.example.com")], ..NetworkPolicy::open() };
    for policy in [NetworkPolicy::allowlist(denied), open] {
        world.sandbox.set_policy(rules(&policy));
        assert!(world.tls(world.direct(host.address).await, "bad.example.com").await.is_err());
        assert_eq!(world.refused(), "denied_by_rule");
        let answer = ask(world.direct(host.address).await, &get("bad.example.com")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(world.tls(world.direct(host.address).await, "good.example.com").await.is_err());
    }
    let block = NetworkPolicy { rules: vec![deny("127.1.0.0/24")], ..NetworkPolicy::open() };
    world.sandbox.set_policy(rules(&block));
    assert!(world.connect(&format!("bad.example.com:{port}")).await.unwrap_err().contains("denied_by_rule"));
}

#[tokio::test]
async fn a_client_that_speaks_late_is_still_looked_at() {
    let mut world = World::new().await;
    let host = world.echo("git.example.com", "127.1.0.1", b"SSH-2.0-server\r\n").await;
    world.policy(vec![allow("git.example.com", host.address.port())]);
    let mut stream = world.connect(&format!("git.example.com:{}", host.address.port())).await.unwrap();
    // The server's first bytes are there, so the connection was taken for one where the server begins.
    let mut first = [0; 16];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.unwrap();
    stream.write_all(get("evil.example.net").as_bytes()).await.unwrap();
    assert!(!read_all(&mut stream).await.contains("evil"));
    assert_eq!(world.refused(), "bad_request");
}
