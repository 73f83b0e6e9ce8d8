//! What is where, and what it answers.

use crate::api_error::ApiError;
use crate::body::End;
use crate::messages::{MessagesRequest, choose};
use crate::reply::{Events, Reply, error_event, events};
use crate::server::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::time::Duration;

mod limits;

/// An answer without streaming takes no longer than this, however many delays it has.
const MAX_DELAY: Duration = Duration::from_secs(600);
/// The header that names the CLI's session.
const SESSION: &str = "x-claude-code-session-id";

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// The body, or why it is not there.
    pub(crate) body: Result<&'a Bytes, ApiError>,
    pub(crate) request_id: &'a str,
}

/// What is answered.
pub(crate) struct Answer {
    /// How long to wait before.
    pub(crate) wait: Duration,
    /// What it is, in words.
    pub(crate) what: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) form: Form,
}

/// Its form.
pub(crate) enum Form {
    Whole(StatusCode, Bytes),
    Stream(Events, End, Duration),
    /// Nothing at all, not even a status.
    Nothing(End),
}

impl Answer {
    fn whole(what: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let form = Form::Whole(StatusCode::OK, body.into());
        Self { wait: Duration::ZERO, what: what.into(), headers: Vec::new(), form }
    }

    fn error(error: &ApiError, request_id: &str) -> Self {
        let form = Form::Whole(error.status, error.json(request_id).into());
        let what = format!("{}: {}", error.kind, error.message);
        Self { wait: Duration::ZERO, what, headers: Vec::new(), form }
    }

    /// The status, where there is one.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match &self.form {
            Form::Whole(status, _) => Some(*status),
            Form::Stream(..) => Some(StatusCode::OK),
            Form::Nothing(_) => None,
        }
    }
}

/// Answers.
pub(crate) fn answer(context: &Context, question: Question<'_>) -> Answer {
    let request_id = question.request_id;
    route(context, question).unwrap_or_else(|error| Answer::error(&error, request_id))
}

fn route(context: &Context, question: Question<'_>) -> Result<Answer, ApiError> {
    let get = question.method == Method::GET || question.method == Method::HEAD;
    let post = question.method == Method::POST;
    match question.path {
        "/" | "/api/hello" if get => return Ok(Answer::whole("hello", r#"{"message":"hello"}"#)),
        path if !path.starts_with("/v1/") => return Err(ApiError::of_status(404, None)),
        _ => authenticate(context, question.headers)?,
    }
    match question.path {
        "/v1/messages" if post => message(context, question),
        "/v1/messages/count_tokens" if post => {
            let request = MessagesRequest::read(question.body?, false)?;
            Ok(Answer::whole("count", json!({ "input_tokens": request.input_tokens }).to_string()))
        }
        "/v1/models" if get => Ok(models(context)),
        path if get => match path.strip_prefix("/v1/models/") {
            Some(id) if context.models.iter().any(|known| known == id) => {
                Ok(Answer::whole("model", model(id).to_string()))
            }
            Some(id) => Err(ApiError::of_status(404, Some(&format!("model: {id}")))),
            None => Err(ApiError::of_status(404, None)),
        },
        _ => Err(ApiError::of_status(404, None)),
    }
}

/// The key comes as `x-api-key`, or as a bearer token.
fn authenticate(context: &Context, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = &context.key else { return Ok(()) };
    let given = headers.get("x-api-key").map(http::HeaderValue::as_bytes);
    let bearer =
        headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if [given, bearer].into_iter().flatten().any(|given| given == key.expose_secret().as_bytes()) {
        return Ok(());
    }
    Err(ApiError::of_status(401, None))
}

fn models(context: &Context) -> Answer {
    let data: Vec<_> = context.models.iter().map(|id| model(id)).collect();
    let (first, last) = (context.models.first(), context.models.last());
    let list = json!({ "data": data, "has_more": false, "first_id": first, "last_id": last });
    Answer::whole("models", list.to_string())
}

fn model(id: &str) -> serde_json::Value {
    json!({ "type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z" })
}

fn message(context: &Context, question: Question<'_>) -> Result<Answer, ApiError> {
    let request = MessagesRequest::read(question.body?, true)?;
    let session = question.headers.get(SESSION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let choice = choose(&request, session, &context.default_steps, &context.attempts)?;
    let step = choice.step;
    let mut answer =
        Answer { wait: context.latency + choice.wait, ..Answer::whole(choice.what, Bytes::new()) };
    let error = match (step.error, &step.sse_error) {
        (Some(status), _) => Some(ApiError::of_status(status, step.message.as_deref())),
        (None, Some(kind)) => Some(ApiError::of_kind(kind, step.message.as_deref())),
        (None, None) => None,
    };
    answer.headers = limits::headers(&request, step.error == Some(429), step.retry_after);
    answer.headers.extend(step.retry_after.map(|seconds| ("retry-after", seconds.to_string())));
    answer.headers.extend(step.should_retry.map(|should| ("x-should-retry", should.to_string())));
    let at_once = |after: u64| after == 0 || !request.stream;
    answer.form = match (error, step.cut, step.hang) {
        (Some(error), ..) if step.error.is_some() || !request.stream => {
            Form::Whole(error.status, error.json(question.request_id).into())
        }
        (_, Some(after), _) if at_once(after) => Form::Nothing(End::Cut(0)),
        (_, _, Some(after)) if at_once(after) => Form::Nothing(End::Hang(0)),
        (error, cut, hang) => {
            let end = match (error, cut, hang) {
                (Some(error), ..) => {
                    End::Error(step.after.unwrap_or(0), error_event(&error, question.request_id))
                }
                (_, Some(after), _) => End::Cut(after),
                (_, _, Some(after)) => End::Hang(after),
                _ => End::Complete,
            };
            let delay = Duration::from_millis(step.delay_ms.unwrap_or(0));
            let reply = Reply::new(step, &request, || context.new_id());
            if request.stream {
                Form::Stream(events(reply), end, delay)
            } else {
                let deltas = u32::try_from(reply.deltas()).unwrap_or(u32::MAX);
                answer.wait += delay.saturating_mul(deltas).min(MAX_DELAY);
                let too_big = || ApiError::invalid("so big an answer must be streamed");
                Form::Whole(StatusCode::OK, reply.whole().ok_or_else(too_big)?.into())
            }
        }
    };
    Ok(answer)
}
