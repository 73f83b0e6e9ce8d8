//! What agents keep beside their transcripts.

use super::stage::{PATIENCE, Stage};
use hostel_session::client::Client;
use hostel_session::client::domain::SandboxId;
use hostel_session::{
    Blob, BlobStore, EnvironmentStatus, Event, EventKind, HostConfig, Pattern, SessionHost as _, SessionId,
};
use hostel_testkit::Script;
use hostel_tests::{LOOK, TestDaemon};
use serde_json::json;
use std::time::Duration;

/// Waits until so many tool results of a session are kept.
async fn kept(blobs: &BlobStore, id: &SessionId, count: usize) -> Vec<Blob> {
    let place = format!("sessions/{id}/tool-results");
    let kept = async {
        loop {
            let kept = blobs.list(&place).await.unwrap();
            if kept.len() == count {
                return kept;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.expect("tool results are kept")
}

async fn content(client: &Client, sandbox: &SandboxId, path: &str) -> Vec<u8> {
    let mut reader = client.read_file(sandbox, path, 0, None).await.unwrap();
    let mut content = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        content.extend_from_slice(&piece);
    }
    content
}

/// The file that a conversation refers to.
async fn referred_to(stage: &Stage, id: &SessionId) -> String {
    let transcripts = stage.host.transcripts(id).await.unwrap();
    let all: String = transcripts.into_iter().map(|(_, content)| content).collect();
    let at = all.find("/tool-results/").expect("the transcript refers to a file");
    let begin = all[..at].rfind(|byte: char| byte.is_whitespace() || "\"':".contains(byte)).unwrap() + 1;
    let end = at + all[at..].find(".txt").unwrap() + ".txt".len();
    all[begin..end].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tool_results_are_there_again_in_the_next_sandbox_and_go_with_the_session() {
    let Some(stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, json!({ "permissionMode": "bypassPermissions" })).await.id;
    let command = json!({ "command": "seq 1 40000", "description": "count" });
    let message = stage.send(&id, Script::new().tool("Bash", command).text("counted")).await;
    let (outcome, _) = stage.turn(&id, &message).await;
    assert_eq!(outcome["text"], "counted", "{outcome}");
    let blobs = stage.blobs();
    let blob = kept(&blobs, &id, 1).await.remove(0);
    assert!(blob.bytes > 100_000, "{blob:?}");
    let path = referred_to(&stage, &id).await;
    let (client, sandbox) = stage.host.environment(&id).await.unwrap();
    let whole = content(&client, &sandbox, &path).await;
    assert!(blobs.read(&blob.key, 1 << 20).await.unwrap() == whole, "the blob is another");

    // The sandbox goes behind the session's back.
    let _ = stage.daemon.hostel(&["sandbox", "rm", sandbox.as_str()]).success();
    let message = stage.send(&id, Script::new().text("seen")).await;
    let (outcome, _) = stage.turn(&id, &message).await;
    assert_eq!(outcome["text"], "seen", "{outcome}");
    let (client, next) = stage.host.environment(&id).await.unwrap();
    assert_ne!(next, sandbox);
    assert!(content(&client, &next, &path).await == whole, "what was put back is another");

    // What was put back is not written again, and what comes now is.
    let directory = path.rsplit_once('/').unwrap().0;
    let hostile = format!(
        "cd {directory} && ln -s /etc/passwd link.txt && echo x > .hidden && echo x > 'a b' && mkdir d && echo two > two.txt"
    );
    let command = json!({ "command": hostile, "description": "make files" });
    let message = stage.send(&id, Script::new().tool("Bash", command).text("made")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "made");
    let now = kept(&blobs, &id, 2).await;
    assert!(now.contains(&blob), "{now:?}");
    assert!(now.iter().any(|blob| blob.key.ends_with("/two.txt") && blob.bytes == 4), "{now:?}");

    stage.host.delete(&id).await.unwrap();
    assert!(blobs.list("").await.unwrap().is_empty());
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_turn_kept_is_mirrored_before_the_sandbox_is_given_up() {
    let Some(stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, json!({ "permissionMode": "bypassPermissions" })).await.id;
    let command = json!({ "command": "seq 1 40000", "description": "count" });
    let message = stage.send(&id, Script::new().tool("Bash", command).text("counted")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "counted");
    stage.host.unload(&id).await.unwrap();
    let place = format!("sessions/{id}/tool-results");
    assert_eq!(stage.blobs().list(&place).await.unwrap().len(), 1);
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_or_put_back_is_told_and_stops_nothing() {
    let Some(stage) = Stage::start().await else { return };
    let id = stage.create(Pattern::LongRunning, json!({ "permissionMode": "bypassPermissions" })).await.id;
    let told = |what: &'static str| {
        move |event: &Event| event.kind == EventKind::Log && event.data.get().contains(what)
    };
    let directory = stage.blob_directory();
    let away = |is_away: bool| {
        if is_away {
            std::fs::rename(&directory, directory.with_extension("away")).unwrap();
            std::fs::write(&directory, "in the way").unwrap();
        } else {
            std::fs::remove_file(&directory).unwrap();
            std::fs::rename(directory.with_extension("away"), &directory).unwrap();
        }
    };
    away(true);
    let command = json!({ "command": "seq 1 40000", "description": "count" });
    let message = stage.send(&id, Script::new().tool("Bash", command).text("counted")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "counted");
    stage.events_until(&id, 0, told("are not kept")).await;
    let message = stage.send(&id, Script::new().text("still")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "still");
    away(false);
    let message = stage.send(&id, Script::new().text("again")).await;
    assert_eq!(stage.turn(&id, &message).await.0["text"], "again");
    kept(&stage.blobs(), &id, 1).await;

    stage.host.unload(&id).await.unwrap();
    away(true);
    let message = stage.send(&id, Script::new().text("without")).await;
    let (outcome, events) = stage.turn(&id, &message).await;
    assert_eq!(outcome["text"], "without", "{outcome}");
    let count = |what| events.iter().filter(|event| told(what)(event)).count();
    assert_eq!((count("are not kept"), count("could not be brought back")), (1, 1));
    stage.host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_work_without_the_blob_store_and_it_is_said() {
    let (daemon, place) = (TestDaemon::start(), tempfile::tempdir().unwrap());
    let config = HostConfig { gateway: false, template: "host".to_owned(), ..HostConfig::default() };
    let host = super::stage::open(&daemon, &place, config).await;
    let health = host.health().await;
    assert_eq!((health.healthy, health.problems), (true, vec![]));
    let directory = place.path().join("blobs");
    std::fs::remove_dir(&directory).unwrap();
    std::fs::write(&directory, "in the way").unwrap();
    let said = async {
        loop {
            let health = host.health().await;
            if let [problem] = health.problems.as_slice() {
                assert!(health.healthy && problem.contains("the blob store"), "{problem}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, said).await.expect("it is said");
    let config = json!({ "agent": "exec", "executable": "cat" });
    let create = json!({ "pattern": "long-running", "config": config });
    let id = host.create(serde_json::from_value(create).unwrap()).await.unwrap().session.id;
    let content = vec![hostel_session::agent::Content::Text { text: "hello".to_owned() }];
    host.send(&id, hostel_session::SendMessage { content, idempotency_key: None }).await.unwrap();
    let ready = async {
        while host.get(&id).await.unwrap().environment.status != EnvironmentStatus::Ready {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("a sandbox");
    host.shutdown().await;
}
