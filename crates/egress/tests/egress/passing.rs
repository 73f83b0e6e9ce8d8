//! What is allowed comes through whole.

use crate::world::{World, allow, ask, get, read_all};
use hostel_egress::Protocol;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn long_streams_and_half_closed_ones_come_through() {
    let mut world = World::new().await;
    let host = world.echo("data.example.com", "127.1.0.1", b"").await;
    world.policy(vec![allow("data.example.com", host.address.port())]);
    let stream = world.connect(&format!("data.example.com:{}", host.address.port())).await.unwrap();
    // Much more than is copied before the pipe, in pieces of odd sizes.
    let data: Vec<u8> = (0..9_000_001u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let (mut from, mut to) = stream.into_split();
    let send = async {
        for part in data.chunks(77_777) {
            to.write_all(part).await.unwrap();
        }
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let ((), read) = tokio::join!(send, from.read_to_end(&mut back));
    assert_eq!(read.unwrap(), data.len());
    assert_eq!(Sha256::digest(&back), Sha256::digest(&data));
}

#[tokio::test]
async fn socks_takes_names_and_addresses() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    let port = host.address.port();
    world.policy(vec![allow("api.example.com", port)]);
    let by_name = [&[5, 1, 0, 3, 15][..], b"api.example.com", &port.to_be_bytes()].concat();
    let by_address = [&[5, 1, 0, 1, 127, 1, 0, 1][..], &port.to_be_bytes()].concat();
    let evil = [&[5, 1, 0, 3, 4][..], b"evil", &port.to_be_bytes()].concat();
    let udp = [&[5, 3, 0, 1, 127, 1, 0, 1][..], &port.to_be_bytes()].concat();
    for (request, code) in [(by_name, 0), (by_address, 2), (evil, 2), (udp, 7)] {
        let mut stream = world.proxied().await;
        stream.write_all(&[&[5, 2, 0, 2][..], &request].concat()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[..2].to_vec(), answer[3]), (vec![5, 0], code), "{request:?}");
        if code == 0 {
            let url = format!("api.example.com:{port}");
            assert!(ask(stream, &get(&url)).await.ends_with("api.example.com"));
        }
    }
    let mut stream = world.proxied().await;
    stream.write_all(&[5, 1, 2]).await.unwrap();
    assert_eq!(read_all(&mut stream).await.as_bytes()[0], 5);
}

#[tokio::test]
async fn tls_passes_untouched() {
    let mut world = World::new().await;
    let host = world.https("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let url = format!("api.example.com:{}", host.address.port());
    for stream in [world.connect(&url).await.unwrap(), world.direct(host.address).await] {
        let tls = world.tls(stream, "api.example.com").await.unwrap();
        // The host's own certificate, not one of ours.
        let issuer = tls.get_ref().1.peer_certificates().unwrap()[0].clone();
        assert!(!String::from_utf8_lossy(&issuer).contains("Hostel"));
        assert!(ask(tls, &get(&url)).await.ends_with("api.example.com"));
        assert_eq!(world.allowed().protocol, Protocol::Tls);
    }
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let mut world = World::new().await;
    let host = world.echo("mail.example.com", "127.1.0.1", b"220 ready\r\n").await;
    world.policy(vec![allow("mail.example.com", host.address.port())]);
    let mut stream = world.connect(&format!("mail.example.com:{}", host.address.port())).await.unwrap();
    let mut first = [0; 11];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"220 ready\r\n");
    let mut listens = world.connect(&format!("mail.example.com:{}", host.address.port())).await.unwrap();
    listens.shutdown().await.unwrap();
    assert_eq!(read_all(&mut listens).await, "220 ready\r\n");
    stream.write_all(b"EHLO example.com\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "EHLO example.com\r\n");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    let unused = std::net::TcpListener::bind("127.1.0.3:0").unwrap().local_addr().unwrap();
    world.table.set("gone.example.com", &[unused.ip()]);
    world.policy(vec![allow("*.example.com", unused.port()), allow("*.example.com", host.address.port())]);
    let answer = world.connect(&format!("gone.example.com:{}", unused.port())).await.unwrap_err();
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("connect_failed"), "{answer}");
    let answer = world.connect(&format!("nowhere.example.com:{}", unused.port())).await.unwrap_err();
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("resolve_failed"), "{answer}");
    // Of two addresses the one that answers is used.
    world.table.set("two.example.com", &[unused.ip(), host.address.ip()]);
    let url = format!("two.example.com:{}", host.address.port());
    assert!(ask(world.connect(&url).await.unwrap(), &get(&url)).await.contains("200 OK"));
    assert_eq!(world.allowed().address, Some(host.address.ip()));
}

#[tokio::test]
async fn a_connection_that_was_opened_ahead_is_served_when_it_speaks() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let url = format!("api.example.com:{}", host.address.port());
    let mut open = Vec::new();
    for host in [url.as_str(), "evil.example.net"] {
        open.push((world.connect(&url).await.unwrap(), host));
    }
    // Both are taken for connections where the server speaks first.
    while world.sandbox.connections().len() < 2 {
        tokio::task::yield_now().await;
    }
    let answers =
        [ask(open.remove(0).0, &get(&url)).await, ask(open.remove(0).0, &get("evil.example.net")).await];
    assert!(answers[0].contains("200 OK") && answers[1].starts_with("HTTP/1.1 421"), "{answers:?}");
    assert!(!host.heard().contains("evil"));
}

#[tokio::test]
async fn a_proxys_client_goes_on_to_another_host() {
    let mut world = World::new().await;
    let one = world.http("one.example.com", "127.1.0.1").await;
    let other = world.http("other.example.com", "127.1.0.2").await;
    world.policy(vec![
        allow("one.example.com", one.address.port()),
        allow("other.example.com", other.address.port()),
    ]);
    let request = |url: &str| format!("GET http://{url}/ HTTP/1.1\r\nHost: {url}\r\n\r\n");
    let urls = [("one.example.com", &one), ("other.example.com", &other)]
        .map(|(name, host)| (name, format!("{name}:{}", host.address.port())));
    // A client that would keep the connection is told that it ends, and comes with another one.
    for (name, url) in &urls {
        let answer = ask(world.proxied().await, &request(url)).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(name), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    // One that does not wait for the answer is not answered twice.
    let [(_, first), (_, second)] = &urls;
    let answer = ask(world.proxied().await, &(request(first) + &request(second))).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(other.heard().matches("HTTP/1.1").count(), 1, "{}", other.heard());
}
