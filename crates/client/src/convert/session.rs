//! Sessions.

#[cfg(test)]
mod tests;
mod words;

pub(crate) use words::Word;

use super::{duration_to_wire, optional, required, seconds, time};
use crate::error::{Error, Result};
use crate::model;
use hostel_proto::v1;
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::Duration;
use tonic::Status;

/// What an error answer of the session server means.
pub(crate) fn session_error(status: Status) -> Error {
    match super::in_session(status) {
        Error::ConnectionLost { detail } => Error::SessionServerLost { detail },
        other => other,
    }
}

/// A word that must be there.
fn word<W: Word>(number: i32, what: &str) -> Result<W> {
    required(W::from_wire(number)?, what)
}

/// JSON text; empty is none.
fn json(text: &str, what: &str) -> Result<Option<Value>> {
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| Error::Protocol(format!("{what} is no JSON: {error}")))
}

/// A session.
pub(crate) fn session(wire: v1::Session) -> Result<model::Session> {
    Ok(model::Session {
        id: wire.id,
        agent_session_id: optional(wire.agent_session_id),
        pattern: word(wire.pattern, "the pattern")?,
        status: word(wire.status, "the status")?,
        reason: Word::from_wire(wire.reason)?,
        reason_message: optional(wire.reason_message),
        environment: environment(required(wire.environment, "the environment")?)?,
        active_turn: wire.active_turn.map(turn).transpose()?,
        conversation_id: wire.conversation_id,
        config: json(&wire.config_json, "the configuration")?
            .unwrap_or_else(|| Value::Object(Default::default())),
        create_time: time(wire.create_time),
        start_time: time(wire.start_time),
        last_activity_time: time(wire.last_activity_time),
        complete_time: time(wire.complete_time),
        terminate_time: time(wire.terminate_time),
        total_cost_micros: wire.total_cost_micros,
        agent_cost_micros: wire.agent_cost_micros,
        total_tokens: wire.total_tokens,
        input_tokens: wire.input_tokens,
        output_tokens: wire.output_tokens,
        cached_tokens: wire.cached_tokens,
        num_turns: wire.num_turns,
        tools_used: wire.tools_used,
        limits: limits(wire.limits.unwrap_or_default())?,
        tags: wire.tags,
        description: optional(wire.description),
        user_id: optional(wire.user_id),
        last_event: wire.last_event,
        loaded: wire.loaded,
    })
}

fn environment(wire: v1::SessionEnvironment) -> Result<model::SessionEnvironment> {
    Ok(model::SessionEnvironment {
        status: word(wire.status, "the environment's status")?,
        message: optional(wire.message),
        sandbox_id: optional(wire.sandbox_id),
        start: optional(wire.start),
        restarts: wire.restarts,
    })
}

fn turn(wire: v1::ActiveTurn) -> Result<model::ActiveTurn> {
    Ok(model::ActiveTurn {
        message_id: wire.message_id,
        start_time: time(wire.start_time),
        phase: word(wire.phase, "the turn's phase")?,
        current_tool: optional(wire.current_tool),
    })
}

fn limits(wire: v1::SessionLimits) -> Result<model::SessionLimits> {
    let span = |span: Option<prost_types::Duration>| span.and_then(|span| Duration::try_from(span).ok());
    Ok(model::SessionLimits {
        max_idle_time: span(wire.max_idle_time),
        max_lifetime: span(wire.max_lifetime),
        max_budget_micros: wire.max_budget_micros,
        max_turns: wire.max_turns,
        on_limit: Word::from_wire(wire.on_limit)?,
    })
}

/// Bounds for the wire.
pub(crate) fn session_limits_to_wire(limits: &model::SessionLimits) -> v1::SessionLimits {
    v1::SessionLimits {
        max_idle_time: limits.max_idle_time.map(duration_to_wire),
        max_lifetime: limits.max_lifetime.map(duration_to_wire),
        max_budget_micros: limits.max_budget_micros,
        max_turns: limits.max_turns,
        on_limit: limits.on_limit.map_or(0, Word::to_wire),
    }
}

/// A message.
pub(crate) fn session_message(wire: v1::SessionMessage) -> Result<model::SessionMessage> {
    Ok(model::SessionMessage {
        id: wire.id,
        request_id: optional(wire.request_id),
        content: wire.content.into_iter().filter_map(content).collect(),
        state: word(wire.state, "the message's state")?,
        seq: wire.seq,
        create_time: time(wire.create_time),
        start_time: time(wire.start_time),
        end_time: time(wire.end_time),
        outcome: wire.outcome.map(outcome).transpose()?,
    })
}

