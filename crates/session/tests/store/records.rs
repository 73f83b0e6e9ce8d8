//! Records to keep.

use hostel_session::agent::{Content, Usage};
use hostel_session::{
    AgentState, Commit, Environment, Event, EventKind, Limits, Message, MessageOutcome, MessageState,
    NewEvent, Pattern, Question, QuestionState, Session, SessionConfig, SessionId, SessionStatus,
    StoredSession, Usd,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// A moment, in seconds after an arbitrary one.
pub(crate) fn at(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

pub(crate) fn id(name: &str) -> SessionId {
    name.parse().unwrap()
}

pub(crate) fn session(name: &str) -> Session {
    Session {
        id: id(name),
        session_id: String::new(),
        pattern: Pattern::LongRunning,
        status: SessionStatus::Initializing,
        reason: None,
        reason_message: None,
        environment: Environment::default(),
        active_turn: None,
        conversation_id: None,
        config: SessionConfig::default(),
        created_at: at(0),
        started_at: None,
        last_activity_at: None,
        completed_at: None,
        terminated_at: None,
        total_cost: Usd::default(),
        agent_cost: Usd::default(),
        total_tokens: 0,
        input_tokens: 0,
        output_tokens: 0,
        cached_tokens: 0,
        num_turns: 0,
        tools_used: Vec::new(),
        limits: Limits::default(),
        tags: Vec::new(),
        description: None,
        user_id: None,
        last_event: 0,
    }
}

pub(crate) fn event(seq: u64, kind: EventKind, data: &Value) -> Arc<Event> {
    raw_event(seq, kind, seq.is_multiple_of(2).then_some("m1"), &data.to_string())
}

/// An event with data that is written like this.
pub(crate) fn raw_event(seq: u64, kind: EventKind, message: Option<&str>, data: &str) -> Arc<Event> {
    let data = Arc::from(RawValue::from_string(data.to_owned()).unwrap());
    let event = NewEvent { kind, message_id: message.map(Arc::from), data };
    Arc::new(Event::new(seq, at(seq.cast_signed()), event))
}

/// Events with these numbers.
pub(crate) fn events(numbers: std::ops::RangeInclusive<u64>) -> Vec<Arc<Event>> {
    numbers
        .map(|seq| event(seq, EventKind::Log, &json!({"level": "info", "message": format!("event {seq}")})))
        .collect()
}

/// Events as JSON, which can be compared.
pub(crate) fn seen(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| serde_json::to_string(event).unwrap()).collect()
}

/// Their numbers.
pub(crate) fn numbers(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

pub(crate) fn message(name: &str, state: MessageState, seq: u64) -> Message {
    Message {
        id: name.to_owned(),
        idempotency_key: Some(format!("key of {name}")),
        content: vec![Content::Text { text: format!("do {name}") }],
        state,
        seq,
        created_at: at(1),
        started_at: None,
        ended_at: None,
        outcome: None,
    }
}

pub(crate) fn outcome() -> MessageOutcome {
    MessageOutcome {
        is_error: true,
        result: "error_max_turns".to_owned(),
        text: Some("that was it".to_owned()),
        usage: Usage { input: 1, output: 2, cache_creation: 3, cache_read: 4 },
        cost: Usd::from_micros(123_457),
        latency: 1234,
        num_turns: 3,
        raw: Some(json!({"type": "result"})),
    }
}

pub(crate) fn question(name: &str, state: QuestionState) -> Question {
    Question {
        id: name.to_owned(),
        tool: "Bash".to_owned(),
        input: json!({"command": "ls"}),
        description: Some("lists".to_owned()),
        tool_use_id: None,
        state,
        asked_at: at(2),
        expires_at: at(302),
        verdict: None,
        decided_by: None,
    }
}

pub(crate) fn agent(name: &str, attempt: u64) -> AgentState {
    AgentState {
        name: name.to_owned(),
        sandbox_id: Some("box".to_owned()),
        process_id: None,
        attempt,
        input_offset: 17 * attempt,
        input: vec![0, 255, b'\n'],
        driver: json!({"consumed": attempt}),
        journaled: 1 << 40,
    }
}

/// A commit of whoever took the session.
pub(crate) fn commit(taken: &StoredSession, events: Vec<Arc<Event>>) -> Commit {
    Commit { events, ..Commit::new(taken.session.id.clone(), taken.generation) }
}
