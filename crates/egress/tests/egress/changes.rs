//! What happens to open connections, and to decisions that cannot be recorded.

use crate::world::{World, allow, ask, deny, get, ip, read_all, rules};
use async_trait::async_trait;
use hostel_egress::audit::{AuditLog, AuditSettings, verify};
use hostel_egress::{Decision, Discard, Error, Kind, Limits, Protocol, Recorder, Settings, Timeouts};
use hostel_sandbox::network::{NetworkPolicy, NetworkRule};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_change_cuts_what_is_no_longer_allowed_and_nothing_else() {
    let mut world = World::new().await;
    let stays = world.echo("stays.example.com", "127.1.0.1", b"hello").await;
    let goes = world.echo("goes.example.com", "127.1.0.2", b"hello").await;
    let both = vec![
        allow("stays.example.com", stays.address.port()),
        allow("goes.example.com", goes.address.port()),
    ];
    world.policy(both.clone());
    let mut one = world.connect(&format!("stays.example.com:{}", stays.address.port())).await.unwrap();
    let mut other = world.connect(&format!("goes.example.com:{}", goes.address.port())).await.unwrap();
    for stream in [&mut one, &mut other] {
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.write_all(b"\x01ping").await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();
    }
    let listed = world.sandbox.connections();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].host.as_deref(), listed[0].protocol), (Some("stays.example.com"), Protocol::Tcp));
    assert_eq!(listed[0].address, Some(stays.address.ip()));

    let mut decisions = world.sandbox.watch();
    let mut denied = both;
    denied.push(deny("goes.example.com"));
    world.policy(denied);
    assert!(other.read(&mut [0; 5]).await.is_err(), "cut, and not ended");
    one.write_all(b"again").await.unwrap();
    let mut again = [0; 5];
    one.read_exact(&mut again).await.unwrap();
    assert_eq!(&again, b"again");
    let told = decisions.recv().await.unwrap();
    assert_eq!((told.reason.as_str(), told.host.as_deref()), ("policy_changed", Some("goes.example.com")));
    world.sandbox.close().await;
    assert!(one.read(&mut [0; 5]).await.is_err() || world.sandbox.connections().is_empty());
}

#[tokio::test]
async fn what_must_now_be_opened_is_cut() {
    let mut world = World::new().await;
    let host = world.https("api.example.com", "127.1.0.1").await;
    let url = format!("api.example.com:{}", host.address.port());
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let mut tls = world.tls(world.connect(&url).await.unwrap(), "api.example.com").await.unwrap();
    assert_eq!(world.allowed().protocol, Protocol::Tls);
    let opened = NetworkRule {
        open_tls: true,
        methods: vec!["GET".to_owned()],
        ..allow("api.example.com", host.address.port())
    };
    world.policy(vec![opened]);
    assert!(tls.read(&mut [0; 5]).await.is_err());
    let tls = world.tls(world.connect(&url).await.unwrap(), "api.example.com").await.unwrap();
    assert!(ask(tls, &get(&url)).await.contains("200 OK"));
    let decision = world.sandbox.recent().into_iter().rev().find(|one| one.kind == Kind::Request).unwrap();
    assert_eq!((decision.method.as_deref(), decision.path.as_deref()), (Some("GET"), Some("/path")));
    assert_eq!(decision.protocol, Protocol::Https);
    let tls = world.tls(world.connect(&url).await.unwrap(), "api.example.com").await.unwrap();
    let answer = ask(tls, &get(&url).replace("GET", "DELETE")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("x-hostel-denied: no_rule"), "{answer}");
    assert!(!host.heard().contains("DELETE"));
}

