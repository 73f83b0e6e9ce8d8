//! Watching changes: live, from a cursor, by label, across restarts, and too late.

use crate::daemon::{Node, Running, reason};
use hostel_proto::v1::watch_sandboxes_response::Item;
use hostel_proto::v1::{self, CreateSandboxRequest, SandboxEventKind};
use tonic::{Code, Streaming};

async fn watch(daemon: &Running, cursor: &str, selector: &str) -> Streaming<v1::WatchSandboxesResponse> {
    let request = v1::WatchSandboxesRequest {
        cursor: cursor.to_owned(),
        label_selector: selector.to_owned(),
        sandbox_ids: vec![],
    };
    daemon.sandboxes().watch_sandboxes(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<v1::WatchSandboxesResponse>) -> v1::SandboxEvent {
    loop {
        if let Some(Item::Event(event)) = stream.message().await.unwrap().unwrap().item {
            return event;
        }
    }
}

async fn bookmark(stream: &mut Streaming<v1::WatchSandboxesResponse>) -> String {
    match stream.message().await.unwrap().unwrap().item {
        Some(Item::Bookmark(cursor)) => cursor,
        other => panic!("{other:?}"),
    }
}

fn labelled(value: &str) -> CreateSandboxRequest {
    CreateSandboxRequest { labels: [("tier".to_owned(), value.to_owned())].into(), ..Default::default() }
}

#[tokio::test]
async fn changes_are_heard_in_order_and_again_from_a_cursor() {
    let node = Node::new();
    let daemon = node.start().await;
    let mut live = watch(&daemon, "", "tier=web").await;
    let begin = bookmark(&mut live).await;
    daemon.create(labelled("db")).await.unwrap();
    let id = daemon.create(labelled("web")).await.unwrap().id;
    daemon.delete(&id).await.unwrap();
    let mut heard = Vec::new();
    for (kind, state) in [
        (SandboxEventKind::Created, v1::SandboxState::Ready),
        (SandboxEventKind::StateChanged, v1::SandboxState::Stopping),
        (SandboxEventKind::Deleted, v1::SandboxState::Stopping),
    ] {
        let event = next(&mut live).await;
        assert_eq!((event.sandbox_id.as_str(), event.kind(), event.new_state()), (id.as_str(), kind, state));
        heard.push(event);
    }
    daemon.kill().await;
    let daemon = node.start().await;
    let mut again = watch(&daemon, &begin, "tier=web").await;
    for event in &heard {
        assert_eq!(next(&mut again).await, *event);
    }
    let mut rest = watch(&daemon, &heard[1].cursor, "").await;
    assert_eq!(next(&mut rest).await, heard[2]);
}

#[tokio::test]
async fn a_listing_says_where_to_watch_from() {
    let daemon = Node::new().start().await;
    daemon.create(labelled("a")).await.unwrap();
    let list =
        daemon.sandboxes().list_sandboxes(v1::ListSandboxesRequest::default()).await.unwrap().into_inner();
    let later = daemon.create(labelled("b")).await.unwrap().id;
    let mut stream = watch(&daemon, &list.cursor, "").await;
    assert_eq!(next(&mut stream).await.sandbox_id, later);
}

#[tokio::test]
async fn cursors_that_cannot_be_followed_are_refused() {
    let daemon = Node::new().start().await;
    for (cursor, code) in [
        ("nonsense", Code::InvalidArgument),
        ("00000000-1", Code::OutOfRange),
        ("x-y", Code::InvalidArgument),
    ] {
        let request = v1::WatchSandboxesRequest { cursor: cursor.to_owned(), ..Default::default() };
        let error = daemon.sandboxes().watch_sandboxes(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{cursor}");
        if code == Code::OutOfRange {
            assert_eq!(reason(&error), "CURSOR_EXPIRED");
        }
    }
}

#[tokio::test]
async fn a_slow_watcher_misses_nothing() {
    let daemon = Node::new().start().await;
    let mut slow = watch(&daemon, "", "").await;
    bookmark(&mut slow).await;
    let id = daemon.create(labelled("a")).await.unwrap().id;
    // More changes than the live channel and every buffer on the way hold.
    let change = |round: usize| v1::UpdateSandboxRequest {
        sandbox_id: id.clone(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] }),
        labels: [("round".to_owned(), format!("{round}-{}", "x".repeat(200)))].into(),
        ..Default::default()
    };
    for round in 0..6000 {
        daemon.sandboxes().update_sandbox(change(round)).await.unwrap();
    }
    let numbers: Vec<u64> = {
        let mut numbers = Vec::new();
        for _ in 0..6001 {
            let cursor = next(&mut slow).await.cursor;
            numbers.push(cursor.rsplit('-').next().unwrap().parse().unwrap());
        }
        numbers
    };
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
}
