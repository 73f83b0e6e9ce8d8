//! A client that reads the OpenAPI document and asks everything that it allows, and much that it does not. The sessions
//! are in memory here, so that it may ask for much; `tests/sessions` has it ask real ones.

use crate::stage::Stage;
use std::path::Path;
use tokio::process::Command;

/// The exit code of the script where there is no Schemathesis.
const NOT_THERE: i32 = 75;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_does_what_its_document_says() {
    let stage = Stage::new().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/schemathesis.sh");
    let output = Command::new(script).arg(stage.url("")).output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(NOT_THERE) {
        eprintln!("SKIPPED: no Schemathesis: {err}");
        return;
    }
    assert!(output.status.success(), "{out}{err}");
    stage.server.stop().await;
}
