//! A model that says in each piece of its answers when it sent it, and knows when it was asked.
//!
//! A prompt has `bench-run-N deltas=COUNT delay=MILLISECONDS`. The endpoint has a thread of its own, so that its
//! times are not those of whoever measures.

use super::PATIENCE;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What marks a prompt, and a time in an answer.
const RUN: &str = "bench-run-";
const TIME: &str = "@t";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A prompt, by which its request is known again.
pub(super) struct Prompt {
    run: u64,
    pub(super) text: String,
}

/// The endpoint. It ends with the program.
pub(super) struct Model {
    address: SocketAddr,
    runs: AtomicU64,
    shared: Arc<Shared>,
}

struct Shared {
    /// Times in answers are nanoseconds since this.
    epoch: Instant,
    seen: Mutex<HashMap<u64, Instant>>,
    count: watch::Sender<u64>,
}

impl Model {
    pub(super) fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
        listener.set_nonblocking(true).context("listen")?;
        let address = listener.local_addr().context("an address")?;
        let shared =
            Arc::new(Shared { epoch: Instant::now(), seen: Mutex::default(), count: watch::Sender::new(0) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, theirs) = (runtime.context("start a runtime")?, shared.clone());
        std::thread::spawn(move || runtime.block_on(serve(listener, theirs)));
        Ok(Self { address, runs: AtomicU64::new(1), shared })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Something to ask that was not asked before; the answer comes in so many pieces, with `delay` before each.
    pub(super) fn prompt(&self, deltas: usize, delay: Duration) -> Prompt {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        Prompt { run, text: format!("{RUN}{run} deltas={deltas} delay={} and no more", delay.as_millis()) }
    }

    /// When this prompt's request was here for the first time, as soon as it is.
    pub(super) async fn seen(&self, prompt: &Prompt) -> Result<Instant> {
        let mut count = self.shared.count.subscribe();
        let find =
            || self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&prompt.run).copied();
        let waiting = count.wait_for(|_| find().is_some());
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .context("the model was not asked")?
            .context("the model")?;
        find().context("a request")
    }

    /// How old the pieces of an answer in a text are now.
    pub(super) fn ages<'a>(&self, text: &'a str) -> impl Iterator<Item = Duration> + use<'a> {
        let now = self.shared.epoch.elapsed();
        let times = text.split(TIME).skip(1).filter_map(|rest| rest.split(';').next()?.parse().ok());
        times.map(move |sent| now.saturating_sub(Duration::from_nanos(sent)))
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else { return };
        // Without it the times would be later, for both sides.
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(&shared, request));
            // Who asked goes away as it likes.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let is_message = request.method() == Method::POST && request.uri().path().ends_with("/messages");
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if !is_message {
        return Ok(Response::new(Full::new(Bytes::from_static(b"{\"input_tokens\":1}")).boxed_unsync()));
    }
    let now = Instant::now();
    let text = String::from_utf8_lossy(&body);
    let asked = Asked::find(&text).unwrap_or_default();
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).entry(asked.run).or_insert(now);
    shared.count.send_modify(|count| *count += 1);
    let model =
        serde_json::from_str::<Value>(&text).ok().and_then(|json| json["model"].as_str().map(str::to_owned));
    let model = model.unwrap_or_default();
    let pieces = futures::stream::unfold((0, shared.clone()), move |(at, shared)| {
        let model = model.clone();
        async move {
            if at > asked.deltas {
                return None;
            }
            if at > 0 && !asked.delay.is_zero() {
                tokio::time::sleep(asked.delay).await;
            }
            let frames = match at {
                0 => begin(&model, asked.run),
                _ if at == asked.deltas => piece(&shared) + &end(),
                _ => piece(&shared),
            };
            Some((Ok(Frame::data(Bytes::from(frames))), (at + 1, shared)))
        }
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let kind = hyper::header::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}

/// What a prompt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    run: u64,
    deltas: usize,
    delay: Duration,
}

impl Default for Asked {
    fn default() -> Self {
        Self { run: 0, deltas: 1, delay: Duration::ZERO }
    }
}

impl Asked {
    /// Reads the last prompt in a request.
    fn find(request: &str) -> Option<Self> {
        let mut words = request.get(request.rfind(RUN)? + RUN.len()..)?.split(' ');
        let run = words.next()?.parse().ok()?;
        let deltas = words.next()?.strip_prefix("deltas=")?.parse::<usize>().ok()?.max(1);
        let delay = Duration::from_millis(words.next()?.strip_prefix("delay=")?.parse().ok()?);
        Some(Self { run, deltas, delay })
    }
}

fn event(kind: &str, mut data: Value) -> String {
    data["type"] = kind.into();
    format!("event: {kind}\ndata: {data}\n\n")
}

fn begin(model: &str, run: u64) -> String {
    let usage = json!({ "input_tokens": 10, "output_tokens": 1 });
    let message = json!({ "id": format!("msg_{run}"), "type": "message", "role": "assistant", "model": model,
        "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage });
    let block = json!({ "index": 0, "content_block": { "type": "text", "text": "" } });
    event("message_start", json!({ "message": message })) + &event("content_block_start", block)
}

/// A piece that says when it was sent.
fn piece(shared: &Shared) -> String {
    let mut text = String::new();
    // A string takes all.
    let _ = write!(text, "{TIME}{};", shared.epoch.elapsed().as_nanos());
    event("content_block_delta", json!({ "index": 0, "delta": { "type": "text_delta", "text": text } }))
}

fn end() -> String {
    let delta = json!({ "stop_reason": "end_turn", "stop_sequence": null });
    event("content_block_stop", json!({ "index": 0 }))
        + &event("message_delta", json!({ "delta": delta, "usage": { "output_tokens": 20 } }))
        + &event("message_stop", json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_prompt_of_a_request_counts() {
        let request = "\"bench-run-1 deltas=2 delay=3 and\", \"bench-run-12 deltas=50 delay=10 and no more\"";
        let expected = Asked { run: 12, deltas: 50, delay: Duration::from_millis(10) };
        assert_eq!(Asked::find(request), Some(expected));
        assert_eq!(Asked::find("nothing"), None);
    }
}
