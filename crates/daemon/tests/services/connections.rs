//! How many clients may be connected.

use crate::daemon::Node;
use hostel_proto::v1::CreateSandboxRequest;
use hosteld::Config;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

/// Whether the daemon closes a connection on which nothing is said.
async fn is_closed(connection: &mut UnixStream) -> bool {
    let mut bytes = [0; 1024];
    let closed = async { while connection.read(&mut bytes).await.is_ok_and(|length| length > 0) {} };
    tokio::time::timeout(Duration::from_millis(500), closed).await.is_ok()
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_disturbs_nobody() {
    let node = Node::new();
    let config = Config { max_connections: 3, max_connections_per_user: 2, ..node.config() };
    // Its own client is the first of this user.
    let daemon = node.start_with(config).await;
    daemon.create(CreateSandboxRequest::default()).await.unwrap();
    let mut second = UnixStream::connect(node.socket()).await.unwrap();
    assert!(!is_closed(&mut second).await);
    let mut third = UnixStream::connect(node.socket()).await.unwrap();
    assert!(is_closed(&mut third).await);
    daemon.create(CreateSandboxRequest::default()).await.unwrap();

    drop(second);
    let mut seated = false;
    for _ in 0..100 {
        let mut again = UnixStream::connect(node.socket()).await.unwrap();
        seated = !is_closed(&mut again).await;
        if seated {
            break;
        }
    }
    assert!(seated, "a place that is left is free again");
}
