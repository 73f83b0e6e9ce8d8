//! Upstreams that do as a test says.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) type Answer = Response<BoxBody<Bytes, io::Error>>;
type Script = Arc<dyn Fn(Seen) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Counted from zero.
    pub index: usize,
    pub method: String,
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A server on loopback. Ends when dropped.
pub(crate) struct Model {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Model {
    pub(crate) async fn start<F>(script: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(move |request| Box::pin(script(request)));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, script, Arc::clone(&seen)));
        Self { url, seen, _tasks: tasks }
    }

    /// One that speaks HTTP/2 over TLS and nothing else, and its certificate (PEM).
    pub(crate) async fn over_tls(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Self, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let script: Script = Arc::new(move |_| Box::pin(std::future::ready(answer())));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, script, all) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&all));
                connections.spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let service =
                        service_fn(|request| self::answer(Arc::clone(&script), Arc::clone(&all), request));
                    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = serving.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (Self { url, seen, _tasks: tasks }, made.cert.pem().into_bytes())
    }

    /// One that always answers alike.
    pub(crate) async fn always(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self::start(move |_| std::future::ready(answer())).await
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Returns once so many requests arrived.
    pub(crate) async fn arrived(&self, count: usize) {
        while self.count() < count {
            tokio::task::yield_now().await;
        }
    }
}

async fn serve(listener: TcpListener, script: Script, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
        connections.spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&script), Arc::clone(&seen), request));
            // A client that goes away is what some tests are about.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    script: Script,
    all: Arc<Mutex<Vec<Seen>>>,
    request: Request<Incoming>,
) -> Result<Answer, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let seen = {
        let mut all = all.lock().unwrap();
        let seen = Seen {
            index: all.len(),
            method: head.method.to_string(),
            uri: head.uri.path_and_query().unwrap().to_string(),
            headers: head.headers,
            body,
        };
        all.push(seen.clone());
        seen
    };
    Ok(script(seen).await)
}

fn whole(text: impl Into<Bytes>) -> BoxBody<Bytes, io::Error> {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// A JSON body with a status.
pub(crate) fn json(status: u16, text: &str) -> Answer {
    let mut answer = Response::new(whole(text.to_owned()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer.headers_mut().insert("request-id", "req_1".parse().unwrap());
    answer
}

/// An error as the API gives it.
pub(crate) fn error(status: u16, kind: &str) -> Answer {
    json(
        status,
        &format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"told by the upstream"}}}}"#),
    )
}

/// A whole message with this usage, not streamed.
pub(crate) fn message(input: u64, output: u64) -> Answer {
    json(
        200,
        &format!(
            r#"{{"type":"message","model":"claude-haiku-4-5","content":[],"usage":{{"input_tokens":{input},"output_tokens":{output}}}}}"#
        ),
    )
}

pub(crate) type Pieces = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

/// A stream of events whose pieces the test sends.
pub(crate) fn stream() -> (Pieces, Answer) {
    let (pieces, received) = mpsc::channel(16);
    let body = StreamBody::new(ReceiverStream::new(received)).boxed();
    let mut answer = Response::new(body);
    answer.headers_mut().insert("content-type", "text/event-stream; charset=utf-8".parse().unwrap());
    (pieces, answer)
}

pub(crate) async fn send(pieces: &Pieces, text: &str) {
    pieces.send(Ok(Frame::data(Bytes::from(text.to_owned())))).await.unwrap();
}

/// Breaks the connection in the middle of the body.
pub(crate) async fn cut(pieces: Pieces) {
    pieces.send(Err(io::Error::other("cut by the test"))).await.unwrap();
}

/// Events of a stream.
pub(crate) fn start(input: u64) -> String {
    let usage = format!(
        r#"{{"input_tokens":{input},"cache_creation_input_tokens":40,"cache_read_input_tokens":1000,"cache_creation":{{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":10}},"output_tokens":1}}"#
    );
    event(
        "message_start",
        &format!(r#"{{"type":"message_start","message":{{"model":"claude-haiku-4-5","usage":{usage}}}}}"#),
    )
}

pub(crate) fn text(text: &str) -> String {
    event(
        "content_block_delta",
        &format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#
        ),
    )
}

pub(crate) fn delta(output: u64) -> String {
    event(
        "message_delta",
        &format!(r#"{{"type":"message_delta","delta":{{}},"usage":{{"output_tokens":{output}}}}}"#),
    )
}

pub(crate) fn stop() -> String {
    event("message_stop", r#"{"type":"message_stop"}"#)
}

fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
