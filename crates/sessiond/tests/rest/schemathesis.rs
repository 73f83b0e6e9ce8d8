//! A client that reads the OpenAPI document and asks everything that it allows, and much that it does not.

use crate::stage::Stage;
use std::path::Path;
use tokio::process::Command;

/// An event stream that follows does not end, and who asks for no WebSocket is told so first.
const CONFIGURATION: &str = r#"
[[operations]]
include-path = "/api/sessions/{id}/events"
parameters = { "query.follow" = "false" }

[[operations]]
include-path = "/api/sessions/{id}/ws"
checks.negative_data_rejection.expected-statuses = [400, 401, 404, 406, 426]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_does_what_its_document_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let made = Command::new(root.join("scripts/schemathesis.sh")).output().await.unwrap();
    if !made.status.success() {
        eprintln!("SKIPPED: no Schemathesis: {}", String::from_utf8_lossy(&made.stderr));
        return;
    }
    let program = String::from_utf8(made.stdout).unwrap();
    let stage = Stage::new().await;
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("schemathesis.toml"), CONFIGURATION).unwrap();
    let output = Command::new(program.lines().last().unwrap())
        .args(["run", &stage.url("/api/openapi.json"), "--seed", "1", "--max-examples", "25"])
        .args(["--phases", "examples,coverage,fuzzing,stateful", "--workers", "1", "--request-timeout", "20"])
        // A document cannot say which ids there are.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .current_dir(place.path())
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    stage.server.stop().await;
}
