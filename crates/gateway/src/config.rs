//! What the gateway is made from.

use crate::error::{Error, Result};
use crate::price::Prices;
use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// How the key is sent to an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum KeyHeader {
    /// `x-api-key: KEY`.
    #[default]
    #[serde(rename = "x-api-key")]
    ApiKey,
    /// `authorization: Bearer KEY`.
    #[serde(rename = "bearer")]
    Bearer,
}

/// Whether requests may have the model's API fetch something by itself: pages (the tool `web_fetch`), images and
/// documents by URL, what MCP servers say (`mcp_servers`). That reaches any public host, whatever the network policy of
/// the sandbox. Searches of the web go to the API's own search engine and are no such fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiFetches {
    /// Such requests are refused.
    #[default]
    Refuse,
    /// They are forwarded.
    Allow,
}

/// How long an upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until there is a connection, with TLS. 10 s by default.
    pub connect: Duration,
    /// From the request to the head of the response. 10 min by default, which answers that are not streamed need.
    pub first_byte: Duration,
    /// Between two pieces of a response. 5 min by default.
    pub idle: Duration,
    /// How long a request waits for its turn where the upstream has as many as it may. 30 s by default.
    pub queue: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(300),
            queue: Duration::from_secs(30),
        }
    }
}

/// A model API: Anthropic's, or one that speaks the same protocol.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name in logs, metrics and reports.
    pub name: String,
    /// Where it is; the paths of requests are added.
    pub base_url: Url,
    /// The real key. Where the upstream sends it back it is masked, unless it has fewer than 8 bytes.
    pub key: SecretString,
    /// How the key is sent.
    pub key_header: KeyHeader,
    /// Requests at the same time; further ones wait.
    pub max_concurrent: usize,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// Speak HTTP/2 without TLS or negotiation; for tests and for proxies that need it.
    pub http2_prior_knowledge: bool,
    /// Certificates (PEM) that are trusted besides the system's.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Upstream {
    /// An upstream with the defaults.
    #[must_use]
    pub fn new(name: impl Into<String>, base_url: Url, key: SecretString) -> Self {
        Self {
            name: name.into(),
            base_url,
            key,
            key_header: KeyHeader::default(),
            max_concurrent: 200,
            timeouts: Timeouts::default(),
            http2_prior_knowledge: false,
            extra_roots: Vec::new(),
        }
    }
}

/// Bounds on what comes from inside of sandboxes, and on waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one sandbox at the same time; further ones wait until one ends or is idle. 64 by default.
    pub connections: usize,
    /// The head of a request, in bytes; 64 KiB by default, at least 8 KiB.
    pub header_bytes: usize,
    /// The body of a request, in bytes. 32 MiB by default, which is the API's own limit.
    pub body_bytes: usize,
    /// Bodies of one sandbox that are held at the same time, in bytes; further ones wait. 64 MiB by default.
    pub held_bytes: usize,
    /// Bodies of all sandboxes that are held at the same time, in bytes; further ones wait. 1 GiB by default. A quarter
    /// is for bodies of at most 1 MiB alone, of which one sandbox has at most 4 MiB there.
    pub node_held_bytes: usize,
    /// How long a body waits for room before its request is refused. 30 s by default.
    pub room_timeout: Duration,
    /// Until the head of a request is there; also how long an idle connection is kept. 2 min by default.
    pub header_timeout: Duration,
    /// Until the body of a request is there, and a second more for each MiB that it may have. 10 s by default.
    pub body_timeout: Duration,
    /// How long a client may take nothing of what is written to it before it is cut off. 2 min by default.
    pub write_timeout: Duration,
    /// How long the rest of a refused request is read, so that its client sees the answer. 5 s by default.
    pub linger: Duration,
    /// How long a request waits for usage to be written before it is refused. 10 s by default.
    pub commit_timeout: Duration,
    /// Longest `retry-after` of a last upstream that is waited for here, instead of being passed on. 2 s by default.
    pub retry_wait: Duration,
    /// How often what a response that goes on was seen to use is written, for a crash. 5 s by default.
    pub progress_every: Duration,
    /// How long rows of single requests are kept; totals stay. 400 days by default.
    pub keep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            header_bytes: 64 << 10,
            body_bytes: 32 << 20,
            held_bytes: 64 << 20,
            node_held_bytes: 1 << 30,
            room_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(120),
            linger: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(10),
            retry_wait: Duration::from_secs(2),
            progress_every: Duration::from_secs(5),
            keep: Duration::from_secs(400 * 86_400),
        }
    }
}

/// Everything that the gateway needs.
#[derive(Debug)]
pub struct Config {
    /// Where requests go, the next one only if those before it fail.
    pub upstreams: Vec<Upstream>,
    /// What tokens cost.
    pub prices: Prices,
    /// What requests may have the API fetch.
    pub api_fetches: ApiFetches,
    /// Where `usage.db` is kept.
    pub record_directory: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// Checks what types do not say.
    ///
    /// # Errors
    /// [`Error::Configuration`] naming the field.
    pub fn validate(&self) -> Result<()> {
        for (index, upstream) in self.upstreams.iter().enumerate() {
            let field = |name: &str| format!("upstream[{index}].{name}");
            if upstream.name.is_empty()
                || self.upstreams[..index].iter().any(|other| other.name == upstream.name)
            {
                return Err(Error::configuration(field("name"), "must not be empty or there twice"));
            }
            let url = &upstream.base_url;
            if !matches!(url.scheme(), "http" | "https")
                || url.query().is_some()
                || !url.username().is_empty()
            {
                return Err(Error::configuration(
                    field("base_url"),
                    "write http:// or https:// with a host and perhaps a path, and nothing else",
                ));
            }
            if !(1..=10_000).contains(&upstream.max_concurrent) {
                return Err(Error::configuration(field("max_concurrent"), "use 1 to 10000"));
            }
        }
        let Limits { connections, header_bytes, body_bytes, held_bytes, node_held_bytes, .. } = self.limits;
        if !(1..=10_000).contains(&connections) {
            return Err(Error::configuration("limits.connections", "use 1 to 10000"));
        }
        if !(8 << 10..=1 << 20).contains(&header_bytes) {
            return Err(Error::configuration("limits.header_bytes", "use 8 KiB to 1 MiB"));
        }
        if body_bytes == 0 || body_bytes > 1 << 30 || held_bytes < body_bytes || held_bytes > 1 << 40 {
            return Err(Error::configuration(
                "limits.body_bytes",
                "use 1 byte to 1 GiB, and at least as much for held_bytes",
            ));
        }
        if node_held_bytes < held_bytes || node_held_bytes > 1 << 40 {
            return Err(Error::configuration(
                "limits.node_held_bytes",
                "use at least held_bytes, and at most 1 TiB",
            ));
        }
        Ok(())
    }
}
