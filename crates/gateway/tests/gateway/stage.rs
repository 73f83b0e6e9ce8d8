//! A gateway with one sandbox's door, and a client at it.

use bytes::Bytes;
use hostel_gateway::{
    Access, ApiFetches, Attachment, Config, Door, Gateway, Limits, Prices, Timeouts, Upstream, Url,
};
use hostel_sandbox::label::Labels;
use hostel_sandbox::{ModelBudget, SandboxId};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::SecretString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub(crate) const TOKEN: &str = "sk-ant-dummy-of-this-sandbox";
pub(crate) const KEY: &str = "sk-ant-real";
/// Far above what anything here takes; only so that a broken test ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a test waits for.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened for a minute")
}

pub(crate) fn upstream(name: &str, url: &str) -> Upstream {
    Upstream::new(name, Url::parse(url).unwrap(), SecretString::from(KEY))
}

pub(crate) fn config(directory: &Path, upstreams: Vec<Upstream>) -> Config {
    Config {
        upstreams,
        prices: Prices::shipped().unwrap(),
        api_fetches: ApiFetches::default(),
        record_directory: directory.to_owned(),
        limits: Limits::default(),
    }
}

pub(crate) fn access(budget: ModelBudget) -> Access {
    let labels = Labels::from([("team".to_owned(), "a".to_owned())]);
    Access { token: SecretString::from(TOKEN), labels, budget }
}

/// A sandbox at a gateway.
pub(crate) struct Inside {
    pub attachment: Attachment,
    pub address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Inside {
    pub(crate) fn attach(gateway: &Gateway, id: &str, access: Access) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let id = SandboxId::parse(id).unwrap();
        let attachment = gateway.attach(id, access, vec![Door::Tcp(listener)]).unwrap();
        Self { attachment, address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Asks a model, and gives the response with its body still to come.
    pub(crate) async fn ask(&self) -> Response<Incoming> {
        let body = r#"{"model":"claude-haiku-4-5","messages":[]}"#;
        self.send(self.request("POST", "/v1/messages?beta=true", body)).await
    }

    /// Asks a model, and gives status, headers and text.
    pub(crate) async fn ask_whole(&self) -> (u16, http::HeaderMap, String) {
        whole(self.ask().await).await
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("x-api-key", TOKEN)
            .header("content-type", "application/json")
            .header("x-claude-code-session-id", "session-1")
            .body(Full::from(body.to_owned()))
            .unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        soon(self.client.request(request)).await.unwrap()
    }
}

pub(crate) async fn whole(response: Response<Incoming>) -> (u16, http::HeaderMap, String) {
    let (head, body) = response.into_parts();
    let text = soon(body.collect()).await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8(text.to_vec()).unwrap())
}

/// The next piece of a body; `None` at its end, or an error where it broke off.
pub(crate) async fn piece(response: &mut Response<Incoming>) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        match soon(response.body_mut().frame()).await? {
            Ok(frame) => match frame.into_data() {
                Ok(data) => return Some(Ok(data)),
                Err(_) => continue,
            },
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Reads until so many bytes are there.
pub(crate) async fn pieces(response: &mut Response<Incoming>, length: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < length {
        read.extend_from_slice(&piece(response).await.unwrap().unwrap());
    }
    read
}

/// A gateway with one upstream and one sandbox.
pub(crate) struct Stage {
    pub gateway: Gateway,
    pub inside: Inside,
    pub directory: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new(url: &str, budget: ModelBudget) -> Self {
        Self::of(vec![upstream("first", url)], budget).await
    }

    pub(crate) async fn of(upstreams: Vec<Upstream>, budget: ModelBudget) -> Self {
        Self::with(upstreams, budget, |_| {}).await
    }

    /// One with other limits.
    pub(crate) async fn with(
        upstreams: Vec<Upstream>,
        budget: ModelBudget,
        limit: impl FnOnce(&mut Limits),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path(), upstreams);
        limit(&mut config.limits);
        let gateway = Gateway::open(config).await.unwrap();
        let inside = Inside::attach(&gateway, "sb-a", access(budget));
        Self { gateway, inside, directory }
    }

    /// One row over everything.
    pub(crate) async fn total(&self) -> hostel_gateway::UsageRow {
        let rows = soon(self.gateway.usage(hostel_gateway::Query::default())).await.unwrap();
        rows.into_iter().next().unwrap_or_default()
    }

    /// The usage records, as another process sees them.
    pub(crate) fn records(&self) -> rusqlite::Connection {
        let records = rusqlite::Connection::open(self.directory.path().join("usage.db")).unwrap();
        records.busy_timeout(PATIENCE).unwrap();
        records
    }

    /// Waits until so many requests are over.
    pub(crate) async fn ended(&self, count: u64) {
        soon(async {
            while self.gateway.snapshot().requests.values().sum::<u64>() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub(crate) fn short() -> Timeouts {
    let brief = Duration::from_millis(200);
    Timeouts { connect: brief, first_byte: brief, idle: brief, queue: brief }
}
