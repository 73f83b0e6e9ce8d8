//! What DNS answers, and what becomes of it.

use crate::world::{World, allow, ask, get, ip, rules};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hostel_egress::{Discard, Kind, Limits, Settings, Timeouts};
use hostel_sandbox::network::NetworkPolicy;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn exchange(world: &World, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question.to_vec().unwrap(), world.dns_udp).await.unwrap();
    let mut buffer = [0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask_by_tcp(stream: &mut TcpStream, question: &Message) -> Message {
    let bytes = question.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

pub(crate) async fn look_up(world: &World, name: &str, kind: RecordType) -> (ResponseCode, Vec<IpAddr>) {
    let answer = exchange(world, &question(name, kind)).await;
    assert!(answer.answers.iter().all(|record| (5..=300).contains(&record.ttl)));
    let addresses = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    (answer.metadata.response_code, addresses)
}

#[tokio::test]
async fn only_what_may_be_reached_is_answered() {
    let world = World::new().await;
    world.policy(vec![allow("api.example.com", 443), allow("*.example.org", 443)]);
    world.table.set("api.example.com", &[ip("127.1.0.1"), ip("10.0.0.1"), ip("::1"), ip("2606:4700::1")]);
    world.table.set("secret.example.net", &[ip("127.1.0.2")]);
    world.table.set("in.example.org", &[ip("::ffff:10.0.0.1")]);
    let (none, no) = (ResponseCode::NoError, ResponseCode::NXDomain);
    // Inner addresses are left out (rebinding).
    assert_eq!(look_up(&world, "API.example.com.", RecordType::A).await, (none, vec![ip("127.1.0.1")]));
    assert_eq!(look_up(&world, "api.example.com.", RecordType::AAAA).await, (none, vec![ip("2606:4700::1")]));
    assert_eq!(look_up(&world, "in.example.org.", RecordType::A).await, (no, vec![]));
    assert_eq!(world.refused(), "private_address");
    // No other records: no data in, and no keys for names that are hidden from us.
    for kind in [RecordType::TXT, RecordType::HTTPS, RecordType::SVCB, RecordType::MX, RecordType::ANY] {
        assert_eq!(look_up(&world, "api.example.com.", kind).await, (none, vec![]), "{kind}");
    }
    for name in ["secret.example.net.", "example.org.", "1.0.0.10.in-addr.arpa.", "localhost.", "."] {
        assert_eq!(look_up(&world, name, RecordType::A).await, (no, vec![]), "{name}");
    }
    let decision = world.sandbox.recent().into_iter().find(|one| one.allowed).unwrap();
    assert_eq!((decision.kind, decision.host.as_deref()), (Kind::Lookup, Some("api.example.com")));
    assert_eq!(decision.rule.as_deref(), Some("allow api.example.com port 443"));
}

#[tokio::test]
async fn tcp_is_answered_too_and_long_answers_are_cut() {
    let world = World::new().await;
    world.policy(vec![allow("many.example.com", 443)]);
    let many: Vec<IpAddr> = (0..200u8).map(|n| IpAddr::from([127, 1, 1, n])).collect();
    world.table.set("many.example.com", &many);
    let mut asked = question("many.example.com.", RecordType::A);
    let small = exchange(&world, &asked).await;
    assert!(small.metadata.truncation && small.answers.is_empty());
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    assert!(exchange(&world, &asked).await.metadata.truncation);

    let mut stream = TcpStream::connect(world.dns_tcp).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask_by_tcp(&mut stream, &asked).await.answers.len(), many.len());
    }
    // Hostile bytes end at most their own connection.
    let mut hostile = TcpStream::connect(world.dns_tcp).await.unwrap();
    hostile.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(hostile.read(&mut [0; 8]).await.unwrap_or(0), 0);
    assert_eq!(look_up(&world, "many.example.org.", RecordType::A).await.0, ResponseCode::NXDomain);
}

