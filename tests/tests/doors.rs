//! Doors into sandboxes: what a program inside connects to comes out at our sockets, whatever made the sandbox.
#![allow(clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use hostel_egress::namespace::{Doors, Namespaces, PROXY_PORT, original_destination};
use hostel_sandbox::file::WriteOptions;
use hostel_sandbox::process::{AttachOptions, Output, ProcessSpec};
use hostel_sandbox::{Backend, ExecutionEnvironment, NetworkPolicy, SandboxId, SandboxSpec};
use hostel_tests::skip;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);
const PROBE: &str = "/tmp/hostel-probe";

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root may enter network namespaces");
    }
    root
}

/// Runs the probe. → what it printed, and its exit code.
async fn probe(
    sandbox: &dyn ExecutionEnvironment,
    user: Option<&str>,
    words: &[&str],
) -> (String, Option<i32>) {
    let argv = std::iter::once(&PROBE).chain(words).map(ToString::to_string).collect();
    let spec = ProcessSpec { argv, user: user.map(str::to_owned), ..ProcessSpec::default() };
    let options = AttachOptions { stdin: false, ..AttachOptions::everything() };
    let mut attached = sandbox.inside().unwrap().exec(spec, options).await.unwrap();
    let mut said = String::new();
    loop {
        match tokio::time::timeout(PATIENCE, attached.output.recv()).await.unwrap().unwrap().unwrap() {
            Output::Data { data, .. } => said.push_str(&String::from_utf8_lossy(&data)),
            Output::Exited(status) => return (said, status.code),
            _ => {}
        }
    }
}

fn door(door: Option<std::net::TcpListener>) -> TcpListener {
    TcpListener::from_std(door.unwrap()).unwrap()
}

/// Answers one connection. → where it was for, if it was redirected.
async fn answer(door: &TcpListener) -> Option<SocketAddr> {
    let (mut stream, _) = tokio::time::timeout(PATIENCE, door.accept()).await.unwrap().unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");
    stream.write_all(b"from outside").await.unwrap();
    original_destination(&stream).ok()
}

async fn everything_comes_out(sandbox: &dyn ExecutionEnvironment, doors: Doors) {
    let (transparent, proxy, names) = (door(doors.transparent), door(doors.proxy), door(doors.dns_tcp));
    let own_proxy = format!("127.0.0.1:{PROXY_PORT}");
    for user in [None, Some("0")] {
        for (to, door) in [
            ("93.184.216.34:443", &transparent),
            ("169.254.169.254:80", &transparent),
            ("[2001:db8::1]:80", &transparent),
            (own_proxy.as_str(), &proxy),
            ("8.8.8.8:53", &names),
        ] {
            let words = ["connect", to, "hello"];
            let ((said, code), original) = tokio::join!(probe(sandbox, user, &words), answer(door));
            assert_eq!((said.as_str(), code), ("from outside", Some(0)), "{to}");
            let expected = to.parse().ok().filter(|_| to != own_proxy);
            assert_eq!(original, expected);
        }
        let tricks = [
            "abuse",
            "configure-interface",
            "add-route",
            "transparent-socket",
            "socket-odd-netlink",
            "socket-raw-ipv4",
        ];
        let (said, code) = probe(sandbox, user, &tricks).await;
        assert_eq!(code, Some(0), "{said}");
    }
}

async fn doors_of(backend: Arc<dyn Backend>) {
    let spec = SandboxSpec { network: NetworkPolicy::open(), ..SandboxSpec::default() };
    let made = backend.create(&SandboxId::generate(), &spec).await.unwrap();
    let sandbox = made.environment.as_ref();
    let (content, stream) = mpsc::channel(1);
    content.try_send(Ok(Bytes::from_static(hostel_guest_binary::PROBE))).unwrap();
    drop(content);
    let options = WriteOptions { mode: Some(0o755), ..WriteOptions::default() };
    sandbox.inside().unwrap().write(PROBE, options, stream).await.unwrap();
    // Twice, as after a restart of the daemon.
    for _ in 0..2 {
        let namespaces = Namespaces::start().unwrap();
        let begin = Instant::now();
        let namespace = sandbox.network_namespace().await.unwrap();
        let found = begin.elapsed();
        let doors = namespaces.open(namespace).await.unwrap();
        println!("{}: found in {found:?}, opened in {:?}", backend.name(), begin.elapsed() - found);
        everything_comes_out(sandbox, doors).await;
        namespaces.shutdown();
    }
    sandbox.destroy().await.unwrap();
    backend.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_jails() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (state, run) = (home.path().join("state"), home.path().join("run"));
    let config = hostel_jail::Config::new(state, run, hostel_guest_binary::GUEST);
    doors_of(Arc::new(hostel_jail::Jail::open(config).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_containers() {
    let Ok(host) = std::env::var("DOCKER_HOST") else {
        return skip("DOCKER_HOST names no engine");
    };
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (state, run) = (home.path().join("state"), home.path().join("run"));
    let mut config = hostel_docker::Config::new(state, run, hostel_guest_binary::GUEST);
    config.host = host;
    if let Ok(image) = std::env::var("HOSTEL_DOCKER_IMAGE") {
        config.default_image = image;
    }
    doors_of(Arc::new(hostel_docker::Docker::open(config).await.unwrap())).await;
}
