//! Databases that go away and come back.

use crate::place::{Place, open};
use crate::postgres::Server;
use crate::records::{commit, events, id, numbers, session};
use hostel_session::{Error, NewSession, Store};
use sqlx::Connection as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_restarted() {
    let Some(mut server) = Server::own() else { return };
    let store = open(&server.new_database().await).await;
    store.create(NewSession::of(session("one"))).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_locked_by_somebody() {
    let place = Place::sqlite();
    let store = place.open().await;
    store.create(NewSession::of(session("one"))).await.unwrap();
    let taken = store.take(&id("one")).await.unwrap();
    let mut somebody = sqlx::SqliteConnection::connect(&place.url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut somebody).await.unwrap();
    let refused = store.commit(commit(&taken, events(1..=1))).await;
    assert!(matches!(refused, Err(Error::Store { .. })), "{refused:?}");
    // Reading goes on.
    assert_eq!(store.get(&id("one")).await.unwrap().last_event, 0);
    somebody.close().await.unwrap();
    store.commit(commit(&taken, events(1..=1))).await.unwrap();
    assert_eq!(numbers(&store.events(&id("one"), 0, 10).await.unwrap()), [1]);
    store.close().await;
}

/// Writers that see errors look at what is there and go on, as the server does; nothing is then missing or twice.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_restarted_while_many_write() {
    const SESSIONS: usize = 8;
    const LAST: u64 = 600;
    let Some(mut server) = Server::own() else { return };
    let store = open(&server.new_database().await).await;
    let kept = Arc::new(AtomicU64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..SESSIONS {
        let name = format!("s{index}");
        store.create(NewSession::of(session(&name))).await.unwrap();
        writers.spawn(write(Arc::clone(&store), name, LAST, Arc::clone(&kept)));
    }
    for _ in 0..2 {
        let before = kept.load(Ordering::Relaxed);
        crate::place::eventually(|| kept.load(Ordering::Relaxed) > before + 50).await;
        server = tokio::task::spawn_blocking(move || {
            server.stop();
            server.start();
            server
        })
        .await
        .unwrap();
    }
    let mut outages = 0;
    while let Some(joined) = writers.join_next().await {
        outages += joined.unwrap();
    }
    assert!(outages > 0, "nobody noticed");
    for index in 0..SESSIONS {
        let read = store.events(&id(&format!("s{index}")), 0, 10_000).await.unwrap();
        assert_eq!(numbers(&read), (1..=LAST).collect::<Vec<_>>());
    }
    store.close().await;
}

/// Writes events until the last, whatever happens. How often it went wrong.
async fn write(store: Arc<dyn Store>, name: String, until: u64, kept: Arc<AtomicU64>) -> u32 {
    let mut failures = 0;
    loop {
        let Ok(taken) = store.take(&id(&name)).await else { continue };
        let mut last = taken.session.last_event;
        while last < until {
            if store.commit(commit(&taken, events(last + 1..=last + 2))).await.is_err() {
                failures += 1;
                break;
            }
            last += 2;
            kept.fetch_add(1, Ordering::Relaxed);
        }
        if last == until {
            return failures;
        }
    }
}
