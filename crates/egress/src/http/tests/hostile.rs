//! What a hostile sandbox or a hostile host may try.

use super::super::OpenerSettings;
use super::super::guard::{Guard, Watch};
use super::host::{Feed, Handler, TestAuthority, handler};
use super::world::{HOST, Options, TestGate, World, empty, get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A host that counts requests and says what it got.
fn counting() -> (Handler, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&count);
    let handler = handler(move |request| {
        own.fetch_add(1, Ordering::Relaxed);
        async move {
            let (parts, body) = request.into_parts();
            let length = body.collect().await.map_or(0, |body| body.to_bytes().len());
            Response::new(Feed::text(format!("{} {} {length}", parts.method, parts.uri)))
        }
    });
    (handler, count)
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused() {
    let (handler, count) = counting();
    let world = World::new(Options::default(), handler).await;
    let body = "\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let h = format!("host: {HOST}");
    for request in [
        format!("POST / HTTP/1.1\r\n{h}\r\ncontent-length: 5\r\ntransfer-encoding: chunked{body}"),
        format!("POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked\r\ncontent-length: 5{body}"),
        format!("POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked{body}"),
        format!("POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: identity, chunked{body}"),
        format!("POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: gzip{body}"),
        format!("POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding : chunked{body}"),
        format!("POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding:\x0bchunked{body}"),
        format!("POST / HTTP/1.0\r\n{h}\r\ntransfer-encoding: chunked{body}"),
        format!("POST / HTTP/1.1\r\n{h}\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}\r\ncontent-length: 5, 5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}\r\ncontent-length: +5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}\r\ncontent-length: 0x5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}\r\ncontent-length: 99999999999999999999\r\n\r\nhello"),
        format!("GET / HTTP/1.1\r\n{h}\r\nx-a: b\r\n folded\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n {h}\r\n\r\n"),
        format!("GET / HTTP/1.1\n{h}\n\n"),
        format!("GET / HTTP/1.1\r\n{h}\nx-a: b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}\rx-a: b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}\r\nx-a: b\0c\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}\r\nno colon\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}\r\n: no name\r\n\r\n"),
        format!("GET  / HTTP/1.1\r\n{h}\r\n\r\n"),
        format!("GET / a HTTP/1.1\r\n{h}\r\n\r\n"),
        format!("GET /\tHTTP/1.1\r\n{h}\r\n\r\n"),
        format!("GET /\r\n{h}\r\n\r\n"),
        format!("GET / HTTP/1.2\r\n{h}\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{h}\r\n{h}\r\n\r\n"),
    ] {
        let answer = world.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer:?}");
        assert!(answer.contains("x-hostel-denied: bad_request"), "{answer}");
    }
    assert_eq!((count.load(Ordering::Relaxed), world.dials()), (0, 0));
}

#[tokio::test]
async fn a_body_with_broken_chunks_ends_the_request() {
    let (handler, _) = counting();
    let world = World::new(Options::default(), handler).await;
    let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n");
    for body in [
        "5;ext=1\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
    ] {
        let answer = world.raw(format!("{head}{body}").as_bytes()).await;
        assert!(!answer.contains(" 200 "), "{body:?}: {answer}");
    }
    let good = format!(
        "{head}5\r\nhello\r\n00\r\nx-trailer: 1\r\n\r\nGET /next HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n"
    );
    let answer = world.raw(good.as_bytes()).await;
    assert!(answer.contains("POST / 5") && answer.contains("GET /next 0"), "{answer}");
}

