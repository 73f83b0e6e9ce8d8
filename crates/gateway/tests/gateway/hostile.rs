//! Clients that mean no good.

use crate::stage::{Inside, Stage, TOKEN, access, config, soon, upstream, whole};
use crate::upstream::{Model, message};
use hostel_gateway::{ApiFetches, Door, Gateway};
use hostel_sandbox::{ModelBudget, SandboxId};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Writes raw bytes and reads until the gateway closes.
async fn raw(inside: &Inside, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(inside.address).await.unwrap();
    // It may be refused in the middle.
    let _ = socket.write_all(bytes).await;
    let mut read = Vec::new();
    let _ = soon(socket.read_to_end(&mut read)).await;
    String::from_utf8_lossy(&read).into_owned()
}

/// Nobody reads what it has to send, and whoever is the last to close it waits for that.
fn lingering() -> (std::net::TcpListener, std::net::TcpStream) {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = std::net::TcpStream::connect(deaf.local_addr().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &socket, &[0; 1 << 16]).is_ok() {}
    sockopt::set_socket_linger(&socket, Some(Duration::from_secs(100))).unwrap();
    (deaf, socket)
}

/// Writes bytes with a descriptor beside them.
fn send_with(door: &UnixStream, bytes: &[u8], descriptor: impl AsFd) {
    let descriptors = [descriptor.as_fd()];
    let mut storage = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut storage);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(door, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_sent_beside_bytes_holds_nobody_up() {
    let model = Model::always(|| message(1, 1)).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("door");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // One that is read, and one that the gateway has no use for when it closes. All is sent before it looks.
    let mut doors = Vec::new();
    for (bytes, more) in [("GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n", false), ("no request\r\n\r\n", true)] {
        let (deaf, socket) = lingering();
        let door = UnixStream::connect(&path).await.unwrap();
        if more {
            // Between two messages with descriptors a reader stops.
            send_with(&door, bytes.as_bytes(), std::io::stdin());
            send_with(&door, b"more", socket);
        } else {
            send_with(&door, bytes.as_bytes(), socket);
        }
        doors.push((door, deaf));
    }
    let id = SandboxId::parse("sb-b").unwrap();
    let access = access(ModelBudget::default());
    let attachment = stage.gateway.attach(id, access, vec![Door::Unix(listener)]).unwrap();
    for (mut door, _deaf) in doors {
        let mut answer = [0; 12];
        soon(door.read_exact(&mut answer)).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
        drop(door);
        let (status, _, _) = stage.inside.ask_whole().await;
        assert_eq!(status, 200, "others are served");
    }
    soon(attachment.close()).await;
}

#[tokio::test]
async fn tokens_must_be_the_sandboxs_own() {
    let model = Model::always(|| message(1, 1)).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let longer = format!("{TOKEN}x");
    for (name, value) in [
        ("x-api-key", "sk-ant-another"),
        ("x-api-key", ""),
        ("x-api-key", &TOKEN[..10]),
        ("x-api-key", &longer),
        ("authorization", TOKEN),
        ("authorization", "Basic c2s="),
        ("x-other", TOKEN),
    ] {
        let mut request = stage.inside.request("POST", "/v1/messages", "{}");
        request.headers_mut().remove("x-api-key");
        request.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        let (status, _, body) = whole(stage.inside.send(request).await).await;
        assert!(status == 401 && body.contains("authentication_error"), "{name}: {value}: {status} {body}");
    }
    assert_eq!((model.count(), stage.gateway.snapshot().refusals["token"]), (0, 7));
}

#[tokio::test]
async fn only_the_paths_of_the_api_go_on() {
    let model = Model::always(|| message(1, 1)).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    for (method, path) in [
        ("GET", "/v1/messages"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/"),
        ("POST", "/v1/messages/../organizations"),
        ("GET", "/v1/models/../organizations/me"),
        ("GET", "/v1/models/%2e%2e%2forganizations"),
        ("DELETE", "/v1/models"),
        ("POST", "//v1/messages"),
    ] {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let answer = raw(&stage.inside, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("not_found_error"), "{path}: {answer}");
    }
    assert_eq!(model.count(), 0);
    // The authority of an absolute form chooses nothing.
    let head = format!(
        "POST http://evil.example.com/v1/messages HTTP/1.1\r\nhost: evil.example.com\r\nx-api-key: {TOKEN}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    assert!(raw(&stage.inside, head.as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert_eq!(model.count(), 1);
}

#[tokio::test]
async fn the_api_fetches_nothing_for_a_sandbox_unless_it_may() {
    let model = Model::always(|| message(1, 1)).await;
    let stage = Stage::new(&model.url, ModelBudget::default()).await;
    let image = r#"{"type":"image","source":{"type":"url","url":"https://example.com/?stolen"}}"#;
    let long = format!("{image},{{\"type\":\"text\",\"text\":\"{}\"}}", "x".repeat(1 << 20));
    let asked = |blocks: &str| format!(r#"{{"messages":[{{"role":"user","content":[{blocks}]}}]}}"#);
    let reaching = [
        r#"{"mcp_servers":[{"type":"url","url":"https://example.com"}]}"#.to_owned(),
        r#"{"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]}"#.to_owned(),
        asked(image),
        asked(&long),
    ];
    for path in ["/v1/messages", "/v1/messages/count_tokens"] {
        for body in &reaching {
            let (status, headers, told) =
                whole(stage.inside.send(stage.inside.request("POST", path, body)).await).await;
            assert!(status == 400 && told.contains("api_fetches"), "{status}: {told}");
            assert_eq!(headers["x-should-retry"], "false");
        }
    }
    // Compressed, it would be read by the upstream alone.
    let mut packed = stage.inside.request("POST", "/v1/messages", "{}");
    packed.headers_mut().insert("content-encoding", "deflate".parse().unwrap());
    assert_eq!(stage.inside.send(packed).await.status(), 415);
    let refusals = stage.gateway.snapshot().refusals;
    assert_eq!((model.count(), refusals["fetch"], refusals["body"]), (0, 8, 1));
    // Some say that they encode nothing.
    let mut plain = stage.inside.request("POST", "/v1/messages", "{}");
    plain.headers_mut().insert("content-encoding", "identity".parse().unwrap());
    assert_eq!(stage.inside.send(plain).await.status(), 200);

    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), vec![upstream("first", &model.url)]);
    config.api_fetches = ApiFetches::Allow;
    let gateway = Gateway::open(config).await.unwrap();
    let inside = Inside::attach(&gateway, "sb-a", access(ModelBudget::default()));
    for body in &reaching {
        assert_eq!(inside.send(inside.request("POST", "/v1/messages", body)).await.status(), 200);
    }
    assert_eq!(model.count(), 5);
}

#[tokio::test]
async fn what_is_too_large_or_smuggled_is_refused() {
    let model = Model::always(|| message(1, 1)).await;
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), vec![upstream("first", &model.url)]);
    config.limits.body_bytes = 1000;
    config.limits.linger = Duration::from_millis(100);
    let gateway = Gateway::open(config).await.unwrap();
    let inside = Inside::attach(&gateway, "sb-a", access(ModelBudget::default()));
    let head = |rest: &str| {
        format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\nconnection: close\r\n{rest}")
    };
    let huge = head(&format!("x-huge: {}\r\n\r\n", "y".repeat(200 << 10)));
    let many = head(&format!("{}\r\n", "a: b\r\n".repeat(200)));
    let large = head("content-length: 1001\r\n\r\n");
    let chunked =
        head(&format!("transfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)));
    let twice = head("content-length: 2\r\ncontent-length: 3\r\n\r\n{}x");
    for (bytes, statuses) in [
        (huge, ["431", ""]),
        (many, ["431", "400"]),
        (large, ["413", ""]),
        (chunked, ["413", ""]),
        (twice, ["400", ""]),
    ] {
        let answer = raw(&inside, bytes.as_bytes()).await;
        let status = answer.get(9..12).unwrap_or("");
        assert!(statuses.contains(&status), "{:.80}: {answer}", bytes.replace("\r\n", "|"));
    }
    assert_eq!(model.count(), 0);
    let fits = inside.request("POST", "/v1/messages", &format!("{:1000}", "{}"));
    assert_eq!(whole(inside.send(fits).await).await.0, 200);
}

#[tokio::test]
async fn slow_clients_are_given_up() {
    let model = Model::always(|| message(1, 1)).await;
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), vec![upstream("first", &model.url)]);
    config.limits.header_timeout = Duration::from_millis(100);
    config.limits.body_timeout = Duration::from_millis(100);
    let gateway = Gateway::open(config).await.unwrap();
    let inside = Inside::attach(&gateway, "sb-a", access(ModelBudget::default()));
    raw(&inside, b"").await;
    raw(&inside, b"POST /v1/mess").await;
    let body = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\ncontent-length: 100\r\n\r\nslow"
    );
    assert!(raw(&inside, body.as_bytes()).await.starts_with("HTTP/1.1 408"));
    assert_eq!((model.count(), gateway.snapshot().refusals["body"]), (0, 1));
}