fn content(wire: v1::MessageContent) -> Option<model::MessageContent> {
    use v1::message_content::Part;
    Some(match wire.part? {
        Part::Text(text) => model::MessageContent::Text { text },
        Part::Image(image) => model::MessageContent::Image { media_type: image.media_type, data: image.data },
    })
}

/// A part of a message for the wire.
pub(crate) fn content_to_wire(content: model::MessageContent) -> v1::MessageContent {
    use v1::message_content::Part;
    let part = match content {
        model::MessageContent::Text { text } => Part::Text(text),
        model::MessageContent::Image { media_type, data } => {
            Part::Image(v1::MessageImage { media_type, data })
        }
    };
    v1::MessageContent { part: Some(part) }
}

fn outcome(wire: v1::MessageOutcome) -> Result<model::MessageOutcome> {
    let usage = wire.usage.unwrap_or_default();
    Ok(model::MessageOutcome {
        is_error: wire.is_error,
        result: wire.result,
        text: optional(wire.text),
        usage: model::TurnUsage {
            input: usage.input,
            output: usage.output,
            cache_creation: usage.cache_creation,
            cache_read: usage.cache_read,
        },
        cost_micros: wire.cost_micros,
        latency_seconds: wire.latency.map(seconds).unwrap_or_default(),
        num_turns: wire.num_turns,
        raw: json(&wire.raw_json, "the agent's result")?,
    })
}

/// A question.
pub(crate) fn session_question(wire: v1::SessionQuestion) -> Result<model::SessionQuestion> {
    Ok(model::SessionQuestion {
        id: wire.id,
        tool: wire.tool,
        input: json(&wire.input_json, "the tool's input")?.unwrap_or_default(),
        description: optional(wire.description),
        tool_use_id: optional(wire.tool_use_id),
        state: word(wire.state, "the question's state")?,
        ask_time: time(wire.ask_time),
        expire_time: time(wire.expire_time),
        verdict: Word::from_wire(wire.verdict)?,
        decided_by: optional(wire.decided_by),
    })
}

/// An event.
pub(crate) fn session_event(wire: v1::SessionEvent) -> Result<model::SessionEvent> {
    let data = RawValue::from_string(wire.data_json)
        .map_err(|error| Error::Protocol(format!("an event's data is no JSON: {error}")))?;
    Ok(model::SessionEvent {
        seq: wire.seq,
        kind: wire.r#type,
        message_id: optional(wire.message_id),
        time: time(wire.time),
        data,
    })
}

/// What a watch of events delivers; `None` for what this version does not know.
pub(crate) fn session_delivery(wire: v1::WatchEventsResponse) -> Result<Option<model::SessionDelivery>> {
    use v1::watch_events_response::Delivery;
    Ok(match wire.delivery {
        Some(Delivery::Event(event)) => Some(model::SessionDelivery::Event(session_event(event)?)),
        Some(Delivery::Compacted(gap)) => {
            Some(model::SessionDelivery::Compacted { from: gap.from_seq, to: gap.to_seq })
        }
        None => None,
    })
}

/// A part of an export; `None` for what this version does not know.
pub(crate) fn export_part(wire: v1::ExportSessionResponse) -> Result<Option<model::ExportPart>> {
    use v1::export_session_response::Part;
    Ok(match wire.part {
        Some(Part::Session(record)) => Some(model::ExportPart::Session(Box::new(session(record)?))),
        Some(Part::Event(event)) => Some(model::ExportPart::Event(session_event(event)?)),
        Some(Part::Transcript(piece)) => {
            Some(model::ExportPart::Transcript { path: piece.path, data: piece.data })
        }
        None => None,
    })
}

/// Figures.
pub(crate) fn session_statistics(wire: v1::SessionStatistics) -> model::SessionStatistics {
    let by_pattern = wire.by_pattern.into_iter().map(|(pattern, figures)| {
        let figures = model::PatternStatistics {
            count: figures.count,
            average_cost_usd: figures.average_cost_usd,
            average_tokens: figures.average_tokens,
            average_duration_seconds: figures.average_duration_millis / 1000.0,
        };
        (pattern, figures)
    });
    model::SessionStatistics {
        total_sessions: wire.total_sessions,
        active_sessions: wire.active_sessions,
        idle_sessions: wire.idle_sessions,
        completed_sessions: wire.completed_sessions,
        error_sessions: wire.error_sessions,
        terminated_sessions: wire.terminated_sessions,
        total_cost_micros: wire.total_cost_micros,
        total_tokens: wire.total_tokens,
        average_duration_seconds: wire.average_duration_millis / 1000.0,
        by_pattern: by_pattern.collect(),
    }
}
