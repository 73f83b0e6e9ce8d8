use super::*;
use crate::record::{EventKind, SandboxRecord, WarmRecord};
use bytes::Bytes;
use hostel_sandbox::{
    BackendName, ResourceLimits, SandboxId, SandboxSpec, SandboxState, TemplateId, Transition,
};
use std::time::SystemTime;

fn record(id: &str) -> SandboxRecord {
    let now = SystemTime::now();
    SandboxRecord {
        id: SandboxId::parse(id).unwrap(),
        backend: BackendName::parse("jail").unwrap(),
        requested_limits: ResourceLimits::default(),
        spec: SandboxSpec { template: Some(TemplateId::parse("host").unwrap()), ..Default::default() },
        limits: ResourceLimits::defaults(),
        weaknesses: vec![],
        transition: Transition {
            state: SandboxState::Ready,
            reason: "created".into(),
            actor: "uid:0".into(),
            time: now,
        },
        detail: String::new(),
        created: now,
        ready: Some(now),
        updated: now,
        expires: Some(now),
        parent: None,
        snapshot: None,
        pool: None,
        backend_id: None,
    }
}

fn creation(id: &str) -> Change {
    let record = record(id);
    let event = Event::of(EventKind::Created, None, &record);
    Change::of(Arc::new(record), Bytes::from_static(b"\0handle"), event)
}

fn key(id: &str) -> RequestKey {
    RequestKey { principal: "uid:0".into(), method: "CreateSandbox", request_id: id.into() }
}

fn close(store: Store, thread: StoreThread) {
    drop(store);
    thread.join();
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    let mut change = creation("a");
    let stored = change.put[0].clone();
    change.request = Some((key("r"), StoredRequest { body: [7; 32], outcome: "a".into() }));
    store.commit_then(change, || ()).await.unwrap();
    let identity = store.identity().to_owned();
    close(store, thread);

    let (store, thread) = Store::open(directory.path()).unwrap();
    assert_eq!(store.sandboxes().await.unwrap(), [stored]);
    assert_eq!(store.request(&key("r")).await.unwrap().unwrap().body, [7; 32]);
    assert_eq!(store.request(&key("s")).await.unwrap(), None);
    let events = store.events_after(0, 10).await.unwrap();
    assert_eq!((events.len(), events[0].cursor, store.latest_cursor()), (1, 1, 1));
    assert_eq!(store.identity(), identity);
    store.commit_then(Change::removal(events[0].clone()), || ()).await.unwrap();
    assert_eq!(store.sandboxes().await.unwrap(), []);
    close(store, thread);
}

#[tokio::test]
async fn a_crash_between_commits_loses_only_what_was_not_committed() {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    store.commit_then(creation("a"), || ()).await.unwrap();
    // The files as they are at this moment are what kill -9 leaves.
    let crashed = tempfile::tempdir().unwrap();
    for name in ["hosteld.db", "hosteld.db-wal"] {
        std::fs::copy(directory.path().join(name), crashed.path().join(name)).unwrap();
    }
    // A transaction that was being written: a torn end of the log.
    let log = crashed.path().join("hosteld.db-wal");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend_from_slice(&[0xAB; 5000]);
    std::fs::write(&log, bytes).unwrap();
    close(store, thread);

    let (store, thread) = Store::open(crashed.path()).unwrap();
    assert_eq!(store.sandboxes().await.unwrap().len(), 1);
    store.commit_then(creation("b"), || ()).await.unwrap();
    assert_eq!(store.sandboxes().await.unwrap().len(), 2);
    close(store, thread);
}

#[tokio::test]
async fn events_come_after_what_they_tell_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    let mut live = store.subscribe();
    let seen = Arc::new(AtomicU64::new(0));
    let writes = (0..200).map(|index| {
        let (store, seen) = (store.clone(), Arc::clone(&seen));
        async move {
            let apply = move || {
                seen.fetch_add(1, Ordering::SeqCst);
            };
            store.commit_then(creation(&format!("s{index}")), apply).await
        }
    });
    let listen = async {
        for expected in 1..=200 {
            let event = live.recv().await.unwrap();
            assert_eq!(event.cursor, expected);
            assert!(seen.load(Ordering::SeqCst) >= expected);
        }
    };
    let (written, ()) = tokio::join!(futures::future::join_all(writes), listen);
    assert!(written.iter().all(Result::is_ok));
    close(store, thread);
}

#[tokio::test]
async fn old_events_go_and_cursors_before_them_expire() {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    let event = creation("a").events.remove(0);
    let many = usize::try_from(EVENTS_KEPT).unwrap() + 5;
    let change = Change { events: vec![event; many], ..Change::default() };
    store.commit_then(change, || ()).await.unwrap();
    store.read(Connection::trim_events).await.unwrap();
    assert!(matches!(store.events_after(4, 1).await, Err(Error::CursorExpired { .. })));
    assert_eq!(store.events_after(5, 1).await.unwrap()[0].cursor, 6);
    let latest = store.latest_cursor();
    assert_eq!(store.events_after(latest, 1).await.unwrap(), []);
    assert!(matches!(store.events_after(latest + 1, 1).await, Err(Error::CursorExpired { .. })));
    close(store, thread);
}

