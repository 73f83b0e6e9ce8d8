//! The border between `hostel.v1` and sessions: generated types end here.

mod outgoing;
pub(super) mod page;
mod words;

pub(super) use outgoing::{event, message, question, session, statistics};

use super::status::invalid;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hostel_agent::Content;
use hostel_proto::v1;
use hostel_session::{
    Change, CreateSession, EndReason, EventTypes, Limits, ListSessions, QuestionAnswer, SendMessage,
    SessionConfig, SessionId, UpdateSession, Usd, Verdict,
};
use std::time::Duration;
use tonic::Status;
use words::Word as _;

/// The longest that a call may be asked to wait.
const LONGEST: Duration = Duration::from_secs(600);
/// The most bytes of the pictures of a message.
const PICTURES: usize = 16 << 20;

type Result<T> = std::result::Result<T, Status>;

/// The id of a session.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn session_id(id: String) -> Result<SessionId> {
    SessionId::try_from(id).map_err(|error| match error {
        hostel_session::Error::Invalid { problem, .. } => invalid("session_id", problem),
        other => super::status::status(other),
    })
}

/// The types of events that a caller wants.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn types(words: &[String]) -> Result<EventTypes> {
    EventTypes::parse(words.iter().map(String::as_str)).map_err(|problem| invalid("types", problem))
}

/// A wait that a caller asks for.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn bounded(field: &str, wait: Option<prost_types::Duration>) -> Result<Option<Duration>> {
    let Some(wait) = wait else { return Ok(None) };
    Duration::try_from(wait)
        .ok()
        .filter(|wait| *wait <= LONGEST)
        .map(Some)
        .ok_or_else(|| invalid(field, "0 to 10 minutes"))
}

/// Text that may be empty, where empty means none.
fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Milliseconds of a bound.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
fn millis(field: &str, span: Option<prost_types::Duration>) -> Result<Option<u64>> {
    let Some(span) = span else { return Ok(None) };
    let millis = Duration::try_from(span).ok().and_then(|span| u64::try_from(span.as_millis()).ok());
    millis.map(Some).ok_or_else(|| invalid(field, "a span of time is not negative"))
}

/// Bounds, and whether it is said what happens when one is reached.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
fn limits(limits: Option<v1::SessionLimits>) -> Result<(Limits, bool)> {
    let limits = limits.unwrap_or_default();
    let on_limit = hostel_session::OnLimit::from_wire("limits.on_limit", limits.on_limit)?;
    let bounds = Limits {
        max_idle_time_ms: millis("limits.max_idle_time", limits.max_idle_time)?,
        max_lifetime_ms: millis("limits.max_lifetime", limits.max_lifetime)?,
        max_budget_usd: limits.max_budget_micros.map(Usd::from_micros),
        max_turns: limits.max_turns,
        on_limit: on_limit.unwrap_or_default(),
    };
    Ok((bounds, on_limit.is_some()))
}

/// What session to make.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn create(request: v1::CreateSessionRequest) -> Result<CreateSession> {
    let (bounds, on_limit) = limits(request.limits)?;
    let config = match request.config_json.as_str() {
        "" => SessionConfig::default(),
        text => serde_json::from_str(text).map_err(|error| invalid("config_json", error.to_string()))?,
    };
    Ok(CreateSession {
        id: optional(request.session_id).map(session_id).transpose()?,
        pattern: hostel_session::Pattern::from_wire("pattern", request.pattern)?,
        config,
        conversation_id: request.conversation_id,
        max_idle_time_ms: bounds.max_idle_time_ms,
        max_lifetime_ms: bounds.max_lifetime_ms,
        max_budget_usd: bounds.max_budget_usd,
        max_turns: bounds.max_turns,
        on_limit: on_limit.then_some(bounds.on_limit),
        tags: request.tags,
        description: optional(request.description),
        user_id: optional(request.user_id),
        idempotency_key: optional(request.request_id),
    })
}

