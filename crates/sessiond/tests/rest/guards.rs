//! Who gets in.

use crate::stage::{Stage, told};
use hostel_sessiond::Tokens;
use reqwest::StatusCode;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[tokio::test]
async fn without_tokens_no_page_of_another_site_gets_in() {
    let stage = Stage::new().await;
    for (name, value) in [
        ("host", "rebound.example.com"),
        ("origin", "https://example.com"),
        ("sec-fetch-site", "cross-site"),
        ("x-forwarded-for", "192.0.2.1"),
    ] {
        let request = stage.client.post(stage.url("/api/sessions")).header(name, value).json(&json!({}));
        let (status, refused) = told(request.send().await.unwrap()).await;
        assert_eq!(status, 403, "{name}: {refused}");
        assert!(refused["detail"].as_str().unwrap().contains("--tokens-file"), "{refused}");
    }
    stage.server.stop().await;
}

#[tokio::test]
async fn with_tokens_only_who_has_one_gets_in() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens");
    std::fs::write(&file, "a-token-of-some-length\n").unwrap();
    let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    assert!(Tokens::read(&file).unwrap_err().to_string().contains("chmod"), "everybody can read them");
    mode(0o600);
    let tokens = Tokens::read(&file).unwrap();
    let stage = Stage::with(|config| config.tokens = tokens).await;
    for token in [
        None,
        Some("Bearer wrong-token-of-a-length"),
        Some("a-token-of-some-length"),
        Some("Basic a-token-of-some-length"),
    ] {
        let mut request = stage.get("/api/sessions");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let refused = request.send().await.unwrap();
        assert_eq!(
            (refused.status(), &refused.headers()["www-authenticate"]),
            (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap()),
            "{token:?}"
        );
    }
    let right = || stage.get("/api/sessions").bearer_auth("a-token-of-some-length");
    assert_eq!(right().send().await.unwrap().status(), 200);
    let from_elsewhere =
        right().header("host", "sessions.example.com").header("origin", "https://app.example.com");
    assert_eq!(from_elsewhere.send().await.unwrap().status(), 200, "who has a token may be anywhere");
    for open in ["/health", "/healthz"] {
        assert_eq!(stage.get(open).send().await.unwrap().status(), 200, "{open}");
    }
    stage.server.stop().await;
}

#[tokio::test]
async fn a_request_that_takes_long_does_not_keep_the_sessions_from_being_let_go() {
    let stage = Stage::with(|config| config.drain_timeout = Duration::from_millis(200)).await;
    let id = stage.session().await;
    stage.host.1.set_open(false);
    let body = json!({ "prompt": "x", "mode": "ack" });
    let path = format!("/api/sessions/{id}/message");
    let (sent, ()) = tokio::join!(stage.client.post(stage.url(&path)).json(&body).send(), async {
        stage.host.held().await;
        stage.server.stop().await;
    });
    assert!(sent.is_err(), "it was given up");
    assert!(stage.host.is_shut_down());
}
