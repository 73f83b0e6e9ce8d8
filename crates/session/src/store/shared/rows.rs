//! Rows as records, and records as rows.
#![expect(
    clippy::duplicate_mod,
    reason = "compiled for each database, whose types differ and whose SQL does not"
)]

use super::{Database, Query, Row};
use crate::error::{Error, Result};
use crate::event::{Event, EventKind, NewEvent};
use crate::id::SessionId;
use crate::message::Message;
use crate::question::Question;
use crate::session::{Environment, Limits, Session};
use crate::store::AgentState;
use crate::store::failure::failed;
use crate::store::values::{
    Json, Time, Words, dollars, from_word, plain, plain_option, plain_words, signed, unsigned, word,
};
use crate::usd::Usd;
use serde_json::value::RawValue;
use sqlx::Row as _;
use std::sync::{Arc, LazyLock};

const READ: &str = "read what is stored";

/// The columns of a session, in the order in which [`bind_session`] has their values.
const SESSION: &[&str] = &[
    "id",
    "session_id",
    "pattern",
    "status",
    "termination_reason",
    "reason_message",
    "environment_status",
    "environment_message",
    "sandbox_id",
    "environment_start",
    "environment_restarts",
    "active_turn",
    "conversation_id",
    "created_at",
    "started_at",
    "last_activity_at",
    "completed_at",
    "terminated_at",
    "total_cost",
    "agent_cost",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "num_turns",
    "tools_used",
    "max_idle_time_ms",
    "max_lifetime_ms",
    "max_budget_usd",
    "max_turns",
    "on_limit",
    "tags",
    "description",
    "user_id",
    "last_event",
    "config",
];

/// Amounts are decimals in PostgreSQL, and read as numbers.
const AMOUNTS: &[&str] = &["total_cost", "agent_cost", "max_budget_usd"];

/// The columns of a session to read.
pub(super) static SESSION_COLUMNS: LazyLock<String> = LazyLock::new(|| {
    let columns: Vec<String> = SESSION
        .iter()
        .map(|column| {
            if AMOUNTS.contains(column) {
                format!("CAST({column} AS DOUBLE PRECISION) AS {column}")
            } else {
                (*column).to_owned()
            }
        })
        .collect();
    columns.join(", ")
});

/// Inserts a session, unless there is one of that id.
pub(super) static INSERT_SESSION: LazyLock<String> = LazyLock::new(|| {
    let places: Vec<String> = (1..=SESSION.len()).map(|place| format!("${place}")).collect();
    format!(
        "INSERT INTO agent_sessions ({}, generation, commits) VALUES ({}, 0, 0) ON CONFLICT (id) DO NOTHING",
        SESSION.join(", "),
        places.join(", ")
    )
});

/// Updates a session where generation, last event and number of the commit are as the three values after it say.
pub(super) static UPDATE_SESSION: LazyLock<String> = LazyLock::new(|| {
    let sets: Vec<String> = SESSION
        .iter()
        .enumerate()
        .skip(1)
        .map(|(index, column)| format!("{column} = ${}", index + 1))
        .collect();
    let next = SESSION.len() + 1;
    let (generation, last, number) = (next, next + 1, next + 2);
    format!(
        "UPDATE agent_sessions SET {}, commits = COALESCE(${number}, commits)
         WHERE id = $1 AND generation = ${generation} AND last_event = ${last}
             AND (${number} IS NULL OR commits = ${number} - 1)",
        sets.join(", ")
    )
});

/// Gives a statement the values of [`SESSION`].
pub(super) fn bind_session<'q>(query: Query<'q>, session: &Session) -> Result<Query<'q>> {
    let environment = &session.environment;
    let limits = &session.limits;
    let time = |time: Option<jiff::Timestamp>| time.map(Time);
    Ok(query
        .bind(session.id.as_str().to_owned())
        .bind(plain(&session.session_id))
        .bind(session.pattern.as_str())
        .bind(session.status.as_str())
        .bind(session.reason.map(|reason| reason.as_str()))
        .bind(plain_option(session.reason_message.as_deref()))
        .bind(environment.status.as_str())
        .bind(plain_option(environment.message.as_deref()))
        .bind(plain_option(environment.sandbox_id.as_deref()))
        .bind(plain_option(environment.start.as_deref()))
        .bind(i64::from(environment.restarts))
        .bind(session.active_turn.as_ref().map(Json::of).transpose()?)
        .bind(session.conversation_id)
        .bind(Time(session.created_at))
        .bind(time(session.started_at))
        .bind(time(session.last_activity_at))
        .bind(time(session.completed_at))
        .bind(time(session.terminated_at))
        .bind(session.total_cost.dollars())
        .bind(session.agent_cost.dollars())
        .bind(signed(session.total_tokens))
        .bind(signed(session.input_tokens))
        .bind(signed(session.output_tokens))
        .bind(signed(session.cached_tokens))
        .bind(signed(session.num_turns))
        .bind(Words(plain_words(&session.tools_used)))
        .bind(limits.max_idle_time_ms.map(signed))
        .bind(limits.max_lifetime_ms.map(signed))
        .bind(limits.max_budget_usd.map(Usd::dollars))
        .bind(limits.max_turns.map(signed))
        .bind(word(&limits.on_limit)?)
        .bind(sqlx::types::Json(plain_words(&session.tags)))
        .bind(plain_option(session.description.as_deref()))
        .bind(plain_option(session.user_id.as_deref()))
        .bind(signed(session.last_event))
        .bind(Json::of(&session.config)?))
}