#[tokio::test]
async fn a_request_for_another_host_is_misdirected() {
    let (handler, count) = counting();
    let mut world = World::new(Options::default(), handler).await;
    for (target, host) in [
        ("/", "evil.example.net"),
        ("/", "api.example.com.evil.example.net"),
        ("/", "api.example.com:8443"),
        ("/", "127.0.0.1"),
        ("https://evil.example.net/", HOST),
        ("https://api.example.com/", "evil.example.net"),
        ("http://api.example.com/", HOST),
        ("https://api.example.com:444/", HOST),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = world.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{target} {host}: {answer}");
    }
    for host in ["API.example.COM.", "api.example.com:443"] {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        assert!(world.raw(request.as_bytes()).await.starts_with("HTTP/1.1 200 "), "{host}");
    }
    let mut client = world.new_client().await;
    for (uri, host, status) in [
        ("https://evil.example.net/", None, 421),
        ("https://api.example.com/", Some("evil.example.net"), 421),
        ("https://api.example.com:444/", None, 421),
        ("https://api.example.com/", None, 200),
    ] {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let response = client.send_request(request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{uri} {host:?}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn the_name_in_the_handshake_must_be_the_hosts() {
    let (handler, _) = counting();
    let world = World::new(Options::default(), handler).await;
    assert!(world.connect("evil.example.net", &[]).await.is_err());
    assert!(world.connect(HOST, &[]).await.is_ok());
    assert_eq!(world.dials(), 0);
}

#[tokio::test]
async fn relays_and_rules_hold_for_each_request() {
    let (handler, count) = counting();
    let mut world = World::new(Options::default(), handler).await;
    let connect = format!("CONNECT {HOST}:443 HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    let answer = world.raw(connect.as_bytes()).await;
    assert!(answer.contains("x-hostel-denied: connect_inside"), "{answer}");
    let (response, body) = world.ask(true, get("/forbidden/x").body(empty()).unwrap()).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["x-hostel-denied"], "denied_by_rule");
    assert!(body.contains("rule 3 denies it"));
    let (response, _) = world.ask(false, get("/%66orbidden").body(empty()).unwrap()).await;
    assert_eq!(response.status(), 403);
    let (response, _) = world.ask(false, get("/a/..%2fforbidden").body(empty()).unwrap()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-hostel-denied"]),
        (400, &http::HeaderValue::from_static("ambiguous_path"))
    );
    for (method, status) in [("PURGE", 403), ("no method", 400)] {
        let request = get("/x").method("POST").header("x-http-method-override", method);
        let (response, _) = world.ask(true, request.body(empty()).unwrap()).await;
        assert_eq!(response.status(), status, "{method}");
    }
    for (name, path) in [
        ("X_HTTP_Method-Override", "/x"),
        ("x-other", "/x?a=b&_method=PURGE"),
        ("x-other", "/x?%5fmethod=purge"),
    ] {
        let request = get(path).method("POST").header(name, "PURGE");
        let (response, _) = world.ask(true, request.body(empty()).unwrap()).await;
        assert_eq!(response.status(), 403, "{name} {path}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 0);
    // Where no rule looks at paths, they pass as they are.
    let (handler, _) = counting();
    let gate = TestGate { reads_paths: false, ..TestGate::default() };
    let mut world = World::new(Options { gate, ..Options::default() }, handler).await;
    let (_, body) = world.ask(false, get("/@scope%2fname//x?a=b%2f").body(empty()).unwrap()).await;
    assert_eq!(body, "GET /@scope%2fname//x?a=b%2f 0");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let settings =
        OpenerSettings { max_head: 4096, max_headers: 20, max_body: 1000, ..OpenerSettings::default() };
    let (handler, _) = counting();
    let mut world = World::new(Options { settings, ..Options::default() }, handler).await;
    let long = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx-long: {}\r\n\r\n", "a".repeat(5000));
    assert!(world.raw(long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n{}\r\n", "x-a: b\r\n".repeat(30));
    assert!(world.raw(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let body = Full::new(Bytes::from(vec![b'a'; 1001]));
    let (response, _) = world.ask(false, get("/").method("POST").body(body).unwrap()).await;
    assert_eq!(response.status(), 413);
    // One that does not say its length is cut off where it passes the limit.
    let request =
        format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    let answer = world.raw(format!("{request}3e9\r\n{}\r\n0\r\n\r\n", "a".repeat(1001)).as_bytes()).await;
    assert!(!answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn a_host_that_cannot_prove_its_name_is_refused() {
    for options in [
        Options { trusted: false, ..Options::default() },
        Options { names: &["other.example.com"], ..Options::default() },
    ] {
        let (handler, count) = counting();
        let mut world = World::new(options, handler).await;
        let (response, body) = world.ask(false, get("/").body(empty()).unwrap()).await;
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()["x-hostel-denied"], "upstream_tls");
        assert!(body.contains("certificate"), "{body}");
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}

/// What hosts answer that cannot be passed on; the sandbox gets an error, or a stream that ends as broken.
#[tokio::test]
async fn answers_that_are_not_http_are_not_passed_on() {
    for bytes in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a: b\r\n folded\r\n\r\n",
        "",
    ] {
        let theirs = TestAuthority::new();
        let acceptor = theirs.acceptor(&[HOST], &["http/1.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(bytes.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        let mut world = World::with_host(Options::default(), address, theirs.roots(), tasks).await;
        let (response, _) = world.ask(false, get("/").body(empty()).unwrap()).await;
        assert_eq!(response.status(), 502, "{bytes:?}");
    }
}

proptest! {
    /// The guard never panics, keeps its buffers bounded, and passes on nothing but what it was given or its stand-in.
    #[test]
    fn the_guard_bears_anything(
        parts in prop::collection::vec(
            prop_oneof![
                Just(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
                Just(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()),
                Just(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\n".to_vec()),
                Just(b"5\r\nhello\r\n".to_vec()),
                Just(b"0\r\n\r\n".to_vec()),
                prop::collection::vec(any::<u8>(), 0..40),
            ],
            0..12,
        ),
        size in 1_usize..50,
    ) {
        let input: Vec<u8> = parts.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let out = runtime.block_on(read_through(&input, size));
        let refused = out.windows(15).position(|part| part == b"\r\nhost: refused");
        let passed = refused.map_or(out.len(), |at| at - b"GET / HTTP/1.1".len());
        // Empty lines before a request are passed over.
        let plain = |bytes: &[u8]| -> Vec<u8> {
            bytes.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect()
        };
        prop_assert!(plain(&input).starts_with(&plain(&out[..passed])));
    }
}

/// What the guard passes on when its input comes in parts of this size.
async fn read_through(input: &[u8], size: usize) -> Vec<u8> {
    let (mut near, far) = tokio::io::duplex(size);
    let watch = Arc::new(Watch::default());
    let mut guard = Guard::new(far, Arc::clone(&watch), &OpenerSettings::default());
    let mut out = Vec::new();
    let write = async {
        let _ = near.write_all(input).await;
        drop(near);
    };
    let read = async {
        // Large enough for all that is ready at a time.
        let mut buffer = vec![0; 64 * 1024];
        // After a refusal nothing comes any more, not even an end.
        while watch.problem().is_none() {
            match guard.read(&mut buffer).await {
                Ok(count) if count > 0 => out.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
    };
    tokio::select! {
        biased;
        () = read => {}
        () = async { write.await; std::future::pending().await } => {}
    }
    out
}
