//! A server, and a client of it.

use crate::host::MemoryHost;
use hostel_session::SessionId;
use hostel_sessiond::{Config, Running, Server};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// A server that is stopped with its test, and a client of it.
pub(crate) struct Stage {
    pub(crate) host: Arc<MemoryHost>,
    pub(crate) server: Running,
    pub(crate) client: Client,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = Config::in_directory(Path::new("/nonexistent"));
        config.listen.set_port(0);
        change(&mut config);
        let host = Arc::new(MemoryHost::default());
        let server = Server::with_host(config, Arc::clone(&host) as _).await.unwrap().spawn().await.unwrap();
        Self { host, server, client: Client::new() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Response {
        self.client.post(self.url(path)).json(&body).send().await.unwrap()
    }

    /// A session of its own.
    pub(crate) async fn session(&self) -> SessionId {
        let made = self.post("/api/sessions", json!({ "pattern": "long-running" })).await;
        assert_eq!(made.status(), 201);
        let session: Value = made.json().await.unwrap();
        session["id"].as_str().unwrap().parse().unwrap()
    }
}

/// Status and JSON of an answer.
pub(crate) async fn told(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let json: Value = response.json().await.unwrap();
    if status >= 400 {
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{json}");
        assert!(json["detail"].is_string() && json["error"] == json["title"], "{json}");
        assert!(json["type"].as_str().unwrap().ends_with(json["reason"].as_str().unwrap()), "{json}");
    }
    (status, json)
}

/// The frames of an event stream that ends: their fields.
pub(crate) async fn frames(response: Response) -> Vec<(Option<String>, Option<String>, Value)> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    parse(&response.text().await.unwrap())
}

/// Frames as id, event and data.
pub(crate) fn parse(text: &str) -> Vec<(Option<String>, Option<String>, Value)> {
    let frames = text.split("\n\n").filter(|frame| !frame.is_empty() && !frame.starts_with(':'));
    frames
        .map(|frame| {
            let field = |name: &str| {
                frame.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(ToOwned::to_owned)
            };
            let data = field("data").map(|data| serde_json::from_str(&data).unwrap()).unwrap_or_default();
            (field("id"), field("event"), data)
        })
        .collect()
}
