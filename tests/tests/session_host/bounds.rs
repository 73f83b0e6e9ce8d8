//! What a host keeps of its sandboxes, and what it leaves behind on a daemon.

use hostel_session::client::{Address, Client};
use hostel_session::{
    Delivery, EndReason, EventKind, HostConfig, SendMessage, SessionHost as _, SessionStatus, agent::Content,
};
use hostel_tests::TestDaemon;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_has_too_much_written_is_killed() {
    let (daemon, place) = (TestDaemon::start(), tempfile::tempdir().unwrap());
    let config = HostConfig {
        gateway: false,
        template: "host".to_owned(),
        max_session_bytes: Some(256 << 10),
        ..HostConfig::default()
    };
    let host = super::stage::open(&daemon, &place, config).await;
    let config =
        json!({ "agent": "exec", "executable": "sh", "executableArgs": ["-c", "read -r line; yes"] });
    let create = json!({ "pattern": "long-running", "config": config });
    let id = host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
    let content = vec![Content::Text { text: "begin".to_owned() }];
    host.send(&id, SendMessage { content, idempotency_key: None }).await.unwrap();
    let mut told = host.subscribe(&id, 0).await.unwrap();
    let (mut bytes, mut outcome) = (0, Value::Null);
    let read = async {
        while let Some(delivery) = told.next().await.unwrap() {
            let Delivery::Event(event) = delivery else { continue };
            bytes += event.data.get().len();
            let data: Value = serde_json::from_str(event.data.get()).unwrap();
            match event.kind {
                EventKind::TurnCompleted => outcome = data["outcome"].clone(),
                EventKind::SessionEnded => return data["reason"].clone(),
                _ => {}
            }
        }
        Value::Null
    };
    let reason = tokio::time::timeout(super::stage::PATIENCE, read).await.expect("an end");
    assert_eq!((&reason, &outcome["result"]), (&json!("storage_exceeded"), &json!("storage_exceeded")));
    assert!(bytes < 4 << 20, "{bytes} bytes were kept");
    let session = host.get(&id).await.unwrap();
    assert_eq!(
        (session.status, session.reason),
        (SessionStatus::Terminated, Some(EndReason::StorageExceeded))
    );
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_of_warm_agents_is_made_and_taken_away() {
    let (daemon, place) = (TestDaemon::start(), tempfile::tempdir().unwrap());
    let address: Address =
        format!("unix://{}", daemon.runtime().join("hosteld.sock").display()).parse().unwrap();
    let client = Client::connect(&address).await.unwrap();
    for (warm_agents, there) in [(1, true), (0, false)] {
        let config = HostConfig { warm_agents, template: "host".to_owned(), ..HostConfig::default() };
        let host = super::stage::open(&daemon, &place, config).await;
        let looked = async {
            loop {
                let pool = client.get_pool("hostel-agents").await.ok();
                if pool.is_some() == there {
                    return pool;
                }
                tokio::time::sleep(hostel_tests::LOOK).await;
            }
        };
        let looked = tokio::time::timeout(super::stage::PATIENCE, looked).await;
        let pool = looked.expect("a pool, and then none");
        assert!(pool.is_none_or(|pool| pool.spec.named_only), "whoever makes another sandbox gets no agent");
        host.shutdown().await;
    }
}
