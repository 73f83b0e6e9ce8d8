//! A client that reads the OpenAPI document asks real sessions, with agents in sandboxes, what it allows and what it does
//! not.

use super::stage::{Stage, told};
use hostel_tests::skip;
use serde_json::json;
use std::path::Path;
use tokio::process::Command;

/// The exit code of the script where there is no Schemathesis.
const NOT_THERE: i32 = 75;
/// Examples of each operation: a message that is taken starts an agent.
const EXAMPLES: &str = "4";

#[tokio::test(flavor = "multi_thread")]
async fn the_server_does_what_its_document_says_with_real_sessions() {
    let Some(stage) = Stage::new("Schemathesis on real sessions").await else { return };
    // One that has an agent, and then any.
    let session = stage.session("long-running").await;
    let begin = json!({ "prompt": "Begin.", "streaming": false });
    let (status, done) = told(stage.post(&format!("{session}/message"), begin).await).await;
    assert_eq!(status, 200, "{done}");
    let id = session.rsplit('/').next().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/schemathesis.sh");
    for session in [Some(id), None] {
        let mut asks = Command::new(&script);
        let output = asks.args([&stage.server.url(""), EXAMPLES]).args(session).output().await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.code() == Some(NOT_THERE) {
            skip(&format!("Schemathesis on real sessions: {err}"));
            return stage.finish().await;
        }
        assert!(output.status.success(), "{out}{err}\n{}", stage.server.log());
    }
    let turns = stage.journal(&session).await;
    let turns = turns.iter().filter(|event| event["type"] == "turn:completed").count();
    assert!(turns > 1, "some of its messages were taken");
    let (status, ended) = told(stage.post(&format!("{session}/terminate"), json!({})).await).await;
    assert_eq!((status, &ended["session"]["status"]), (200, &json!("terminated")), "{ended}");
    stage.finish().await;
}