#[tokio::test]
async fn connections_are_bounded_and_idle_ones_make_room() {
    let (release, wait) = tokio::sync::watch::channel(());
    let model = Model::start(move |_| {
        let mut wait = wait.clone();
        async move {
            let _ = wait.changed().await;
            message(1, 1)
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), vec![upstream("first", &model.url)]);
    config.limits.connections = 2;
    let gateway = Gateway::open(config).await.unwrap();
    let inside = Inside::attach(&gateway, "sb-a", access(ModelBudget::default()));
    let mut idle = TcpStream::connect(inside.address).await.unwrap();
    idle.write_all(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 1024]).await.unwrap() > 0);
    let busy = [inside.ask_whole(), inside.ask_whole()];
    let all = futures::future::join_all(busy);
    tokio::pin!(all);
    // Both are served: the idle connection made room.
    tokio::select! {
        _ = &mut all => panic!("nobody answered yet"),
        () = soon(model.arrived(2)) => {}
    }
    let third = inside.ask_whole();
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut third).await;
    assert!(early.is_err() && model.count() == 2, "there is no room for a third");
    release.send(()).unwrap();
    assert!(soon(&mut all).await.iter().all(|answer| answer.0 == 200));
    drop(release);
    assert_eq!(soon(third).await.0, 200);
}