/// Which sessions to list.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn list(request: v1::ListSessionsRequest) -> Result<ListSessions> {
    Ok(ListSessions {
        pattern: hostel_session::Pattern::from_wire("pattern", request.pattern)?,
        status: hostel_session::SessionStatus::from_wire("status", request.status)?,
        user_id: optional(request.user_id),
        tags: request.tags,
        start: page::start(&request.page_token)?,
        page_size: page::size(request.page_size)?,
    })
}

/// What to change of which session.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn update(request: v1::UpdateSessionRequest) -> Result<(SessionId, UpdateSession)> {
    let (bounds, on_limit) = limits(request.limits)?;
    if on_limit {
        return Err(invalid("limits.on_limit", "cannot be changed"));
    }
    let mode = |mode: String| {
        serde_json::from_value(serde_json::Value::String(mode))
            .map_err(|error| invalid("permission_mode", error.to_string()))
    };
    let mut update = UpdateSession {
        tags: request.tags.map(|tags| tags.values),
        description: request.description.into(),
        user_id: request.user_id.into(),
        conversation_id: request.conversation_id.into(),
        max_idle_time_ms: bounds.max_idle_time_ms.into(),
        max_lifetime_ms: bounds.max_lifetime_ms.into(),
        max_budget_usd: bounds.max_budget_usd.into(),
        max_turns: bounds.max_turns.into(),
        model: request.model.into(),
        permission_mode: request.permission_mode.map(mode).transpose()?.into(),
    };
    for field in &request.clear {
        clear(&mut update, field)?;
    }
    Ok((session_id(request.session_id)?, update))
}

/// Takes a field's value away, unless it has a new one.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
fn clear(update: &mut UpdateSession, field: &str) -> Result<()> {
    macro_rules! clear {
        ($($name:literal: $target:ident;)*) => {
            match field {
                $($name if !update.$target.is_keep() => {
                    Err(invalid("clear", format!("{field} is set and cleared at the same time")))
                }
                $name => {
                    update.$target = Change::Clear;
                    Ok(())
                })*
                _ => Err(invalid("clear", format!("there is no {field:.64?}; there are: {}", [$($name),*].join(", ")))),
            }
        };
    }
    clear! {
        "description": description;
        "user_id": user_id;
        "conversation_id": conversation_id;
        "limits.max_idle_time": max_idle_time_ms;
        "limits.max_lifetime": max_lifetime_ms;
        "limits.max_budget_micros": max_budget_usd;
        "limits.max_turns": max_turns;
        "model": model;
        "permission_mode": permission_mode;
    }
}

/// What to send to which session.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn send(request: v1::SendMessageRequest) -> Result<(SessionId, SendMessage)> {
    let mut pictures = 0;
    let mut content = Vec::with_capacity(request.content.len().min(64));
    for part in request.content {
        use v1::message_content::Part;
        content.push(match part.part {
            Some(Part::Text(text)) => Content::Text { text },
            Some(Part::Image(image)) => {
                pictures += image.data.len();
                Content::Image { media_type: image.media_type, data: BASE64_STANDARD.encode(&image.data) }
            }
            None => return Err(invalid("content", "each part is a text or an image")),
        });
    }
    if pictures > PICTURES {
        return Err(invalid("content", format!("its pictures have {pictures} bytes, at most {PICTURES}")));
    }
    let message = SendMessage { content, idempotency_key: optional(request.request_id) };
    Ok((session_id(request.session_id)?, message))
}

/// Why a session is ended.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn reason(number: i32) -> Result<EndReason> {
    Ok(EndReason::from_wire("reason", number)?.unwrap_or(EndReason::UserRequested))
}

/// An answer, and to what.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(super) fn answer(request: v1::AnswerQuestionRequest) -> Result<(SessionId, String, QuestionAnswer)> {
    let verdict = Verdict::from_wire("verdict", request.verdict)?
        .ok_or_else(|| invalid("verdict", "say allow, allow for session or deny"))?;
    let input = optional(request.input_json)
        .map(|text| serde_json::from_str(&text).map_err(|error| invalid("input_json", error.to_string())));
    let answer = QuestionAnswer {
        verdict,
        message: optional(request.message),
        input: input.transpose()?,
        interrupt: request.interrupt,
        decided_by: optional(request.decided_by),
    };
    Ok((session_id(request.session_id)?, request.question_id, answer))
}
