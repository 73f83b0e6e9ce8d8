//! Requests that are wrong, by mistake or on purpose.

use crate::client::{Client, body, server, user};
use hostel_testkit::{Error, ModelOptions, ModelServer};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn bodies_have_a_limit() {
    let server = server().await;
    let answer = Client::http1(&server).post("/v1/messages", vec![b' '; (32 << 20) + 1]).await;
    assert_eq!(answer.error(), (413, "request_too_large".to_owned()));
    assert!(server.requests()[0].body.is_empty());
    server.stop().await;
    let most = body(json!([user(&"x".repeat(1 << 20))]), false);
    let options = ModelOptions { max_body_bytes: most.len(), ..ModelOptions::default() };
    let server = ModelServer::start(options).await.unwrap();
    for client in [Client::http1(&server), Client::http2(&server)] {
        assert_eq!(client.post("/v1/messages", most.clone()).await.status, 200);
        assert_eq!(client.post("/v1/messages", most.clone() + " ").await.error().0, 413);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let server = server().await;
    let client = Client::http1(&server);
    let message = |text: &str| json!({ "model": "m", "max_tokens": 1, "messages": [user(text)] }).to_string();
    let deep =
        format!(r#"{{"model":"m","max_tokens":1,"messages":{}{}}}"#, "[".repeat(9999), "]".repeat(9999));
    for wrong in [
        "{".to_owned(),
        String::new(),
        "[]".to_owned(),
        "\u{0}".to_owned(),
        deep,
        json!({ "max_tokens": 1, "messages": [user("x")] }).to_string(),
        json!({ "model": "m", "messages": [user("x")] }).to_string(),
        json!({ "model": "m", "max_tokens": 1, "messages": [] }).to_string(),
        json!({ "model": "m", "max_tokens": -1, "messages": [user("x")] }).to_string(),
        json!({ "model": "m", "max_tokens": 1, "messages": [{ "role": "user", "content": 7 }] }).to_string(),
        message("@@["),
        message("@@[{\"txt\":\"x\"}]"),
        message(&format!("@@{}", "[".repeat(9999))),
        message("@@[{\"text\":\"x\",\"wait_ms\":99999999999}]"),
    ] {
        let answer = client.post("/v1/messages", wrong.clone()).await;
        assert_eq!(answer.error(), (400, "invalid_request_error".to_owned()), "{wrong:.80}");
    }
    for (method, path) in [
        (Method::GET, "/v1/messages"),
        (Method::POST, "/"),
        (Method::GET, "/v2"),
        (Method::DELETE, "/v1/models"),
    ] {
        assert_eq!(client.send(client.request(method, path, "")).await.error().0, 404, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_connection_takes_many_requests_chunked_too() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.address().unwrap()).await.unwrap();
    let body = body(json!([user("by pieces")]), false);
    let (one, two) = body.split_at(7);
    let head = "POST /v1/messages?beta=true HTTP/1.1\r\nhost: example.com\r\ntransfer-encoding: chunked\r\n";
    for last in ["", "connection: close\r\n"] {
        let chunks = format!("{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n", one.len(), two.len());
        stream.write_all(format!("{head}{last}\r\n{chunks}").as_bytes()).await.unwrap();
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2);
    assert_eq!(answers.matches("echo: by pieces").count(), 2);
    let mut garbage = TcpStream::connect(server.address().unwrap()).await.unwrap();
    garbage.write_all(b"\x16\x03\x01\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    garbage.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn it_is_for_this_machine_alone() {
    let start = |options| async { ModelServer::start(options).await.unwrap_err() };
    let everywhere = ModelOptions { tcp: Some("0.0.0.0:0".parse().unwrap()), ..ModelOptions::default() };
    assert!(matches!(start(everywhere).await, Error::NotLoopback(_)));
    let nowhere = ModelOptions { tcp: None, ..ModelOptions::default() };
    assert!(matches!(start(nowhere).await, Error::NothingToListenOn));
    let server = server().await;
    let taken = ModelOptions { tcp: server.address(), ..ModelOptions::default() };
    assert!(matches!(start(taken).await, Error::Listen { .. }));
    server.stop().await;
}
