//! What is away when something is to be started, and for how long that is waited for.

use crate::exec;
use crate::fake::{Behaviour, FakeDaemon};
use crate::session::collect;
use hostel_client::{Client, Error, ReconnectPolicy};
use std::time::Duration;

#[tokio::test]
async fn a_daemon_that_is_well_and_cannot_is_believed() {
    let daemon = FakeDaemon::start(Behaviour { away: Some("guest"), ..Default::default() });
    let client = Client::connect(daemon.address()).await.unwrap();
    let error = client.exec(exec()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(daemon.seen().refused, 1);
}

#[tokio::test]
async fn a_daemon_that_stops_is_waited_for() {
    let daemon = FakeDaemon::start(Behaviour {
        away: Some("daemon"),
        stdout: 1000,
        closes_stdin: true,
        ..Default::default()
    });
    let client = Client::connect(daemon.address()).await.unwrap();
    let session = client.exec(exec()).await.unwrap();
    assert_eq!(collect(session.output).await.unwrap().0.len(), 1000);
    assert_eq!(daemon.seen().refused, 3);
}

#[tokio::test]
async fn what_was_never_attached_to_does_not_go_on() {
    let daemon = FakeDaemon::start(Behaviour { away: Some("daemon"), ..Default::default() });
    let client = Client::connect(daemon.address()).await.unwrap();
    daemon.stop();
    let mut exec = exec();
    exec.reconnect = ReconnectPolicy { total: Duration::from_millis(100), ..Default::default() };
    let error = client.exec(exec).await.unwrap_err();
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
}
