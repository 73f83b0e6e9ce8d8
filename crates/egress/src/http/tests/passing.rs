//! What must work as if nothing stood between.

use super::host::{Feed, Handler, handler};
use super::world::{HOST, Options, World, empty, get, read, secret};
use bytes::Bytes;
use hostel_sandbox::secret::SecretForm;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A host that sends back what it gets.
fn mirror() -> Handler {
    handler(|request| async move {
        let version = format!("{:?}", request.version());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut response = Response::new(Feed::of([body]));
        response.headers_mut().insert("x-version", HeaderValue::from_str(&version).unwrap());
        response
    })
}

#[tokio::test]
async fn bodies_pass_in_all_pairs_of_versions() {
    for (two, protocols, wanted) in [
        (false, &["h2", "http/1.1"], "HTTP/1.1"),
        (true, &["h2", "http/1.1"], "HTTP/2.0"),
        (true, &["http/1.1", "http/1.1"], "HTTP/1.1"),
    ] {
        for secrets in [Vec::new(), secret(&[HOST], SecretForm::Placeholder)] {
            let options = Options { protocols, secrets, ..Options::default() };
            let mut world = World::new(options, mirror()).await;
            let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0] | 0x20).collect();
            let body = Full::new(Bytes::from(sent.clone()));
            let request = get("/upload?a=b").method("POST").header("content-type", "text/plain").body(body);
            let request = request.unwrap();
            let (mut parts, body) = request.into_parts();
            let response = if two {
                parts.uri = format!("https://{HOST}/upload?a=b").parse().unwrap();
                parts.headers.remove("host");
                world.new_client().await.send_request(Request::from_parts(parts, body)).await.unwrap()
            } else {
                world.old().await.send_request(Request::from_parts(parts, body)).await.unwrap()
            };
            assert_eq!(response.headers()["x-version"], wanted);
            assert!(response.into_body().collect().await.unwrap().to_bytes() == sent, "{wanted}");
        }
    }
}

#[tokio::test]
async fn each_part_arrives_before_the_next_is_sent() {
    for two in [false, true] {
        for secrets in [Vec::new(), secret(&[HOST], SecretForm::Placeholder)] {
            let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
            let receiver = Arc::new(Mutex::new(Some(receiver)));
            let handler = handler(move |_| {
                let receiver = receiver.lock().unwrap().take().unwrap();
                async move { Response::new(Feed(receiver)) }
            });
            let mut world = World::new(Options { secrets, ..Options::default() }, handler).await;
            let response = if two {
                let request = Request::builder().uri(format!("https://{HOST}/")).body(empty()).unwrap();
                world.new_client().await.send_request(request).await.unwrap()
            } else {
                world.old().await.send_request(get("/").body(empty()).unwrap()).await.unwrap()
            };
            let mut body = response.into_body();
            for index in 0..20 {
                let part = format!("data: {index}\n\n");
                sender.send(Frame::data(Bytes::from(part.clone()))).await.unwrap();
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), part.as_bytes());
            }
            drop(sender);
            assert!(body.collect().await.unwrap().to_bytes().is_empty(), "{two}");
        }
    }
}

#[tokio::test]
async fn a_connection_to_the_host_is_used_again_and_made_again() {
    let count = Arc::new(Mutex::new(0));
    let handler = handler(move |_| {
        *count.lock().unwrap() += 1;
        // The host closes after the second answer.
        let close = *count.lock().unwrap() == 2;
        async move {
            let mut response = Response::new(Feed::text("done"));
            if close {
                response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            }
            response
        }
    });
    let mut world = World::new(Options::default(), handler).await;
    let mut client = world.old().await;
    for (request, dials) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        client.ready().await.unwrap();
        let response = client.send_request(get("/").body(empty()).unwrap()).await.unwrap();
        let (response, body) = read(response).await;
        // Closing is between the host and us.
        assert!(response.headers().get("connection").is_none());
        assert_eq!((body.as_str(), world.dials()), ("done", dials), "request {request}");
    }
}

