//! Databases that go away and come back.

use crate::place::open;
use crate::postgres::Server;
use crate::records::{commit, events, id, numbers, session};
use hostel_session::Error;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_restarted() {
    let Some(mut server) = Server::own() else { return };
    let store = open(&server.new_database().await).await;
    store.create(&session("one"), &[], None).await.unwrap();
    let taken = store.take(&id("one")).await.unwrap();
    store.commit(commit(&taken, events(1..=5))).await.unwrap();
    server.stop();
    let refused = store.commit(commit(&taken, events(6..=6))).await;
    assert!(matches!(refused, Err(Error::Store { .. })), "{refused:?}");
    assert!(matches!(store.get(&id("one")).await, Err(Error::Store { .. })));
    assert!(matches!(store.check().await, Err(Error::Store { .. })));
    server.start();
    store.check().await.unwrap();
    store.commit(commit(&taken, events(6..=7))).await.unwrap();
    assert_eq!(numbers(&store.events(&id("one"), 0, 10).await.unwrap()), [1, 2, 3, 4, 5, 6, 7]);
    store.close().await;
}
