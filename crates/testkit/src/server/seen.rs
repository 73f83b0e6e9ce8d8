//! What the endpoint saw.

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;

/// So many bytes of bodies are kept.
const MAX_BODIES: usize = 64 << 20;

/// A request, and what was answered.
#[derive(Clone)]
#[non_exhaustive]
pub struct SeenRequest {
    /// From 1.
    pub number: u64,
    /// When it was complete.
    pub time: SystemTime,
    /// The method.
    pub method: Method,
    /// The path without the query.
    pub path: String,
    /// What follows the question mark.
    pub query: Option<String>,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The headers. Keys are there, but not in `Debug`.
    pub headers: HeaderMap,
    /// The body; empty when it was refused.
    pub body: Bytes,
    /// The status answered; `None` when the connection was cut or silent before it.
    pub status: Option<u16>,
    /// What was answered, in words: `step 1/2: tool Bash`.
    pub answer: String,
}

impl SeenRequest {
    /// The body as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// A header's value; `None` where it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for SeenRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SeenRequest")
            .field("number", &self.number)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &self.headers)
            .field("body_bytes", &self.body.len())
            .field("status", &self.status)
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

/// The last requests.
#[derive(Debug)]
pub(super) struct Seen {
    keep: usize,
    log: Mutex<Log>,
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Log {
    requests: VecDeque<Arc<SeenRequest>>,
    bytes: usize,
    count: u64,
}

impl Seen {
    pub(super) fn new(keep: usize) -> Self {
        Self { keep, log: Mutex::default(), count: watch::Sender::new(0) }
    }

    pub(super) fn record(&self, mut request: SeenRequest) {
        let count = {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.count += 1;
            request.number = log.count;
            log.bytes += request.body.len();
            log.requests.push_back(Arc::new(request));
            while log.requests.len() > self.keep || log.bytes > MAX_BODIES {
                let Some(oldest) = log.requests.pop_front() else { break };
                log.bytes -= oldest.body.len();
            }
            log.count
        };
        self.count.send_if_modified(|known| std::mem::replace(known, count.max(*known)) < count);
    }

    pub(super) fn all(&self) -> Vec<Arc<SeenRequest>> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.requests.iter().cloned().collect()
    }

    pub(super) async fn wait_for(&self, count: u64) {
        // The sender is here, so that this cannot fail.
        let _ = self.count.subscribe().wait_for(|known| *known >= count).await;
    }
}
