//! What goes out.

use super::words::Word as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hostel_agent::Content;
use hostel_proto::v1;
use hostel_session::{
    ActiveTurn, Environment, Event, Limits, Message, MessageOutcome, Question, Session, Statistics,
};
use jiff::Timestamp;
use tonic::Status;

fn time(time: Timestamp) -> prost_types::Timestamp {
    // A timestamp before 1970 has a negative part of a second; the wire wants it positive.
    let nanos = i64::from(time.subsec_nanosecond());
    let borrow = i64::from(nanos < 0);
    let nanos = i32::try_from(nanos + borrow * 1_000_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: time.as_second() - borrow, nanos }
}

fn millis(millis: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or_default(),
    }
}

/// JSON text of ours. What serde derives for our own types does not fail.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
fn json(value: &impl serde::Serialize) -> Result<String, Status> {
    serde_json::to_string(value).map_err(|error| Status::internal(format!("cannot write JSON: {error}")))
}

/// A session.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(crate) fn session(session: &Session, loaded: bool) -> Result<v1::Session, Status> {
    Ok(v1::Session {
        id: session.id.to_string(),
        agent_session_id: session.session_id.clone(),
        pattern: session.pattern.to_wire(),
        status: session.status.to_wire(),
        reason: session.reason.map_or(0, |reason| reason.to_wire()),
        reason_message: session.reason_message.clone().unwrap_or_default(),
        environment: Some(environment(&session.environment)),
        active_turn: session.active_turn.as_ref().map(turn),
        conversation_id: session.conversation_id,
        config_json: json(&session.config)?,
        create_time: Some(time(session.created_at)),
        start_time: session.started_at.map(time),
        last_activity_time: session.last_activity_at.map(time),
        complete_time: session.completed_at.map(time),
        terminate_time: session.terminated_at.map(time),
        total_cost_micros: session.total_cost.micros(),
        agent_cost_micros: session.agent_cost.micros(),
        total_tokens: session.total_tokens,
        input_tokens: session.input_tokens,
        output_tokens: session.output_tokens,
        cached_tokens: session.cached_tokens,
        num_turns: session.num_turns,
        tools_used: session.tools_used.clone(),
        limits: Some(limits(&session.limits)),
        tags: session.tags.clone(),
        description: session.description.clone().unwrap_or_default(),
        user_id: session.user_id.clone().unwrap_or_default(),
        last_event: session.last_event,
        loaded,
    })
}

fn environment(environment: &Environment) -> v1::SessionEnvironment {
    v1::SessionEnvironment {
        status: environment.status.to_wire(),
        message: environment.message.clone().unwrap_or_default(),
        sandbox_id: environment.sandbox_id.clone().unwrap_or_default(),
        start: environment.start.clone().unwrap_or_default(),
        restarts: environment.restarts,
    }
}

fn turn(turn: &ActiveTurn) -> v1::ActiveTurn {
    v1::ActiveTurn {
        message_id: turn.message_id.clone(),
        start_time: Some(time(turn.started_at)),
        phase: turn.phase.to_wire(),
        current_tool: turn.current_tool.clone().unwrap_or_default(),
    }
}

fn limits(limits: &Limits) -> v1::SessionLimits {
    v1::SessionLimits {
        max_idle_time: limits.max_idle_time_ms.map(millis),
        max_lifetime: limits.max_lifetime_ms.map(millis),
        max_budget_micros: limits.max_budget_usd.map(hostel_session::Usd::micros),
        max_turns: limits.max_turns,
        on_limit: limits.on_limit.to_wire(),
    }
}

/// A message.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(crate) fn message(message: &Message) -> Result<v1::SessionMessage, Status> {
    Ok(v1::SessionMessage {
        id: message.id.clone(),
        request_id: message.idempotency_key.clone().unwrap_or_default(),
        content: message.content.iter().map(content).collect(),
        state: message.state.to_wire(),
        seq: message.seq,
        create_time: Some(time(message.created_at)),
        start_time: message.started_at.map(time),
        end_time: message.ended_at.map(time),
        outcome: message.outcome.as_ref().map(outcome).transpose()?,
    })
}

fn content(content: &Content) -> v1::MessageContent {
    use v1::message_content::Part;
    let part = match content {
        Content::Text { text } => Part::Text(text.clone()),
        Content::Image { media_type, data } => Part::Image(v1::MessageImage {
            media_type: media_type.clone(),
            // What came over REST and is no base64 has no bytes; the agent was not given it either.
            data: BASE64_STANDARD.decode(data).unwrap_or_default().into(),
        }),
    };
    v1::MessageContent { part: Some(part) }
}

#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
fn outcome(outcome: &MessageOutcome) -> Result<v1::MessageOutcome, Status> {
    let usage = outcome.usage;
    Ok(v1::MessageOutcome {
        is_error: outcome.is_error,
        result: outcome.result.clone(),
        text: outcome.text.clone().unwrap_or_default(),
        usage: Some(v1::TurnUsage {
            input: usage.input,
            output: usage.output,
            cache_creation: usage.cache_creation,
            cache_read: usage.cache_read,
        }),
        cost_micros: outcome.cost.micros(),
        latency: Some(millis(outcome.latency)),
        num_turns: outcome.num_turns,
        raw_json: outcome.raw.as_ref().map(json).transpose()?.unwrap_or_default(),
    })
}

/// A question.
pub(crate) fn question(question: &Question) -> v1::SessionQuestion {
    v1::SessionQuestion {
        id: question.id.clone(),
        tool: question.tool.clone(),
        input_json: question.input.to_string(),
        description: question.description.clone().unwrap_or_default(),
        tool_use_id: question.tool_use_id.clone().unwrap_or_default(),
        state: question.state.to_wire(),
        ask_time: Some(time(question.asked_at)),
        expire_time: Some(time(question.expires_at)),
        verdict: question.verdict.map_or(0, |verdict| verdict.to_wire()),
        decided_by: question.decided_by.clone().unwrap_or_default(),
    }
}

/// An event.
pub(crate) fn event(event: &Event) -> v1::SessionEvent {
    v1::SessionEvent {
        seq: event.seq,
        r#type: event.kind.as_str().to_owned(),
        message_id: event.message_id.as_deref().unwrap_or_default().to_owned(),
        time: Some(time(event.time)),
        data_json: event.data.get().to_owned(),
    }
}

/// Figures.
pub(crate) fn statistics(statistics: Statistics) -> v1::SessionStatistics {
    let by_pattern = statistics.by_pattern.into_iter().map(|(pattern, figures)| {
        let figures = v1::SessionPatternStatistics {
            count: figures.count,
            average_cost_usd: figures.avg_cost,
            average_tokens: figures.avg_tokens,
            average_duration_millis: figures.avg_duration,
        };
        (pattern, figures)
    });
    v1::SessionStatistics {
        total_sessions: statistics.total_sessions,
        active_sessions: statistics.active_sessions,
        idle_sessions: statistics.idle_sessions,
        completed_sessions: statistics.completed_sessions,
        error_sessions: statistics.error_sessions,
        terminated_sessions: statistics.terminated_sessions,
        total_cost_micros: statistics.total_cost.micros(),
        total_tokens: statistics.total_tokens,
        average_duration_millis: statistics.avg_session_duration,
        by_pattern: by_pattern.collect(),
    }
}
