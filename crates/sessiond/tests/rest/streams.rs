//! The journal as clients read it.

use crate::host::MemoryHost;
use crate::stage::{Stage, frames, parse, told};
use futures::StreamExt as _;
use hostel_session::{ClientHub, Delivery, Disconnect, EventKind, EventTypes, SessionHost as _};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_reader_goes_on_where_it_was_and_hears_what_comes() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let (events, message) = (format!("/api/sessions/{id}/events"), format!("/api/sessions/{id}/message"));
    let send = || stage.post(&message, json!({ "prompt": "x", "mode": "ack" }));
    let _ = send().await;
    let kept = frames(stage.get(&format!("{events}?follow=false")).send().await.unwrap()).await;
    assert_eq!(kept[0].1.as_deref(), Some("session:created"));
    let ids: Vec<u64> = kept.iter().map(|frame| frame.0.as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!(ids, (1..=9).collect::<Vec<_>>());
    assert!(kept.iter().all(|(id, kind, data)| {
        data["seq"].as_u64() == id.as_ref().unwrap().parse().ok() && data["type"] == json!(kind)
    }));

    let live = stage.get(&format!("{events}?types=turn:started,turn:completed")).header("last-event-id", "3");
    let live = live.send().await.unwrap();
    assert_eq!(
        (&live.headers()["content-type"], &live.headers()["cache-control"]),
        (&"text/event-stream".parse().unwrap(), &"no-cache".parse().unwrap())
    );
    let mut body = live.bytes_stream();
    let _ = send().await;
    let mut text = String::new();
    while parse(&text).len() < 3 {
        text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
    }
    let seen: Vec<_> = parse(&text).into_iter().map(|(id, kind, _)| (id.unwrap(), kind.unwrap())).collect();
    let expected = [("9", "turn:completed"), ("11", "turn:started"), ("17", "turn:completed")];
    assert_eq!(seen, expected.map(|(id, kind)| (id.to_owned(), kind.to_owned())));
    // The stream ends properly: the last chunk is the empty one.
    stage.server.stop().await;
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn pages_follow_each_other() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let _ = stage.post(&format!("/api/sessions/{id}/message"), json!({ "prompt": "x", "mode": "ack" })).await;
    let page = |after: u64| {
        stage
            .get(&format!("/api/sessions/{id}/events?limit=5&after={after}"))
            .header("accept", "application/json")
    };
    let (_, first) = told(page(0).send().await.unwrap()).await;
    assert_eq!((first["events"].as_array().unwrap().len(), &first["next"]), (5, &json!(5)));
    let (_, second) = told(page(5).send().await.unwrap()).await;
    assert_eq!((second["events"][0]["seq"].as_u64(), &second["next"]), (Some(6), &json!(9)));
    let (_, end) = told(page(9).send().await.unwrap()).await;
    assert_eq!(end, json!({ "events": [], "next": 9 }));
    stage.server.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let live = stage.get(&format!("/api/sessions/{id}/events")).send().await.unwrap();
    let _ = stage.client.delete(stage.url(&format!("/api/sessions/{id}"))).send().await.unwrap();
    assert!(frames(live).await.len() <= 1);
    stage.server.stop().await;
}

#[tokio::test]
async fn a_session_has_only_so_many_clients() {
    let stage = Stage::new().await;
    let id = stage.host.create(Default::default()).await.unwrap().session.id;
    let mut clients = Vec::new();
    for _ in 0..2000 {
        clients.push(stage.host.subscribe(&id, 0).await.unwrap());
    }
    let connect = || stage.get(&format!("/api/sessions/{id}/events")).send();
    let refused = connect().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    let (status, body) = told(refused).await;
    assert_eq!(status, 429, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("2000 clients"), "{body}");
    clients.pop();
    assert_eq!(connect().await.unwrap().status(), 200);
    stage.server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn events_that_cannot_be_read_are_asked_for_again() {
    let host = Arc::new(MemoryHost::default());
    let stop = CancellationToken::new();
    let hub = ClientHub::new(Arc::clone(&host) as _, stop.clone());
    let id = host.create(Default::default()).await.unwrap().session.id;
    let mut client = hub.connect(&id, 0, EventTypes::default()).await.unwrap();
    assert_eq!(hub.client_count(&id), 1);
    host.1.fail(4);
    // Who gives up waiting in between loses nothing.
    assert!(tokio::time::timeout(Duration::from_millis(1500), client.next()).await.is_err());
    let told = client.next().await.unwrap();
    assert!(matches!(told, Delivery::Event(event) if event.kind == EventKind::SessionCreated));
    host.1.fail(5);
    assert!(matches!(client.next().await, Err(Disconnect::Failed(_))));
    let mut client = hub.connect(&id, 1, EventTypes::default()).await.unwrap();
    stop.cancel();
    assert!(matches!(client.next().await, Err(Disconnect::Stopping)));
    host.delete(&id).await.unwrap();
    let hub = ClientHub::new(Arc::clone(&host) as _, CancellationToken::new());
    assert!(hub.connect(&id, 0, EventTypes::default()).await.is_err());
}