#[tokio::test]
async fn many_requests_at_a_time_pass_over_one_connection() {
    for protocols in [&["h2"], &["http/1.1"]] {
        let mut world = World::new(Options { protocols, ..Options::default() }, mirror()).await;
        let client = world.new_client().await;
        let mut requests = JoinSet::new();
        for index in 0..50 {
            let mut client = client.clone();
            requests.spawn(async move {
                let body = Full::new(Bytes::from(format!("body {index}")));
                let request = Request::builder()
                    .method("POST")
                    .uri(format!("https://{HOST}/{index}"))
                    .body(body)
                    .unwrap();
                let (response, body) = read(client.send_request(request).await.unwrap()).await;
                assert_eq!((response.status().as_u16(), body), (200, format!("body {index}")));
            });
        }
        while let Some(done) = requests.join_next().await {
            done.unwrap();
        }
        if protocols == &["h2"] {
            assert_eq!(world.dials(), 1);
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_sends_its_body() {
    let world = World::new(Options::default(), mirror()).await;
    let mut stream = world.connect(HOST, &[]).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 25];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest).await;
    assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.contains("\r\nhello\r\n"), "{rest}");
}

/// A host that takes any upgrade and then sends back what it gets.
fn upgrading() -> Handler {
    handler(|mut request| async move {
        let Some(protocol) = request.headers().get("upgrade").cloned() else {
            return Response::new(Feed::text("no upgrade asked for"));
        };
        let mut tunnel = JoinSet::new();
        tunnel.spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..count]).await.unwrap();
                stream.flush().await.unwrap();
            }
        });
        tunnel.detach_all();
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response.header("connection", "upgrade").header("upgrade", protocol).body(Feed::of([])).unwrap()
    })
}

#[tokio::test]
async fn a_web_socket_passes_where_no_secret_goes() {
    let ask = |path: &str, protocol: &str| {
        get(path)
            .header("connection", "Upgrade")
            .header("upgrade", protocol.to_owned())
            .body(empty())
            .unwrap()
    };
    let mut world = World::new(Options::default(), upgrading()).await;
    let response = world.old().await.send_request(ask("/", "websocket")).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for part in ["GET / HTTP/1.1\r\n", "\x00\x01", "bye"] {
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut back = vec![0; part.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, part.as_bytes());
    }
    // Any other protocol is not asked for.
    let response = world.old().await.send_request(ask("/", "h2c")).await.unwrap();
    assert_eq!(read(response).await.1, "no upgrade asked for");
    let secrets = secret(&[HOST], SecretForm::Placeholder);
    let mut world = World::new(Options { secrets, ..Options::default() }, upgrading()).await;
    let response = world.old().await.send_request(ask("/", "websocket")).await.unwrap();
    assert_eq!(response.headers()["x-hostel-denied"], "upgrade_with_secret");
}

#[tokio::test]
async fn cutting_ends_both_sides() {
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let handler = handler(move |_| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        async move { Response::new(Feed(receiver)) }
    });
    let mut world = World::new(Options::default(), handler).await;
    let response = world.old().await.send_request(get("/").body(empty()).unwrap()).await.unwrap();
    let mut body = response.into_body();
    sender.send(Frame::data(Bytes::from_static(b"first"))).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    world.cut().await;
    assert!(body.frame().await.is_none_or(|frame| frame.is_err()));
    // The host's side is gone too: its body is dropped.
    sender.closed().await;
}

#[tokio::test]
async fn plain_http_passes_in_origin_and_absolute_form() {
    let handler = handler(|request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        Response::new(Feed::text(format!("{host} {}", request.uri())))
    });
    let world = World::new(Options { tls: false, ..Options::default() }, handler).await;
    for target in ["/a?b", "http://api.example.com/a?b", "http://API.EXAMPLE.com:80/a?b"] {
        let request = format!(
            "\r\nGET {target} HTTP/1.1\r\nhost: {HOST}:80\r\nproxy-connection: keep-alive\r\nconnection: close\r\n\r\n"
        );
        let answer = world.raw(request.as_bytes()).await;
        assert!(answer.contains("\r\napi.example.com /a?b\r\n"), "{answer}");
    }
}
