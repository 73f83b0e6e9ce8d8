//! What requests bring: ids, queries, bodies. What is wrong with them is said by name.

use super::problem::{Problem, Result};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query as AxumQuery, RawPathParams, Request};
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::request::Parts;
use hostel_session::{Error, SessionId};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Largest body of most requests, in bytes.
const SMALL: usize = 1 << 20;
/// Largest body of a message, which may hold pictures, in bytes.
const LARGE: usize = 32 << 20;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The session that a path names.
pub(super) struct Id(pub(super) SessionId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let name = parameter(parts, state, "id").await?;
        // What can be no id is the id of no session.
        let unknown = |_| {
            let shown: String = name.chars().take(200).collect();
            let detail = format!("Session not found: {shown}");
            Problem::new(StatusCode::NOT_FOUND, "not_found", "Session not found", detail).with("id", shown)
        };
        name.parse().map(Self).map_err(unknown)
    }
}

/// The message that a path names.
pub(super) struct MessageId(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for MessageId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Ok(Self(name(parameter(parts, state, "messageId").await?, "message")?))
    }
}

/// The question that a path names.
pub(super) struct QuestionId(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for QuestionId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Ok(Self(name(parameter(parts, state, "questionId").await?, "question")?))
    }
}

/// A name that may be looked for.
fn name(name: String, kind: &'static str) -> Result<String> {
    if (1..=255).contains(&name.len()) && !name.contains(char::is_control) {
        return Ok(name);
    }
    Err(Error::NoSuch { kind, name: name.chars().take(100).collect() }.into())
}

async fn parameter<S: Send + Sync>(parts: &mut Parts, state: &S, name: &'static str) -> Result<String> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|error| Problem::invalid(name, error.body_text()))?;
    let found = params.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(|| Problem::invalid(name, "is missing in the path"))
}

/// The parameters after the question mark.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let wrong = |error: axum::extract::rejection::QueryRejection| {
            use std::error::Error as _;
            let text = error.source().map_or_else(|| error.body_text(), ToString::to_string);
            let (field, problem) = text.split_once(": ").unwrap_or(("", &text));
            Problem::invalid(&named(problem).unwrap_or_else(|| field.to_owned()), problem)
        };
        AxumQuery::try_from_uri(&parts.uri).map(|AxumQuery(query)| Self(query)).map_err(wrong)
    }
}

/// A JSON body, whatever its content type says: what browsers send without one is taken too. Nothing at all is `{}`.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        parse(&collect(request.into_body(), SMALL).await?).map(Self)
    }
}

/// A JSON body with nothing in it, or none.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A JSON body that may be large.
pub(super) struct LargeJson<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for LargeJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        parse(&collect(request.into_body(), LARGE).await?).map(Self)
    }
}

async fn collect(body: Body, limit: usize) -> Result<Bytes> {
    let slow = |_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_body", "Request timeout", "the body took too long")
    };
    let whole = Limited::new(body, limit).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await.map_err(slow)? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(error) => Err(Problem::invalid("", format!("the body broke off: {error}"))),
    }
}

/// A body that is larger than it may be.
pub(super) fn too_large(limit: usize) -> Problem {
    let detail = format!("the body has more than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Payload too large", detail)
}

/// Reads JSON, and says which field is wrong.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let body = if body.is_empty() { b"{}" } else { body };
    // What serde reads into a structure may be a list too; nobody means that.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte == b'[') {
        return Err(Problem::invalid("", "the body must be a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let wrong = |field: String, error: &serde_json::Error| {
        if error.is_data() {
            let text = error.to_string();
            return Problem::invalid(&named(&text).map_or(field.clone(), |name| inside(&field, &name)), text);
        }
        let detail = format!("the body is no JSON: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_json", "Invalid JSON", detail)
    };
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        wrong(if field == "." { String::new() } else { field }, error.inner())
    })?;
    reader.end().map_err(|error| wrong(String::new(), &error))?;
    Ok(value)
}

/// The field that serde names in its sentence, where it does.
fn named(sentence: &str) -> Option<String> {
    let rest =
        sentence.strip_prefix("unknown field `").or_else(|| sentence.strip_prefix("missing field `"))?;
    rest.split_once('`').map(|(name, _)| name.to_owned())
}

fn inside(path: &str, name: &str) -> String {
    if path.is_empty() || path == name || path.ends_with(&format!(".{name}")) {
        return if path.is_empty() { name.to_owned() } else { path.to_owned() };
    }
    format!("{path}.{name}")
}

/// What makes a request repeatable (draft-ietf-httpapi-idempotency-key-header), with or without quotes.
///
/// # Errors
/// Where it is not text.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let wrong = |_| Problem::invalid("Idempotency-Key", "must be 1 to 255 printable ASCII characters");
    let text = value.to_str().map_err(wrong)?;
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if (1..=255).contains(&bare.len()) {
        return Ok(Some(bare.to_owned()));
    }
    Err(Problem::invalid("Idempotency-Key", "must be 1 to 255 printable ASCII characters"))
}

/// Whether a client prefers a type over an event stream.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_session::{CreateSession, UpdateSession};
    use serde_json::{Value, json};

    fn refused<T: DeserializeOwned>(body: &str) -> Value {
        let problem = parse::<T>(body.as_bytes()).err().unwrap_or_else(|| panic!("{body} is taken"));
        let more = format!("{problem:?}");
        json!({ "detail": problem.detail(), "reason": problem.reason(), "debug": more })
    }

    #[test]
    fn wrong_fields_are_named() {
        for (body, field) in [
            (r#"{"patern": "hybrid"}"#, "patern"),
            (r#"{"pattern": "hybird"}"#, "pattern"),
            (r#"{"config": {"maxTurns": "ten"}}"#, "config.maxTurns"),
            (r#"{"config": {"modle": "x"}}"#, "config.modle"),
            (r#"{"tags": ["a", 3]}"#, "tags[1]"),
            (r#"{"maxBudgetUsd": -1}"#, "maxBudgetUsd"),
        ] {
            let refused = refused::<CreateSession>(body);
            assert_eq!(refused["reason"], "invalid_argument", "{body}");
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.starts_with(&format!("{field}: ")), "{body}: {detail}");
        }
        let pattern = refused::<CreateSession>(r#"{"pattern": "hybird"}"#);
        assert!(pattern["debug"].as_str().unwrap().contains("validPatterns"), "{pattern}");
        // What the seed's own code let anybody overwrite.
        for field in ["status", "totalCost", "id"] {
            let refused = refused::<UpdateSession>(&format!("{{\"{field}\": 1}}"));
            assert!(
                refused["detail"].as_str().unwrap().starts_with(&format!("{field}: unknown field")),
                "{refused}"
            );
        }
    }

    #[test]
    fn what_is_no_json_is_no_field_s_fault() {
        for body in ["{", "{} {}", "nothing"] {
            assert_eq!(refused::<UpdateSession>(body)["reason"], "invalid_json", "{body}");
        }
        assert!(parse::<UpdateSession>(b"").is_ok(), "nothing is nothing to change");
        assert_eq!(refused::<UpdateSession>(" [null, null]")["reason"], "invalid_argument");
    }
}
