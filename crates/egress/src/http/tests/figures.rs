//! What the opener costs beside a direct connection. Prints; asserts nothing.
//!
//! `cargo test -p hostel-egress --release -- --ignored --nocapture figures`

use super::host::{Feed, TestAuthority, handler, serve};
use super::world::{HOST, Options, World, empty, get, secret};
use crate::authority::Authority;
use bytes::Bytes;
use hostel_sandbox::secret::SecretForm;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const REQUESTS: usize = 3000;
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 8192;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn figures() {
    let big = Bytes::from(
        (0..CHUNK).map(|index| b"the quick brown fox jumps over "[index % 31]).collect::<Vec<u8>>(),
    );
    let handler = handler(move |request| {
        let big = big.clone();
        async move {
            if request.uri().path() != "/big" {
                return Response::new(Feed::text("small"));
            }
            let (sender, receiver) = mpsc::channel(16);
            let mut feed = JoinSet::new();
            feed.spawn(async move {
                for _ in 0..CHUNKS {
                    let _ = sender.send(Frame::data(big.clone())).await;
                }
            });
            feed.detach_all();
            Response::new(Feed(receiver))
        }
    });
    let mut tasks = JoinSet::new();
    let theirs = TestAuthority::new();
    let host = serve(&mut tasks, Some(theirs.acceptor(&[HOST], &["http/1.1"])), handler).await;
    let direct = direct(&mut tasks, host, &theirs).await;
    let form = || SecretForm::Header { name: "x-key".to_owned(), template: "{}".to_owned() };
    let mut open = World::with_host(Options::default(), host, theirs.roots(), JoinSet::new()).await;
    let options = Options { secrets: secret(&[HOST], form()), ..Options::default() };
    let mut with_secret = World::with_host(options, host, theirs.roots(), JoinSet::new()).await;
    let mut ways = [
        ("direct TLS", direct),
        ("opened TLS", open.old().await),
        ("opened, secret", with_secret.old().await),
    ];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); ways.len()];
    for _ in 0..REQUESTS {
        for ((_, client), times) in ways.iter_mut().zip(&mut times) {
            client.ready().await.unwrap();
            let begin = Instant::now();
            let response = client.send_request(get("/").body(empty()).unwrap()).await.unwrap();
            response.into_body().collect().await.unwrap();
            times.push(begin.elapsed());
        }
    }
    for ((name, client), times) in ways.iter_mut().zip(&mut times) {
        times.sort();
        let (middle, high) = (times[REQUESTS / 2], times[REQUESTS * 99 / 100]);
        client.ready().await.unwrap();
        let begin = Instant::now();
        let mut body = client.send_request(get("/big").body(empty()).unwrap()).await.unwrap().into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().into_data().unwrap().len();
        }
        let rate = bytes as f64 / begin.elapsed().as_secs_f64() / 1e6;
        println!("{name:15} p50 {middle:?} p99 {high:?}, {rate:.0} MB/s");
    }
    let state = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(state.path()).unwrap();
    let begin = Instant::now();
    for index in 0..1000 {
        authority.server_config(&format!("h{index}.example.com")).unwrap();
    }
    println!("a certificate    {:?}", begin.elapsed() / 1000);
}

async fn direct(
    tasks: &mut JoinSet<()>,
    host: SocketAddr,
    theirs: &TestAuthority,
) -> SendRequest<Full<Bytes>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(theirs.roots())
        .with_no_client_auth();
    let stream = TcpStream::connect(host).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream =
        TlsConnector::from(Arc::new(config)).connect(HOST.try_into().unwrap(), stream).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    sender
}
