//! A daemon whose gateway asks the scripted model, a session server, and a client.

use hostel_testkit::{ModelOptions, ModelServer};
use hostel_tests::{Setup, TestDaemon, TestSessiond, gateway, skip};
use reqwest::{Client, RequestBuilder, Response};
use rustix::process::geteuid;
use serde_json::{Value, json};

/// The key that only the daemon has.
const KEY: &str = "sk-real-key-of-the-node";

pub(crate) struct Stage {
    pub(crate) server: TestSessiond,
    pub(crate) daemon: TestDaemon,
    pub(crate) client: Client,
    pub(crate) model: Option<ModelServer>,
    _place: tempfile::TempDir,
}

impl Stage {
    /// Everything; `None`, said loudly, where it cannot be had.
    pub(crate) async fn new(what: &str) -> Option<Self> {
        if !geteuid().is_root() {
            skip(&format!("{what}: only root may enter network namespaces"));
            return None;
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = ModelOptions { key: Some(KEY.to_owned().into()), ..ModelOptions::default() };
        let model = ModelServer::start(options).await.unwrap();
        let place = tempfile::tempdir().unwrap();
        let environment = vec![gateway(place.path(), &model.url(), KEY)];
        let daemon = match TestDaemon::with_claude(Setup { environment, ..Setup::default() }) {
            Ok(daemon) => daemon,
            Err(why) => {
                skip(&format!("{what}: {why}"));
                return None;
            }
        };
        let server = TestSessiond::start(&daemon, &[]);
        Some(Self { server, daemon, client: Client::new(), model: Some(model), _place: place })
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.server.url(path))
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Response {
        self.client.post(self.server.url(path)).json(&body).send().await.unwrap()
    }

    /// A session, as the path of it.
    pub(crate) async fn session(&self, pattern: &str) -> String {
        let body = json!({ "pattern": pattern, "config": { "permissionMode": "bypassPermissions" } });
        let made = self.post("/api/sessions", body).await;
        let (status, session) = told(made).await;
        assert_eq!(status, 201, "{session}");
        format!("/api/sessions/{}", session["id"].as_str().unwrap())
    }

    /// All events of a session, whose numbers are checked: none twice, none missing but deltas that are told so.
    pub(crate) async fn journal(&self, session: &str) -> Vec<Value> {
        let text =
            self.get(&format!("{session}/events?follow=false")).send().await.unwrap().text().await.unwrap();
        let mut next = 1;
        let mut events = Vec::new();
        for event in frames(&text) {
            if event["type"] == "gap" {
                assert_eq!(event["from"], next);
                next = event["to"].as_u64().unwrap() + 1;
                continue;
            }
            assert_eq!(event["seq"], next, "{event}");
            next += 1;
            events.push(event);
        }
        events
    }

    pub(crate) async fn finish(mut self) {
        assert!(self.server.stop().success(), "{}", self.server.log());
        if let Some(model) = self.model.take() {
            model.stop().await;
        }
        self.daemon.finish();
    }
}

/// Status and JSON of an answer.
pub(crate) async fn told(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

/// The data of the frames of an event stream.
pub(crate) fn frames(text: &str) -> Vec<Value> {
    let data =
        text.split("\n\n").filter_map(|frame| frame.lines().find_map(|line| line.strip_prefix("data: ")));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}
