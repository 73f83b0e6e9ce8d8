//! Connections: HTTP/1.1, and HTTP/2 with prior knowledge.

use super::Context;
use super::listen::{Listener, Stream};
use super::seen::SeenRequest;
use crate::body::{self, Body, Line};
use crate::routes::{self, Answer, Form, Question};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

/// How long a connection may take for a request's head, and so also how long it may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(300);
const MAX_STREAMS: u32 = 1024;
const MAX_HEAD: u32 = 64 << 10;
/// When there is no file descriptor left, trying again at once is of no use.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Takes connections until the endpoint stops.
pub(super) async fn accept(context: Arc<Context>, listener: Listener) {
    loop {
        let next = async {
            let permit = context.connections.clone().acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let next = tokio::select! {
            next = next => next,
            () = context.stopping.cancelled() => return,
        };
        match next {
            Some((permit, Ok(stream))) => {
                context.tasks.spawn(serve(context.clone(), stream, permit));
            }
            Some((_, Err(error))) => {
                tracing::warn!(%error, "the scripted endpoint cannot take a connection");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
            None => return,
        }
    }
}

/// HTTP/2 has a task for each stream; they are ours to wait for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

async fn serve(context: Arc<Context>, stream: Stream, _permit: OwnedSemaphorePermit) {
    let line = Line { cut: context.ended.child_token(), stopping: context.stopping.clone() };
    let service = service_fn(|request| respond(context.clone(), line.clone(), request));
    let mut builder = auto::Builder::new(Tracked(context.tasks.clone()));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Clients break off as they like; what they asked is in the log already.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = line.cut.cancelled() => return,
        () = context.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = line.cut.cancelled() => {}
    }
}

async fn respond(
    context: Arc<Context>,
    line: Line,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let request_id = format!("req_{}", context.new_id());
    let (head, body) = request.into_parts();
    let body = body::read(body, context.max_body).await;
    let question = Question {
        method: &head.method,
        path: head.uri.path(),
        headers: &head.headers,
        body: body.as_ref().map_err(Clone::clone),
        request_id: &request_id,
    };
    let mut answer = routes::answer(&context, question);
    if head.method == Method::HEAD
        && let Form::Whole(_, body) = &mut answer.form
    {
        // On HTTP/2 nobody else leaves it out.
        body.clear();
    }
    tracing::debug!(method = %head.method, path = head.uri.path(), what = answer.what, "answered");
    context.seen.record(SeenRequest {
        number: 0,
        time: SystemTime::now(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        method: head.method,
        version: head.version,
        headers: without_keys_in_debug(head.headers),
        body: body.unwrap_or_default(),
        status: answer.status().map(|status| status.as_u16()),
        answer: answer.what.clone(),
    });
    Ok(perform(answer, line, &request_id).await)
}

async fn perform(answer: Answer, line: Line, request_id: &str) -> Response<Body> {
    if !answer.wait.is_zero() {
        line.wait(answer.wait).await;
    }
    let (status, kind, body) = match answer.form {
        Form::Whole(status, bytes) => (status, "application/json", body::whole(bytes)),
        Form::Stream(events, end, delay) => {
            let body = body::stream(events, end, delay, line);
            (StatusCode::OK, "text/event-stream; charset=utf-8", body)
        }
        Form::Nothing(body::End::Hang(_)) => match line.hang().await {},
        Form::Nothing(_) => match line.cut().await {},
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let own = [("content-type", kind.to_owned()), ("request-id", request_id.to_owned())];
    for (name, value) in own.into_iter().chain(answer.headers) {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Whoever prints a request in a failing test shall not print its key.
fn without_keys_in_debug(mut headers: HeaderMap) -> HeaderMap {
    for (name, value) in &mut headers {
        value.set_sensitive(*name == "x-api-key" || *name == header::AUTHORIZATION);
    }
    headers
}
