//! gRPC on the same port.

use crate::stage::{Stage, told};
use hostel_session::client::model::SessionDelivery;
use hostel_session::client::{Address, ReconnectPolicy, SessionClient, WhichEvents};
use hostel_sessiond::Tokens;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test]
async fn grpc_and_rest_show_the_same_sessions_to_who_has_a_token() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens");
    std::fs::write(&file, "a-token-of-some-length\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let stage = Stage::with(|config| config.tokens = Tokens::read(&file).unwrap()).await;
    let address: Address = stage.url("").parse().unwrap();

    let client = SessionClient::connect(&address, Some("a-token-of-some-length")).await.unwrap();
    let made = stage.client.post(stage.url("/api/sessions")).bearer_auth("a-token-of-some-length");
    let (_, session) = told(made.json(&json!({ "id": "shared" })).send().await.unwrap()).await;
    assert_eq!(session["id"], "shared");
    let seen = client.get("shared").await.unwrap();
    assert_eq!(seen.last_event, 1);
    assert!(client.get("nobody").await.unwrap_err().is_not_found());

    let stranger = SessionClient::connect(&address, None).await.unwrap();
    let refused = stranger.get("shared").await.unwrap_err();
    assert!(refused.refusal().is_some_and(|refusal| refusal.reason.contains("UNAUTH")), "{refused:?}");
    stage.server.stop().await;
}

/// An agent's line may have 64 MiB, and others are on the same page.
#[tokio::test]
async fn the_largest_lines_of_agents_can_be_listed_and_watched() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    stage.host.write_long(&id, 16 << 20);
    stage.host.write_long(&id, 64 << 20);
    let address: Address = stage.url("").parse().unwrap();
    let client = SessionClient::connect(&address, None).await.unwrap();
    let events = client.events(id.as_str(), 0, 10).await.unwrap();
    assert_eq!(events.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let mut watch = client.watch_events(id.as_str(), 2, ReconnectPolicy::default()).await.unwrap();
    match watch.next().await.unwrap() {
        Some(SessionDelivery::Event(event)) => assert!(event.data.get().len() > 64 << 20),
        other => panic!("{:.200}", format!("{other:?}")),
    }
    drop(watch);
    stage.server.stop().await;
}

#[tokio::test]
async fn events_of_some_types_are_listed_and_watched() {
    let stage = Stage::new().await;
    let id = stage.session().await;
    let (status, _) = told(
        stage
            .post(&format!("/api/sessions/{id}/message"), json!({ "prompt": "a", "streaming": false }))
            .await,
    )
    .await;
    assert_eq!(status, 200);
    let address: Address = stage.url("").parse().unwrap();
    let client = SessionClient::connect(&address, None).await.unwrap();
    let which = |types: &[&str]| WhichEvents {
        after: 0,
        types: types.iter().map(|word| (*word).to_owned()).collect(),
    };
    let turns = ["turn:started", "turn:completed"];
    let (mut after, mut seen) = (0, Vec::new());
    // Pages may be empty before the end.
    loop {
        let page = client.events(id.as_str(), WhichEvents { after, ..which(&turns) }, 2).await.unwrap();
        seen.extend(page.events.iter().map(|event| event.kind.clone()));
        if page.next == after {
            break;
        }
        after = page.next;
    }
    assert_eq!(seen, turns);
    assert_eq!(after, client.get(id.as_str()).await.unwrap().last_event);
    let watched = client.watch_events(id.as_str(), which(&turns[1..]), ReconnectPolicy::default()).await;
    match watched.unwrap().next().await.unwrap() {
        Some(SessionDelivery::Event(event)) => assert_eq!(event.kind, "turn:completed"),
        other => panic!("{other:?}"),
    }
    let refused = client.events(id.as_str(), which(&["turn:begun"]), 2).await.unwrap_err();
    assert!(refused.to_string().contains("turn:completed"), "{refused}");
    stage.server.stop().await;
}