#[tokio::test]
async fn connections_that_asked_keep_nobody_waiting() {
    const UNDECIDED: usize = 4;
    let timeouts = Timeouts { sniff: Duration::from_secs(1), ..Timeouts::default() };
    let limits = Limits { undecided: UNDECIDED, ..Limits::default() };
    let settings = Settings { timeouts, limits, ..Settings::default() };
    let mut world = World::with(settings, Arc::new(Discard)).await;
    let host = world.http("api.example.com", "127.1.0.1").await;
    world.policy(vec![allow("api.example.com", host.address.port())]);
    let asked = question("api.example.com.", RecordType::A);
    let mut open = Vec::new();
    for _ in 0..=UNDECIDED {
        let mut stream = TcpStream::connect(world.dns_tcp).await.unwrap();
        assert_eq!(ask_by_tcp(&mut stream, &asked).await.answers.len(), 1);
        open.push(stream);
    }
    let url = format!("api.example.com:{}", host.address.port());
    assert!(ask(world.connect(&url).await.unwrap(), &get(&url)).await.contains("200 OK"));
}

#[tokio::test]
async fn a_tunnel_through_names_dries_up() {
    let world = World::new().await;
    let data = "6d7920736563726574206b6579206973206865726520616e64206c6f6e67";
    world.sandbox.set_policy(rules(&NetworkPolicy::open()));
    let refused = ResponseCode::Refused;
    assert_eq!(look_up(&world, &format!("{data}.t.example.com."), RecordType::TXT).await.0, refused);
    let long = format!("{}.t.example.com.", ["abcdefghijabcdefghijabcdefghij"; 6].join("."));
    assert_eq!(look_up(&world, &long, RecordType::A).await.0, refused);
    // Short names, and many of them.
    let mut answered = 0;
    for n in 0..200 {
        let (code, _) = look_up(&world, &format!("n{n}.example.com."), RecordType::A).await;
        answered += usize::from(code != refused);
    }
    assert_eq!((answered, world.refused().as_str()), (120, "limit"));
    // Nor do they get out by another door, where the daemon would ask for them.
    let asked = world.table.asked();
    let host = world.direct(([127, 1, 0, 1], 80).into()).await;
    assert!(ask(host, &get(&format!("{data}.t.example.net"))).await.starts_with("HTTP/1.1 "));
    for name in [format!("{data}.t.example.net"), "n999.example.com".to_owned()] {
        let answer = world.connect(&format!("{name}:443")).await.unwrap_err();
        assert!(answer.contains("x-hostel-denied: limit"), "{answer}");
        let absolute = get(&name).replace("GET /", &format!("GET http://{name}/"));
        assert!(!ask(world.proxied().await, &absolute).await.contains("200 OK"));
    }
    assert_eq!(world.table.asked(), asked);
    // Where names are listed, those that are not never get out at all.
    world.policy(vec![allow("api.example.org", 443)]);
    assert_eq!(look_up(&world, "n.example.com.", RecordType::A).await.0, ResponseCode::NXDomain);
}

#[tokio::test]
async fn an_answer_leads_a_connection_without_a_name() {
    let mut world = World::new().await;
    let host = world.echo("git.example.com", "127.1.0.1", b"").await;
    let port = host.address.port();
    world.policy(vec![allow("git.example.com", port)]);
    let say = "SSH-2.0-client\r\n";
    assert_eq!(ask(world.direct(host.address).await, say).await, "");
    look_up(&world, "git.example.com.", RecordType::A).await;
    let mut stream = world.direct(host.address).await;
    stream.write_all(say.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(crate::world::read_all(&mut stream).await, say);
    assert_eq!(world.allowed().host.as_deref(), Some("git.example.com"));
    // What the answer was for is not what it is now.
    world.policy(vec![allow("git.example.com", 443)]);
    assert_eq!(ask(world.direct(host.address).await, say).await, "");
    let answer = ask(world.direct(host.address).await, &get("git.example.com")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn bytes_that_are_no_question_are_survived() {
    let world = World::new().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for bytes in [&b""[..], b"x", &[0; 12], &[0xff; 600], &[0x80; 40]] {
        socket.send_to(bytes, world.dns_udp).await.unwrap();
    }
    assert_eq!(look_up(&world, "a.example.com.", RecordType::A).await.0, ResponseCode::NXDomain);
}
