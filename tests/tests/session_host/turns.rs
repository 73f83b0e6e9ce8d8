//! Turns, from the message to the end.

use super::stage::Stage;
use hostel_session::{EndReason, EventKind, Pattern, SessionHost as _, SessionStatus};
use hostel_testkit::Script;
use serde_json::json;

fn work() -> Script {
    Script::new()
        .tool("Bash", json!({ "command": "echo by-the-agent > made; cat made", "description": "write" }))
        .text("all done")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_session_does_its_task_and_completes() {
    let Some(stage) = Stage::start().await else { return };
    let session = stage.create(Pattern::Ephemeral, json!({ "permissionMode": "bypassPermissions" })).await;
    assert_eq!(session.status, SessionStatus::Initializing);
    let message = stage.send(&session.id, work()).await;
    let (outcome, events) = stage.turn(&session.id, &message).await;
    assert_eq!((&outcome["result"], &outcome["text"]), (&"success".into(), &"all done".into()), "{outcome}");
    assert!(outcome["cost"].as_f64().unwrap() > 0.0, "{outcome}");
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    let ended = stage
        .events_until(&session.id, events.last().unwrap().seq, |event| event.kind == EventKind::SessionEnded)
        .await;
    assert!(!ended.is_empty());
    let session = stage.host.get(&session.id).await.unwrap();
    assert_eq!((session.status, session.reason), (SessionStatus::Completed, Some(EndReason::Completed)));
    assert_eq!(session.tools_used, ["Bash"]);
    assert!(session.total_cost.micros() > 0 && session.num_turns == 2, "{session:?}");
    let (client, sandbox) = stage.host.environment(&session.id).await.unwrap();
    let mut made = client.read_file(&sandbox, "/workspace/made", 0, None).await.unwrap();
    assert_eq!(made.next().await.unwrap().unwrap(), "by-the-agent\n");
    stage.host.terminate(&session.id, EndReason::UserRequested).await.unwrap();
    assert_eq!(stage.daemon.hostel(&["sandbox", "list", "-q"]).stdout, "");
    stage.host.shutdown().await;
}
