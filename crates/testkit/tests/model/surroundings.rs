//! Everything but answers: keys, other paths, what was seen, sockets.

use crate::client::{Client, server};
use hostel_testkit::{ModelOptions, ModelServer};
use http::{HeaderValue, Method, Version};
use std::os::unix::net::UnixListener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

#[tokio::test]
async fn only_the_right_key_is_answered() {
    let options = ModelOptions { key: Some("sk-right".into()), ..ModelOptions::default() };
    assert!(!format!("{options:?}").contains("sk-right"));
    let server = ModelServer::start(options).await.unwrap();
    let client = Client::http1(&server);
    for (name, value, status) in [
        ("x-api-key", "sk-right", 200),
        ("authorization", "Bearer sk-right", 200),
        ("x-api-key", "sk-wrong", 401),
        ("authorization", "Basic sk-right", 401),
        ("x-other", "nothing", 401),
    ] {
        let mut request = client.asking("x", false);
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        let answer = client.send(request).await;
        assert_eq!(answer.status, status, "{name}: {value}");
    }
    assert_eq!(client.get("/v1/models").await.error(), (401, "authentication_error".to_owned()));
    assert_eq!(client.get("/api/hello").await.status, 200);
    let requests = server.requests();
    assert_eq!(requests[0].header("x-api-key"), Some("sk-right"));
    assert!(!format!("{requests:?}").contains("sk-"));
    server.stop().await;
}

#[tokio::test]
async fn what_clients_ask_besides_is_there() {
    let server = server().await;
    let client = Client::http2(&server);
    for path in ["/", "/api/hello"] {
        let answer = client.send(client.request(Method::HEAD, path, "")).await;
        assert!(answer.status == 200 && answer.body.is_empty());
    }
    let models = client.get("/v1/models?limit=1000").await.json();
    let first = models["first_id"].as_str().unwrap();
    assert_eq!(client.get(&format!("/v1/models/{first}")).await.json()["id"], first);
    assert_eq!(client.get("/v1/models/none").await.error().0, 404);
    server.stop().await;
}

#[tokio::test]
async fn requests_are_kept_up_to_a_number() {
    let options = ModelOptions { keep_requests: 2, ..ModelOptions::default() };
    let server = ModelServer::start(options).await.unwrap();
    let client = Client::http2(&server);
    for prompt in ["one", "two", "three"] {
        client.ask(prompt).await;
    }
    server.saw(3).await;
    let requests = server.requests();
    let numbers: Vec<u64> = requests.iter().map(|request| request.number).collect();
    assert_eq!(numbers, [2, 3]);
    let last = &requests[1];
    assert_eq!((last.path.as_str(), last.query.as_deref()), ("/v1/messages", Some("beta=true")));
    assert_eq!((last.version, last.status), (Version::HTTP_2, Some(200)));
    assert_eq!(last.json().unwrap()["messages"][0]["content"], "three");
    assert_eq!(last.answer, "echo");
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_does_as_well_and_replaces_a_stale_one() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.sock");
    // Dropping a listener leaves its file.
    drop(UnixListener::bind(&path).unwrap());
    let options = ModelOptions { tcp: None, unix: Some(path.clone()), ..ModelOptions::default() };
    let server = ModelServer::start(options.clone()).await.unwrap();
    assert!(ModelServer::start(options).await.is_err(), "one that is in use stays");
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /api/hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!((server.url().as_str(), server.address()), ("http://localhost", None));
    server.stop().await;
    assert!(!path.exists());
}
