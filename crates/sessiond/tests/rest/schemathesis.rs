//! A client that reads the OpenAPI document and asks everything that it allows, and much that it does not.

use crate::stage::Stage;
use std::path::Path;
use tokio::process::Command;

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
    let output = Command::new(program.lines().last().unwrap())
        .args(["run", &stage.url("/api/openapi.json"), "--seed", "1", "--max-examples", "25"])
        .args(["--phases", "examples,coverage,fuzzing,stateful", "--workers", "1", "--request-timeout", "20"])
        // Streams that follow do not end, and a document cannot say which ids there are.
        .args(["--exclude-path", "/api/sessions/{id}/events", "--exclude-path", "/api/sessions/{id}/ws"])
        .args(["--exclude-checks", "positive_data_acceptance"])
        .current_dir(place.path())
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    stage.server.stop().await;
}
