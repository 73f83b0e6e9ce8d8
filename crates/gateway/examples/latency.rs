//! What the gateway adds to the first byte: the same requests directly and through it, taking turns.
//!
//! `cargo run --release -p hostel-gateway --example latency [REQUESTS [MILLISECONDS]]`. The upstream answers at once,
//! or after so many milliseconds, over loopback: the difference is the gateway's own. Pauses between requests are those of an agent, which does something with
//! each answer; without them (`back to back`), each request waits for the flush of the one before.
#![allow(clippy::unwrap_used, reason = "a measurement that fails may end")]

use bytes::Bytes;
use hostel_gateway::{Access, ApiFetches, Config, Door, Gateway, Limits, Prices, Upstream, Url};
use hostel_sandbox::{ModelBudget, SandboxId};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

const WARM_UP: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// Like the first request of an agent.
const BODY_BYTES: usize = 48 << 10;
const STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-haiku-4-5\",\
    \"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\
    \"usage\":{\"output_tokens\":9}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

async fn model(listener: TcpListener, delay: Duration) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                request.into_body().collect().await.unwrap();
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                let mut response = Response::new(Full::new(Bytes::from_static(STREAM.as_bytes())));
                response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
                Ok::<_, Infallible>(response)
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Sender = SendRequest<Full<Bytes>>;

async fn tcp(address: SocketAddr, tasks: &mut JoinSet<()>) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async { drop(connection.await) });
    sender
}

/// Microseconds until the first piece of the body.
async fn ask(sender: &mut Sender, body: &Bytes) -> u64 {
    sender.ready().await.unwrap();
    let request = Request::post("/v1/messages?beta=true")
        .header("host", "model.example.com")
        .header("x-api-key", "dummy")
        .body(Full::new(body.clone()))
        .unwrap();
    let begun = Instant::now();
    let mut response = sender.send_request(request).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    let took = begun.elapsed();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    u64::try_from(took.as_micros()).unwrap()
}

fn show(name: &str, mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{name:<28} p50 {:>6} µs   p90 {:>6} µs   p99 {:>6} µs", at(50), at(90), at(99));
    at(50)
}

#[tokio::main]
async fn main() {
    let requests = std::env::args().nth(1).map_or(500, |count| count.parse().unwrap());
    let delay = std::env::args().nth(2).map_or(0, |millis| millis.parse().unwrap());
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tasks.spawn(model(listener, Duration::from_millis(delay)));
    let directory = tempfile::tempdir().unwrap();
    let url = Url::parse(&format!("http://{upstream}")).unwrap();
    let config = Config {
        upstreams: vec![Upstream::new("loopback", url, SecretString::from("key"))],
        prices: Prices::shipped().unwrap(),
        api_fetches: ApiFetches::default(),
        record_directory: directory.path().to_owned(),
        limits: Limits::default(),
    };
    let gateway = Gateway::open(config).await.unwrap();
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    let path = directory.path().join("model.sock");
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let access = Access {
        token: SecretString::from("dummy"),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        budget: ModelBudget { cost_micros: Some(u64::MAX >> 1), ..ModelBudget::default() },
    };
    let id = SandboxId::parse("sb-bench").unwrap();
    let _attachment = gateway.attach(id, access, vec![Door::Tcp(door), Door::Unix(unix)]).unwrap();
    let mut direct = tcp(upstream, &mut tasks).await;
    let mut through = tcp(address, &mut tasks).await;
    let socket = UnixStream::connect(&path).await.unwrap();
    let (mut inside, connection) = handshake(TokioIo::new(socket)).await.unwrap();
    tasks.spawn(async { drop(connection.await) });

    measure(requests, [&mut direct, &mut through, &mut inside]).await;
}

/// Direct, over TCP and over the Unix socket in turns; first with pauses, then without.
async fn measure(requests: usize, mut senders: [&mut Sender; 3]) {
    let body = Bytes::from(vec![b' '; BODY_BYTES]);
    for (name, pause) in [("with pauses", Some(PAUSE)), ("back to back", None)] {
        let mut times = [const { Vec::new() }; 3];
        for index in 0..requests + WARM_UP {
            for (times, sender) in times.iter_mut().zip(&mut senders) {
                let time = ask(sender, &body).await;
                // The first ones make connections.
                if index >= WARM_UP {
                    times.push(time);
                }
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
            }
        }
        println!("{name}");
        let [direct, tcp, unix] = times;
        let direct = show("  direct, TCP", direct);
        let tcp = show("  through the gateway, TCP", tcp);
        let unix = show("  through the gateway, Unix", unix);
        let (tcp, unix) = (tcp.saturating_sub(direct), unix.saturating_sub(direct));
        println!("  added at the median: TCP {tcp} µs, Unix {unix} µs");
    }
}
