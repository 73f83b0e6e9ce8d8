//! What Prometheus is told.

use crate::daemon::Node;
use hostel_proto::v1::{CreatePoolRequest, CreateSandboxRequest, PoolSpec};
use hosteld::Config;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the daemon serves at a time.
const CONNECTIONS: usize = 16;

pub(crate) async fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[tokio::test]
async fn a_scrape_tells_of_sandboxes_pools_and_room() {
    let node = Node::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let daemon = node.start_with(Config { metrics_listen: Some(free), ..node.config() }).await;
    let spec = PoolSpec { template: "host".into(), max_size: 5, pinned_size: Some(0), ..Default::default() };
    let pool = CreatePoolRequest { name: "p".into(), spec: Some(spec), ..Default::default() };
    daemon.pools().create_pool(pool).await.unwrap();
    daemon.create(CreateSandboxRequest::default()).await.unwrap();
    daemon.create(CreateSandboxRequest { pool: "q".into(), ..Default::default() }).await.unwrap_err();
    let text = scrape(free).await;
    for line in [
        "hostel_sandboxes{backend=\"fake\",state=\"ready\"} 1",
        "hostel_sandbox_create_seconds_count{backend=\"fake\",start=\"cold\"} 1",
        "hostel_sandbox_stage_seconds_count{backend=\"fake\",stage=\"clone\"} 1",
        "hostel_sandbox_create_failures_total{reason=\"NOT_FOUND\"} 1",
        "hostel_pool_claims_total{pool=\"p\",outcome=\"miss\"} 1",
        "hostel_pool_target{pool=\"p\"} 0",
        "hostel_pool_sandboxes{pool=\"p\",state=\"ready\"} 0",
        "hostel_node_taken{resource=\"sandboxes\"} 1",
        "hostel_admission_queue{kind=\"cold\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    // Who connects and says nothing keeps nobody out for longer than one may take.
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(free).await.unwrap());
    }
    assert!(scrape(free).await.contains("hostel_pool_target"));
    for mut stream in silent {
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0, "it is ended");
    }
    daemon.stop().await.unwrap();
}
