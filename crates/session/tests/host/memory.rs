//! Sessions that are in memory, and those that are not.

use super::{PATIENCE, create, host, host_with, until};
use hostel_session::{
    CreateSession, Delivery, EndReason, Error, EventKind, HostConfig, ListSessions, LocalSessionHost,
    SessionHost as _, SessionId, SessionStatus,
};

/// Waits until nobody has a session in memory.
async fn let_go(host: &LocalSessionHost, id: &SessionId) {
    until("nobody has it", || !host.is_loaded(id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_at_a_session_does_not_load_it() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    let id = host.create(create()).await.unwrap().session.id;
    host.unload(&id).await.unwrap();
    let_go(&host, &id).await;
    assert!(host.queue(&id).await.unwrap().is_empty() && host.questions(&id).await.unwrap().is_empty());
    assert_eq!(host.get(&id).await.unwrap().id, id);
    assert!(!host.is_loaded(&id), "looked at, not loaded");
    host.load(&id).await.unwrap();
    assert!(host.is_loaded(&id));
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_in_memory_reaches_its_limits_too() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    let id =
        host.create(CreateSession { max_idle_time_ms: Some(2000), ..create() }).await.unwrap().session.id;
    host.unload(&id).await.unwrap();
    let_go(&host, &id).await;
    let mut told = host.subscribe(&id, 0).await.unwrap();
    let ended = async {
        while !matches!(told.next().await.unwrap().unwrap(), Delivery::Event(event) if event.kind == EventKind::SessionEnded)
        {
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    let session = host.get(&id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Terminated, Some(EndReason::IdleTimeout)));
    let_go(&host, &id).await;
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_for_which_there_is_no_room_is_not_made() {
    let place = tempfile::tempdir().unwrap();
    let host = host_with(&place, HostConfig { max_loaded: 1, ..HostConfig::default() }).await;
    let id = host.create(create()).await.unwrap().session.id;
    let refused = host.create(create()).await;
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert_eq!(host.list(&ListSessions::default()).await.unwrap().total, 1);
    host.unload(&id).await.unwrap();
    let_go(&host, &id).await;
    host.create(create()).await.unwrap();
    host.shutdown().await;
}
