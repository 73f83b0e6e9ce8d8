//! A client as tests need it.

use bytes::Bytes;
use hostel_testkit::{ModelOptions, ModelServer};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

pub(crate) struct Client {
    http: Legacy<HttpConnector, Full<Bytes>>,
    url: String,
}

/// An answer that is complete.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        events(&self.body)
    }

    pub(crate) fn error(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["type"], "error");
        assert_eq!(json["request_id"].as_str(), self.headers["request-id"].to_str().ok());
        (self.status.as_u16(), json["error"]["type"].as_str().unwrap().to_owned())
    }

    pub(crate) fn text(&self) -> String {
        self.json()["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn server() -> ModelServer {
    ModelServer::start(ModelOptions::default()).await.unwrap()
}

impl Client {
    pub(crate) fn http1(server: &ModelServer) -> Self {
        Self { http: Legacy::builder(TokioExecutor::new()).build_http(), url: server.url() }
    }

    pub(crate) fn http2(server: &ModelServer) -> Self {
        let http = Legacy::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { http, url: server.url() }
    }

    pub(crate) async fn open(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        self.http.request(request).await
    }

    pub(crate) fn request(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let uri = format!("{}{path}", self.url);
        Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.open(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, "")).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(self.request(Method::POST, path, body)).await
    }

    /// A request for an answer to one prompt.
    pub(crate) fn asking(&self, prompt: &str, stream: bool) -> Request<Full<Bytes>> {
        self.request(Method::POST, "/v1/messages?beta=true", body(json!([user(prompt)]), stream))
    }

    pub(crate) async fn ask(&self, prompt: &str) -> Answer {
        self.send(self.asking(prompt, false)).await
    }

    pub(crate) async fn ask_stream(&self, prompt: &str) -> Answer {
        self.send(self.asking(prompt, true)).await
    }
}

pub(crate) fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

pub(crate) fn body(messages: Value, stream: bool) -> String {
    let model = "claude-test";
    json!({ "model": model, "max_tokens": 100, "messages": messages, "stream": stream }).to_string()
}

/// Server-sent events, each with its data.
pub(crate) fn events(body: &[u8]) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(body).unwrap();
    let frames = text.split_terminator("\n\n").map(|frame| {
        let (event, data) = frame.split_once('\n').unwrap();
        let name = event.strip_prefix("event: ").unwrap().to_owned();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], name.as_str());
        (name, data)
    });
    frames.collect()
}
