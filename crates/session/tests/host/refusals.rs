//! What no session is made for.

use super::{create, host};
use hostel_session::{CreateSession, Error, Pattern, SessionHost as _};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_that_is_not_there_yet_is_not_called_wrong() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    let hybrid = CreateSession { pattern: Some(Pattern::Hybrid), ..create() };
    let refused = host.create(hybrid).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { field: "pattern", .. }), "{refused}");
    assert!(refused.to_string().contains("hybrid is not supported yet"), "{refused}");
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_configuration_is_named_as_it_was_given() {
    let place = tempfile::tempdir().unwrap();
    let host = host(&place).await;
    for (config, wrong) in [
        (json!({ "continueSession": true }), "config.continueSession"),
        (json!({ "model": "-m" }), "config.model"),
        (json!({ "allowedTools": [""] }), "config.allowedTools"),
        (json!({ "hooks": { "BeforeToolUse": [] } }), "config.hooks"),
        (json!({ "plugins": [{ "type": "local", "path": "" }] }), "config.plugins"),
        (json!({ "agent": "exec" }), "config.executable"),
        (json!({ "agent": "exec", "executable": "cat", "mcpServers": { "a": {} } }), "config.mcpServers"),
        (json!({ "agent": "exec", "executable": "cat", "hooks": {} }), "config.hooks"),
    ] {
        let given = CreateSession { config: serde_json::from_value(config).unwrap(), ..create() };
        let refused = host.create(given).await.unwrap_err();
        assert!(matches!(&refused, Error::Invalid { field, .. } if field == wrong), "{wrong}: {refused:?}");
    }
    host.shutdown().await;
}