/// The session of a row with [`SESSION_COLUMNS`].
pub(super) fn session(row: &Row) -> Result<Session> {
    Ok(Session {
        id: SessionId::try_from(get::<String>(row, "id")?)?,
        session_id: get(row, "session_id")?,
        pattern: from_word(get(row, "pattern")?)?,
        status: from_word(get(row, "status")?)?,
        reason: get::<Option<String>>(row, "termination_reason")?.map(from_word).transpose()?,
        reason_message: get(row, "reason_message")?,
        environment: Environment {
            status: from_word(get(row, "environment_status")?)?,
            message: get(row, "environment_message")?,
            sandbox_id: get(row, "sandbox_id")?,
            start: get(row, "environment_start")?,
            restarts: u32::try_from(get::<i64>(row, "environment_restarts")?).unwrap_or(u32::MAX),
        },
        active_turn: json_option(row, "active_turn")?,
        conversation_id: get(row, "conversation_id")?,
        config: get::<Json>(row, "config")?.read()?,
        created_at: get::<Time>(row, "created_at")?.0,
        started_at: time_option(row, "started_at")?,
        last_activity_at: time_option(row, "last_activity_at")?,
        completed_at: time_option(row, "completed_at")?,
        terminated_at: time_option(row, "terminated_at")?,
        total_cost: dollars(get(row, "total_cost")?),
        agent_cost: dollars(get(row, "agent_cost")?),
        total_tokens: count(row, "total_tokens")?,
        input_tokens: count(row, "input_tokens")?,
        output_tokens: count(row, "output_tokens")?,
        cached_tokens: count(row, "cached_tokens")?,
        num_turns: count(row, "num_turns")?,
        tools_used: get::<Words>(row, "tools_used")?.0,
        limits: Limits {
            max_idle_time_ms: count_option(row, "max_idle_time_ms")?,
            max_lifetime_ms: count_option(row, "max_lifetime_ms")?,
            max_budget_usd: get::<Option<f64>>(row, "max_budget_usd")?.map(dollars),
            max_turns: count_option(row, "max_turns")?,
            on_limit: from_word(get(row, "on_limit")?)?,
        },
        tags: get::<sqlx::types::Json<Vec<String>>>(row, "tags")?.0,
        description: get(row, "description")?,
        user_id: get(row, "user_id")?,
        last_event: count(row, "last_event")?,
    })
}

/// The event of a row.
pub(super) fn event(row: &Row) -> Result<Event> {
    let kind: String = get(row, "type")?;
    let data: Json = get(row, "data")?;
    let wrong = |problem: String| Error::Store { action: READ, problem };
    let event = NewEvent {
        kind: EventKind::from_word(&kind).ok_or_else(|| wrong(format!("{kind:.40?} is no kind of event")))?,
        message_id: get::<Option<String>>(row, "message_id")?.map(Arc::from),
        data: RawValue::from_string(data.0).map(Arc::from).map_err(|error| wrong(error.to_string()))?,
    };
    Ok(Event::new(count(row, "seq")?, get::<Time>(row, "created_at")?.0, event))
}

/// The agent of a row.
pub(super) fn agent(row: &Row) -> Result<AgentState> {
    Ok(AgentState {
        name: get(row, "name")?,
        sandbox_id: get(row, "sandbox_id")?,
        process_id: get(row, "process_id")?,
        attempt: count(row, "attempt")?,
        input_offset: count(row, "input_offset")?,
        input: get(row, "input")?,
        driver: get::<Json>(row, "driver")?.read()?,
        journaled: count(row, "journaled")?,
    })
}

/// The message of a row.
pub(super) fn message(row: &Row) -> Result<Message> {
    Ok(Message {
        id: get(row, "id")?,
        idempotency_key: get(row, "idempotency_key")?,
        content: get::<Json>(row, "content")?.read()?,
        state: from_word(get(row, "state")?)?,
        seq: count(row, "seq")?,
        created_at: get::<Time>(row, "created_at")?.0,
        started_at: time_option(row, "started_at")?,
        ended_at: time_option(row, "ended_at")?,
        outcome: json_option(row, "outcome")?,
    })
}

/// The question of a row.
pub(super) fn question(row: &Row) -> Result<Question> {
    Ok(Question {
        id: get(row, "id")?,
        tool: get(row, "tool")?,
        input: get::<Json>(row, "input")?.read()?,
        description: get(row, "description")?,
        tool_use_id: get(row, "tool_use_id")?,
        state: from_word(get(row, "state")?)?,
        asked_at: get::<Time>(row, "asked_at")?.0,
        expires_at: get::<Time>(row, "expires_at")?.0,
        verdict: get::<Option<String>>(row, "verdict")?.map(from_word).transpose()?,
        decided_by: get(row, "decided_by")?,
    })
}

/// A value of a row.
pub(super) fn get<'r, T>(row: &'r Row, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, Database> + sqlx::Type<Database>,
{
    row.try_get(column).map_err(failed(READ))
}

/// A count of a row.
pub(super) fn count(row: &Row, column: &str) -> Result<u64> {
    get(row, column).map(unsigned)
}

fn count_option(row: &Row, column: &str) -> Result<Option<u64>> {
    Ok(get::<Option<i64>>(row, column)?.map(unsigned))
}

fn time_option(row: &Row, column: &str) -> Result<Option<jiff::Timestamp>> {
    Ok(get::<Option<Time>>(row, column)?.map(|time| time.0))
}

fn json_option<T: serde::de::DeserializeOwned>(row: &Row, column: &str) -> Result<Option<T>> {
    get::<Option<Json>>(row, column)?.map(|json| json.read()).transpose()
}