#[tokio::test]
async fn a_refusal_is_seen_by_who_sends_much() {
    const LENGTH: usize = 5 << 20;
    let model = Model::always(|| message(1, 1)).await;
    let nothing = ModelBudget { requests: Some(0), ..ModelBudget::default() };
    let stage = Stage::with(vec![upstream("first", &model.url)], nothing, |limits| {
        limits.body_bytes = LENGTH;
    })
    .await;
    for (token, path, length, status) in [
        (TOKEN, "/v1/messages", LENGTH, "400"),
        (TOKEN, "/v1/files", LENGTH, "404"),
        ("wrong", "/v1/messages", LENGTH, "401"),
        (TOKEN, "/v1/messages", LENGTH + 1, "4"),
    ] {
        let mut socket = TcpStream::connect(stage.inside.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {token}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&vec![b'x'; length]).await.unwrap();
        let mut answer = String::new();
        soon(socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    assert_eq!(model.count(), 0);
}

#[tokio::test]
async fn bodies_are_bounded_for_the_node_too() {
    const MOST: usize = 1 << 20;
    let (release, wait) = tokio::sync::watch::channel(());
    let model = Model::start(move |seen| {
        let mut wait = wait.clone();
        async move {
            if seen.body == "{}" {
                let _ = wait.changed().await;
            }
            message(1, 1)
        }
    })
    .await;
    let stage = Stage::with(vec![upstream("first", &model.url)], ModelBudget::default(), |limits| {
        (limits.body_bytes, limits.held_bytes, limits.node_held_bytes) = (MOST, MOST, MOST);
        limits.room_timeout = Duration::from_secs(1);
    })
    .await;
    let other = Inside::attach(&stage.gateway, "sb-b", access(ModelBudget::default()));
    let head = format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\n");
    // A chunked body may become anything until it has come.
    let mut chunked = TcpStream::connect(stage.inside.address).await.unwrap();
    let begin = format!("{head}transfer-encoding: chunked\r\n\r\n2\r\n{{");
    chunked.write_all(begin.as_bytes()).await.unwrap();
    let refused = async {
        loop {
            let (status, headers, _) = other.ask_whole().await;
            if status != 200 {
                return (status, headers);
            }
        }
    };
    let (status, headers) = soon(refused).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (529, "1"));
    assert!(stage.gateway.snapshot().refusals["room"] > 0);
    let before = model.count();
    chunked.write_all(b"}\r\n0\r\n\r\n").await.unwrap();
    soon(model.arrived(before + 1)).await;
    assert_eq!(other.ask_whole().await.0, 200, "what it did not become is free again");
    release.send(()).unwrap();
}

#[tokio::test]
async fn who_announces_much_keeps_no_small_request_waiting() {
    const MIB: usize = 1 << 20;
    let model = Model::always(|| message(1, 1)).await;
    let stage = Stage::with(vec![upstream("first", &model.url)], ModelBudget::default(), |limits| {
        (limits.body_bytes, limits.held_bytes, limits.node_held_bytes) = (3 * MIB, 3 * MIB, 8 * MIB);
        limits.room_timeout = Duration::from_secs(1);
    })
    .await;
    let (mut greedy, mut silent) = (Vec::new(), Vec::new());
    for (id, length) in [("sb-b", 3 * MIB), ("sb-c", 3 * MIB), ("sb-d", 2 * MIB)] {
        let inside = Inside::attach(&stage.gateway, id, access(ModelBudget::default()));
        let mut socket = TcpStream::connect(inside.address).await.unwrap();
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {TOKEN}\r\ncontent-length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        greedy.push(inside);
        silent.push(socket);
    }
    let large = "x".repeat(2 * MIB);
    let full = async {
        while whole(stage.inside.send(stage.inside.request("POST", "/v1/messages", &large)).await).await.0
            == 200
        {}
    };
    soon(full).await;
    assert!(stage.gateway.snapshot().refusals["room"] > 0);
    assert_eq!(stage.inside.ask_whole().await.0, 200);
}
