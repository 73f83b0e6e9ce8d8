//! The host of sessions in this process, without a daemon: what needs no sandbox.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod blobs;
mod memory;
mod refusals;

use blobs::{blobs, url};
use futures::future::join_all;
use hostel_session::{
    CreateSession, EndReason, Error, HostConfig, LocalSessionHost, Pattern, SessionHost as _, SessionId,
    SessionStatus, open_store,
};
use std::sync::Arc;
use std::time::Duration;

/// What anything here may take at most, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn host(place: &tempfile::TempDir) -> Arc<LocalSessionHost> {
    host_with(place, HostConfig::default()).await
}

async fn host_with(place: &tempfile::TempDir, config: HostConfig) -> Arc<LocalSessionHost> {
    let nowhere = format!("unix://{}", place.path().join("none.sock").display());
    let config = HostConfig { daemon: nowhere.parse().unwrap(), ..config };
    LocalSessionHost::open(open_store(&url(place)).await.unwrap(), blobs(place), config).await.unwrap()
}

fn create() -> CreateSession {
    CreateSession { pattern: Some(Pattern::LongRunning), ..CreateSession::default() }
}

async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let waits = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect(what);
}

/// Reads events, again and again, until the session is not there any more.
async fn read(host: &LocalSessionHost, id: &SessionId) {
    loop {
        match host.subscribe(id, 0).await {
            Ok(mut events) => while let Ok(Some(_)) = events.next().await {},
            Err(Error::NotFound { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_session_that_is_deleted_comes_to_an_end() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    for _ in 0..20 {
        let id = host.create(create()).await.unwrap().session.id;
        let readers = join_all((0..4).map(|_| read(&host, &id)));
        let deleted = async {
            // They listen by then.
            while host.subscribers(&id) < 4 {
                tokio::task::yield_now().await;
            }
            host.delete(&id).await.unwrap();
        };
        tokio::time::timeout(PATIENCE, async { tokio::join!(readers, deleted) }).await.expect("an end");
        assert!(!host.is_loaded(&id));
    }
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_done_though_nobody_waits_for_it() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    let id: SessionId = "left-alone".parse().unwrap();
    let begin = CreateSession { id: Some(id.clone()), ..create() };
    let mut making = Box::pin(host.create(begin));
    assert!(futures::poll!(&mut making).is_pending());
    drop(making);
    until("somebody looks after it", || host.is_loaded(&id)).await;

    let mut deleting = Box::pin(host.delete(&id));
    assert!(futures::poll!(&mut deleting).is_pending());
    drop(deleting);
    let deleted = async {
        while !matches!(host.get(&id).await, Err(Error::NotFound { .. })) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, deleted).await.expect("it is deleted");
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_says_that_a_session_is_completed_but_itself() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    let id = host.create(create()).await.unwrap().session.id;
    let refused = host.terminate(&id, EndReason::Completed).await;
    assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "reason"));
    let ended = host.terminate(&id, EndReason::EmergencyStop).await.unwrap();
    assert_eq!((ended.status, ended.reason), (SessionStatus::Terminated, Some(EndReason::EmergencyStop)));
    host.shutdown().await;
}
