//! The document that is served is the one that people read.

use crate::stage::{Stage, told};
use std::path::Path;

#[tokio::test]
async fn the_document_in_docs_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let mut text = serde_json::to_string_pretty(&hostel_sessiond::openapi()).unwrap();
    text.push('\n');
    if std::env::var_os("HOSTEL_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "docs/openapi.json is not what the code says: make openapi");

    let stage = Stage::new().await;
    let (_, served) = told(stage.get("/api/openapi.json").send().await.unwrap()).await;
    assert_eq!(served, serde_json::from_str::<serde_json::Value>(&text).unwrap());
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1"), "{}", served["openapi"]);
    let page = stage.get("/").send().await.unwrap();
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    stage.server.stop().await;
}