#[tokio::test]
async fn a_request_is_claimed_once_until_it_is_released() {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    let claim = |outcome: &str| StoredRequest { body: [1; 32], outcome: outcome.into() };
    assert_eq!(store.claim_request(&key("r"), claim("a")).await.unwrap(), None);
    assert_eq!(store.claim_request(&key("r"), claim("b")).await.unwrap(), Some(claim("a")));
    store.release_request(&key("r")).await.unwrap();
    assert_eq!(store.claim_request(&key("r"), claim("b")).await.unwrap(), None);
    close(store, thread);
}

#[tokio::test]
async fn a_change_that_fails_takes_no_other_of_its_batch_along() {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    let asked = |id: &str| Change {
        request: Some((key("r"), StoredRequest { body: [7; 32], outcome: id.into() })),
        ..creation(id)
    };
    store.commit_then(asked("a"), || ()).await.unwrap();
    // While the thread is busy the changes come together.
    let (go_on, wait) = std::sync::mpsc::sync_channel(1);
    let busy = store.read(move |_| {
        wait.recv().unwrap();
        Ok(())
    });
    let let_go = async { go_on.send(()).unwrap() };
    let (b, again, c) = (creation("b"), asked("again"), creation("c"));
    let (_, b, again, c, ()) = tokio::join!(
        busy,
        store.commit_then(b, || ()),
        store.commit_then(again, || panic!("it was not committed")),
        store.commit_then(c, || ()),
        let_go,
    );
    assert!(b.is_ok() && c.is_ok());
    assert!(matches!(again, Err(Error::RequestAnswered { .. })));
    let mut ids: Vec<_> =
        store.sandboxes().await.unwrap().iter().map(|stored| stored.record.id.to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["a", "b", "c"]);
    let events = store.events_after(0, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.cursor).collect::<Vec<_>>(), [1, 2, 3]);
    close(store, thread);
}

#[tokio::test]
async fn records_of_before_row_ids_are_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(directory.path().join("hosteld.db")).unwrap();
    for step in &schema::MIGRATIONS[..2] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", 2).unwrap();
    let kept = serde_json::to_string(&record("a")).unwrap();
    old.execute("INSERT INTO sandboxes VALUES ('a', ?1, ?2)", (&kept, b"handle")).unwrap();
    let warm = WarmRecord {
        id: SandboxId::parse("w").unwrap(),
        pool: PoolName::parse("p").unwrap(),
        backend: BackendName::parse("jail").unwrap(),
        generation: 3,
        spec: SandboxSpec::default(),
        limits: ResourceLimits::defaults(),
        weaknesses: vec![],
        made: SystemTime::now(),
    };
    let kept_warm = serde_json::to_string(&warm).unwrap();
    old.execute("INSERT INTO warm VALUES ('w', ?1, ?2)", (&kept_warm, b"warm")).unwrap();
    drop(old);

    let (store, thread) = Store::open(directory.path()).unwrap();
    let found = store.sandboxes().await.unwrap();
    assert_eq!(serde_json::to_string(&*found[0].record).unwrap(), kept);
    assert_eq!((found.len(), &found[0].handle[..]), (1, &b"handle"[..]));
    let (_, found) = store.pools().await.unwrap();
    assert_eq!((&found[0].record, &found[0].handle[..]), (&warm, &b"warm"[..]));
    // The same once more is the same row.
    store.commit_then(creation("a"), || ()).await.unwrap();
    assert_eq!(store.sandboxes().await.unwrap().len(), 1);
    let claimed = Change { remove_warm: vec![warm.id], ..Change::default() };
    store.commit_then(claimed, || ()).await.unwrap();
    assert!(store.pools().await.unwrap().1.is_empty());
    let pages = |connection: &Connection| {
        let sql =
            "SELECT count(*) FROM sqlite_master WHERE name IN ('sandboxes', 'warm') AND sql LIKE '%ROWID%'";
        connection
            .sqlite
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| Error::store("count", error))
    };
    assert_eq!(store.read(pages).await.unwrap(), 0);
    close(store, thread);
}

#[tokio::test]
async fn requests_that_count_no_more_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (store, thread) = Store::open(directory.path()).unwrap();
    let request = StoredRequest { body: [1; 32], outcome: "a".into() };
    for id in ["old", "new"] {
        store.claim_request(&key(id), request.clone()).await.unwrap();
    }
    let age = |connection: &Connection| {
        connection.run("UPDATE requests SET time = 0 WHERE request_id = 'old'")?;
        connection.trim_requests()
    };
    store.read(age).await.unwrap();
    assert!(!store.known_requests.may_hold(&key("old")));
    assert_eq!(store.request(&key("new")).await.unwrap(), Some(request));
    close(store, thread);
}

#[test]
fn records_of_a_newer_version_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = rusqlite::Connection::open(directory.path().join("hosteld.db")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let error = Store::open(directory.path()).err().unwrap().to_string();
    assert!(error.contains("newer"), "{error}");
}