#[tokio::test]
async fn a_policy_of_none_ends_everything() {
    let mut world = World::new().await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.sandbox.set_policy(rules(&NetworkPolicy::open()));
    let url = format!("api.example.com:{}", host.address.port());
    let mut served = world.direct(host.address).await;
    served.write_all(format!("GET / HTTP/1.1\r\nHost: {url}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(crate::world::read_head(&mut served).await.contains("200 OK"));
    world.sandbox.set_policy(rules(&NetworkPolicy::none()));
    read_all(&mut served).await;
    assert!(world.connect(&url).await.unwrap_err().contains("no_rule"));
}

/// Fails when it is told to.
#[derive(Default)]
struct Full(AtomicBool);

#[async_trait]
impl Recorder for Full {
    async fn record(&self, _: &Decision) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Resolver("full".to_owned())) } else { Ok(()) }
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_does_not_happen() {
    let recorder = Arc::new(Full::default());
    let mut world = World::with(Settings::default(), recorder.clone()).await;
    let plain = world.http("web.example.com", "127.1.0.1").await;
    let tls = world.https("api.example.com", "127.1.0.2").await;
    world.sandbox.set_policy(rules(&NetworkPolicy::open()));
    recorder.0.store(true, Ordering::Relaxed);
    let web = format!("web.example.com:{}", plain.address.port());
    let answer = world.connect(&web).await.unwrap_err();
    assert!(answer.contains("x-hostel-denied: audit_failed"), "{answer}");
    let absolute = get(&web).replace("GET /", &format!("GET http://{web}/"));
    assert!(!ask(world.proxied().await, &absolute).await.contains("200 OK"));
    let stream = world.direct(tls.address).await;
    assert!(world.tls(stream, "api.example.com").await.is_err());
    assert_eq!((plain.heard(), world.refused().as_str()), (String::new(), "audit_failed"));
    // Nobody was asked for a name, and nobody was connected to.
    let silent = std::net::TcpListener::bind("127.1.0.3:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let silent_at = silent.local_addr().unwrap();
    world.table.set("silent.example.com", &[silent_at.ip()]);
    world.connect(&format!("silent.example.com:{}", silent_at.port())).await.unwrap_err();
    assert_eq!(ask(world.direct(silent_at).await, "SSH-2.0-x\r\n").await, "");
    let code = crate::names::look_up(&world, "web.example.com.", hickory_proto::rr::RecordType::A).await.0;
    assert_eq!(code, hickory_proto::op::ResponseCode::ServFail);
    assert_eq!(world.table.asked(), 0);
    assert_eq!(silent.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    recorder.0.store(false, Ordering::Relaxed);
    assert!(ask(world.connect(&web).await.unwrap(), &get(&web)).await.contains("200 OK"));
    assert_eq!(world.table.asked(), 1);
}

/// Fails for one address.
struct AllBut(std::net::IpAddr);

#[async_trait]
impl Recorder for AllBut {
    async fn record(&self, decision: &Decision) -> Result<(), Error> {
        if decision.address == Some(self.0) { Err(Error::Resolver("full".to_owned())) } else { Ok(()) }
    }
}

#[tokio::test]
async fn each_address_is_recorded_before_it_is_tried() {
    let second = std::net::TcpListener::bind("127.1.0.2:0").unwrap();
    second.set_nonblocking(true).unwrap();
    let at = second.local_addr().unwrap();
    let world = World::with(Settings::default(), Arc::new(AllBut(at.ip()))).await;
    // Nobody listens at the first.
    world.table.set("api.example.com", &[ip("127.1.0.1"), at.ip()]);
    world.policy(vec![allow("api.example.com", at.port())]);
    let answer = world.connect(&format!("api.example.com:{}", at.port())).await.unwrap_err();
    assert!(answer.contains("audit_failed"), "{answer}");
    assert_eq!(world.allowed().address, Some(ip("127.1.0.1")));
    assert_eq!(second.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn who_says_nothing_after_connect_is_in_the_record() {
    let mut world = World::new().await;
    let host = world.https("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    drop(world.connect(&format!("api.example.com:{}", host.address.port())).await.unwrap());
    let told = |kind: Kind| {
        let of_kind = move |one: &Arc<Decision>| one.kind == kind && one.allowed;
        world.sandbox.recent().into_iter().filter(of_kind).collect::<Vec<_>>()
    };
    let (names, connections) = (told(Kind::Lookup), told(Kind::Connect));
    assert_eq!((names.len(), connections.len()), (1, 1));
    assert_eq!(names[0].host.as_deref(), Some("api.example.com"));
    assert_eq!(connections[0].address, Some(host.address.ip()));
}

#[tokio::test]
async fn every_address_of_a_connection_is_held_to_a_new_policy() {
    let mut world = World::new().await;
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let first = world.answering("api.example.com", "127.1.0.1", answer.to_owned()).await;
    let second = std::net::TcpListener::bind(("127.1.0.2", first.address.port())).unwrap();
    let url = format!("api.example.com:{}", first.address.port());
    world.policy(vec![allow("api.example.com", first.address.port())]);
    let mut stream = world.connect(&url).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {url}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(crate::world::read_head(&mut stream).await.contains("200 OK"));
    // The next request of the same client goes to another address.
    world.table.set("api.example.com", &[second.local_addr().unwrap().ip()]);
    stream.write_all(request.as_bytes()).await.unwrap();
    let _host = tokio::task::spawn_blocking(move || second.accept().unwrap()).await.unwrap();
    while world.sandbox.connections()[0].address == Some(first.address.ip()) {
        tokio::task::yield_now().await;
    }
    world.policy(vec![allow("api.example.com", first.address.port()), deny("127.1.0.1/32")]);
    read_all(&mut stream).await;
}

/// Keeps what it is told.
#[derive(Default)]
struct Kept(std::sync::Mutex<Vec<Decision>>);

#[async_trait]
impl Recorder for Kept {
    async fn record(&self, decision: &Decision) -> Result<(), Error> {
        self.0.lock().unwrap().push(decision.clone());
        Ok(())
    }
}

#[tokio::test]
async fn a_flood_of_refusals_is_a_few_records_and_a_number() {
    let recorder = Arc::new(Kept::default());
    let limits = Limits { refusals_per_second: 5, ..Limits::default() };
    let world = World::with(Settings { limits, ..Settings::default() }, recorder.clone()).await;
    for _ in 0..100 {
        world.connect("evil.example.net:443").await.unwrap_err();
    }
    assert_eq!(world.sandbox.recent().len(), 100, "who watches sees all of them");
    world.sandbox.close().await;
    let kept = recorder.0.lock().unwrap();
    let numbers: Vec<u64> = kept.iter().filter_map(|one| one.count).collect();
    let each = kept.len() - numbers.len();
    assert!(each >= 5 && !numbers.is_empty(), "{each} {numbers:?}");
    assert_eq!(each as u64 + numbers.iter().sum::<u64>(), 100, "none is lost");
}

#[tokio::test]
async fn decisions_are_in_the_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let log = Arc::new(AuditLog::open(AuditSettings::new(&path)).unwrap());
    let mut world = World::with(Settings::default(), log).await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let url = format!("api.example.com:{}", host.address.port());
    assert!(ask(world.connect(&url).await.unwrap(), &get(&url)).await.contains("200 OK"));
    assert!(world.connect("evil.example.net:443").await.is_err());
    let records = verify(&path).unwrap().records;
    assert_eq!(records, world.sandbox.recent().len() as u64);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"host\":\"evil.example.net\"") && text.contains("\"reason\":\"no_rule\""));
    assert!(text.contains(&format!("\"rule\":\"allow api.example.com port {}\"", host.address.port())));
}

#[tokio::test]
async fn an_allowed_address_is_connected_to_before_the_client_says_a_word() {
    let timeouts = Timeouts { quiet: Duration::from_secs(600), ..Timeouts::default() };
    let world = World::with(Settings { timeouts, ..Settings::default() }, Arc::new(Discard)).await;
    let host = tokio::net::TcpListener::bind("127.1.0.1:0").await.unwrap();
    let at = host.local_addr().unwrap();
    world.policy(vec![allow("127.1.0.1/32", at.port())]);
    let mut client = world.connect(&at.to_string()).await.unwrap();
    let (mut server, _) =
        tokio::time::timeout(Duration::from_secs(20), host.accept()).await.unwrap().unwrap();
    assert_eq!(world.allowed().address, Some(at.ip()));
    client.write_all(b"\x01ping").await.unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard, world.sandbox.recent().len()), (b"\x01ping", 1), "recorded once");
}
