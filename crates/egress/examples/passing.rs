//! Measures what passing through costs: throughput of one long stream and connections in a second, by CONNECT and
//! direct, in turns. `cargo run --release -p hostel-egress --example passing`
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measurement")]

use hostel_egress::audit::{AuditLog, AuditSettings};
use hostel_egress::authority::Authority;
use hostel_egress::secret::SecretSet;
use hostel_egress::{
    Discard, Doors, Egress, Limits, Names, Opener, OpenerSettings, Presets, Recorder, Ruleset, Settings,
    Table,
};
use hostel_sandbox::SandboxId;
use hostel_sandbox::network::{NetworkPolicy, NetworkRule};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const LONG: u64 = 2 << 30;
const SPAN: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 16;

#[tokio::main]
async fn main() {
    let mut hosts = JoinSet::new();
    let host = serve(&mut hosts).await;
    let directory = tempfile::tempdir().unwrap();
    let audit = AuditLog::open(AuditSettings::new(directory.path().join("audit.jsonl"))).unwrap();
    let recorders: [(&str, Arc<dyn Recorder>); 2] =
        [("", Arc::new(Discard)), (" with audit log", Arc::new(audit))];
    for (what, recorder) in recorders {
        let (proxy, _attachment) = sandbox(host, recorder, directory.path());
        for round in 1..=3 {
            let (direct, through) = (stream(host, None).await, stream(host, Some(proxy)).await);
            println!(
                "{round}{what}: stream {direct:.2} GiB/s direct, {through:.2} through ({:.0} %)",
                100.0 * through / direct
            );
            let (direct, through) = (connections(host, None).await, connections(host, Some(proxy)).await);
            println!(
                "{round}{what}: {:.0}/s direct (p50 {:?}, p99 {:?}), {:.0}/s through (p50 {:?}, p99 {:?})",
                direct.0, direct.1, direct.2, through.0, through.1, through.2
            );
        }
    }
}

fn sandbox(
    host: SocketAddr,
    recorder: Arc<dyn Recorder>,
    directory: &std::path::Path,
) -> (SocketAddr, hostel_egress::Attachment) {
    let table = Arc::new(Table::default());
    table.set("host.example.com", &[host.ip()]);
    let limits = Limits { connections_per_second: 1_000_000, ..Limits::default() };
    let settings = Settings {
        names: Names::Fixed(table),
        reachable: vec!["127.1.0.0/16".parse().unwrap()],
        limits,
        ..Settings::default()
    };
    let authority = Arc::new(Authority::load_or_create(&directory.join("ca")).unwrap());
    let opener = Opener::new(authority, rustls::RootCertStore::empty(), OpenerSettings::default()).unwrap();
    let egress = Egress::new(settings, recorder, Arc::new(opener)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = listener.local_addr().unwrap();
    let rule =
        NetworkRule { ports: vec![host.port()], ..NetworkRule::allow("host.example.com".parse().unwrap()) };
    let rules = Ruleset::new(&NetworkPolicy::allowlist(vec![rule]), &Presets::default()).unwrap();
    let doors = Doors { proxy: Some(listener), ..Doors::default() };
    let none = Arc::new(SecretSet::none());
    (proxy, egress.attach(SandboxId::generate(), rules, none, doors).unwrap())
}

/// Sends what the first byte asks for: one byte, or very much.
async fn serve(hosts: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.1.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    hosts.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            while clients.try_join_next().is_some() {}
            clients.spawn(async move {
                let bytes = vec![1; 256 * 1024];
                let mut left = match stream.read_u8().await {
                    Ok(2) => LONG,
                    _ => 1,
                };
                while left > 0 {
                    let part = usize::try_from(left).unwrap().min(bytes.len());
                    if stream.write_all(&bytes[..part]).await.is_err() {
                        return;
                    }
                    left -= part as u64;
                }
            });
        }
    });
    address
}

async fn connect(host: SocketAddr, proxy: Option<SocketAddr>) -> TcpStream {
    let Some(proxy) = proxy else { return TcpStream::connect(host).await.unwrap() };
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let request = format!("CONNECT host.example.com:{} HTTP/1.1\r\n\r\n", host.port());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 39];
    stream.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"\r\n\r\n"));
    stream
}

/// GiB a second.
async fn stream(host: SocketAddr, proxy: Option<SocketAddr>) -> f64 {
    let mut stream = connect(host, proxy).await;
    let start = Instant::now();
    stream.write_u8(2).await.unwrap();
    let (mut all, mut buffer) = (0, vec![0; 256 * 1024]);
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            count => all += count as u64,
        }
    }
    assert_eq!(all, LONG);
    all as f64 / f64::from(1 << 30) / start.elapsed().as_secs_f64()
}

/// Connections in a second, each with a byte there and back; p50 and p99 of one.
async fn connections(host: SocketAddr, proxy: Option<SocketAddr>) -> (f64, Duration, Duration) {
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        clients.spawn(async move {
            let (end, mut times) = (Instant::now() + SPAN, Vec::new());
            while Instant::now() < end {
                let start = Instant::now();
                let mut stream = connect(host, proxy).await;
                stream.write_u8(1).await.unwrap();
                stream.read_u8().await.unwrap();
                // As short programs do; else the ports of this host would soon all be waiting.
                stream.set_zero_linger().unwrap();
                times.push(start.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    times.sort();
    let rate = times.len() as f64 / SPAN.as_secs_f64();
    (rate, times[times.len() / 2], times[times.len() * 99 / 100])
}
