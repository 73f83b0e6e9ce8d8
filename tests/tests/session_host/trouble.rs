//! What goes wrong on the way to an agent, and what is left of it.

use super::stage::{PATIENCE, Stage};
use hostel_session::client::domain::ProcessId;
use hostel_session::{
    Commit, EndReason, EnvironmentStatus, Error, HostConfig, LocalSessionHost, Pattern, SendMessage, Session,
    SessionHost, SessionId, SessionStatus, TranscriptPiece, agent::Content,
};
use hostel_testkit::Script;
use hostel_tests::TestDaemon;
use serde_json::{Value, json};
use std::time::Duration;

async fn create(host: &LocalSessionHost, config: Value) -> SessionId {
    let create = json!({ "pattern": "long-running", "config": config });
    host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id
}

async fn send(host: &LocalSessionHost, id: &SessionId, text: &str) {
    let content = vec![Content::Text { text: text.to_owned() }];
    host.send(id, SendMessage { content, idempotency_key: None }).await.unwrap();
}

/// Waits until a session is like that.
async fn until(
    host: &LocalSessionHost,
    id: &SessionId,
    what: &str,
    is: impl Fn(&Session) -> bool,
) -> Session {
    let become_so = async {
        loop {
            let session = host.get(id).await.unwrap();
            if is(&session) {
                return session;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, become_so).await.expect(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_used_again_is_there_for_its_users_again() {
    let (daemon, place) = (TestDaemon::start(), tempfile::tempdir().unwrap());
    let config = HostConfig {
        gateway: false,
        template: "host".to_owned(),
        restarts: (0, Duration::from_secs(60)),
        ..HostConfig::default()
    };
    let host = super::stage::open(&daemon, &place, config).await;
    let command = "[ -e /workspace/tried ] && exec cat; touch /workspace/tried; kill -9 $$";
    let id = create(&host, json!({ "agent": "exec", "executable": "sh", "executableArgs": ["-c", command] }))
        .await;
    send(&host, &id, "one").await;
    let failed = |session: &Session| session.environment.status == EnvironmentStatus::Error;
    until(&host, &id, "the environment fails", failed).await;
    assert!(matches!(host.environment(&id).await, Err(Error::NoEnvironment { .. })));
    send(&host, &id, "two").await;
    let done = |session: &Session| {
        session.environment.status == EnvironmentStatus::Ready && session.active_turn.is_none()
    };
    let session = until(&host, &id, "the second turn ends", done).await;
    assert_eq!(session.status, SessionStatus::Idle);
    let (client, sandbox) = host.environment(&id).await.unwrap();
    client.stat_file(&sandbox, "/workspace/tried", true).await.unwrap();
    host.terminate(&id, EndReason::UserRequested).await.unwrap();
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_need_not_wait_for_its_sandbox_to_end() {
    let (mut daemon, place) = (TestDaemon::start(), tempfile::tempdir().unwrap());
    let slow = "base = \"host\"\n[[start]]\ncommand = [\"sleep\", \"600\"]\ntimeout = \"600s\"\n";
    std::fs::create_dir_all(daemon.templates()).unwrap();
    std::fs::write(daemon.templates().join("slow.toml"), slow).unwrap();
    daemon.stop();
    daemon.restart();
    let config = HostConfig { gateway: false, template: "slow".to_owned(), ..HostConfig::default() };
    let host = super::stage::open(&daemon, &place, config).await;
    let id = create(&host, json!({ "agent": "exec", "executable": "cat" })).await;
    send(&host, &id, "one").await;
    hostel_tests::eventually("the sandbox is being made", || {
        !daemon.hostel(&["sandbox", "list", "-q"]).stdout.is_empty()
    });
    let ended = host.terminate(&id, EndReason::UserRequested);
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("an end").unwrap();
    assert_eq!(ended.status, SessionStatus::Terminated);
    assert_eq!(daemon.hostel(&["sandbox", "list", "-q"]).stdout, "", "nothing is left of it");
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_without_the_parts_that_cannot_be_written() {
    let Some(stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, json!({ "permissionMode": "bypassPermissions" })).await.id;
    let message = stage.send(&id, Script::new().text("one")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "one");
    stage.host.unload(&id).await.unwrap();
    let gone = async {
        while stage.host.is_loaded(&id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("nobody has it");
    // The sandbox says what its files are called; nothing can be made there.
    let store = stage.store().await;
    let taken = store.take(&id).await.unwrap();
    let path = "/proc/projects/p/subagents/x.jsonl".to_owned();
    let transcript = vec![TranscriptPiece { path, lines: "{}\n".to_owned() }];
    store.commit(Commit { transcript, ..Commit::new(id.clone(), taken.generation) }).await.unwrap();
    store.close().await;
    let message = stage.send(&id, Script::new().text("two")).await;
    let (outcome, _) = stage.turn(&id, &message).await;
    assert_eq!(outcome["text"], "two", "{outcome}");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_waited_for_another_session_does_not_stay() {
    let Some(mut stage) = Stage::start().await else { return };
    stage.keep_warm().await;
    // It has read what time it is where it is.
    let config = json!({ "permissionMode": "bypassPermissions", "env": { "TZ": "Asia/Tokyo" } });
    let id = stage.create(Pattern::LongRunning, config).await.id;
    let message = stage.send(&id, Script::new().text("one")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "one");
    assert_eq!(stage.host.get(&id).await.unwrap().environment.start.as_deref(), Some("warm"));
    let (client, sandbox) = stage.host.environment(&id).await.unwrap();
    let spare = ProcessId::parse("warm").unwrap();
    let ended = client.wait_process(&sandbox, &spare, Some(PATIENCE)).await.unwrap();
    assert!(!ended.running, "{ended:?}");
    stage.host.terminate(&id, EndReason::UserRequested).await.unwrap();
    stage.host.shutdown().await;
}
