//! How fast the store journals.

use crate::measure::Samples;
use crate::options::Scale;
use crate::report::{Bound, Section, Unit};
use anyhow::{Context as _, Result};
use hostel_session::{
    AgentState, Commit, Environment, Event, EventKind, Limits, NewEvent, NewSession, Pattern, Session,
    SessionConfig, SessionId, SessionStatus, Store, StoreUrl, Usd, open_store,
};
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const SESSIONS: usize = 8;
/// Events of one commit.
const EVENTS: u64 = 10;

pub(super) fn heading() -> Section {
    Section::new(
        "sessions_journal",
        "Sessions: journaling",
        "8 sessions write to SQLite at the same time, each commits of 10 pieces of an answer with the agent's state, as \
         the session server does. A commit is on disk when its call is over, and the next follows at once.",
    )
}

pub(super) async fn measure(scale: &Scale, section: &mut Section) -> Result<()> {
    let place = tempfile::Builder::new().prefix("hostel-bench-journal.").tempdir().context("a directory")?;
    let url: StoreUrl = format!("sqlite://{}", place.path().join("journal.db").display()).parse()?;
    let store = open_store(&url).await.context("open the store")?;
    let (mut rates, mut commits) = (Samples::new()?, Samples::new()?);
    for _ in 0..scale.slices {
        let start = Instant::now();
        let taken = slice(&store, scale.slice).await?;
        let milliseconds = u64::try_from(start.elapsed().as_millis())?.max(1);
        let events = u64::try_from(taken.len())? * EVENTS;
        rates.add(events * 1_000_000 / milliseconds)?;
        taken.into_iter().try_for_each(|took| commits.add_duration(took))?;
    }
    store.close().await;
    section.row("events", "events", rates.summary(Unit::MilliPerSecond));
    section.row("commit", "a commit of 10", commits.summary(Unit::Nanoseconds));
    if let Some(rate) = section.median("events") {
        section.expect("journaled on SQLite", rate / 1e3, Bound::AtLeast, 5_000.0, " events/s");
    }
    Ok(())
}

/// All sessions for a while, and what each commit took.
async fn slice(store: &Arc<dyn Store>, time: Duration) -> Result<Vec<Duration>> {
    let mut writers = JoinSet::new();
    for _ in 0..SESSIONS {
        let session = session();
        store.create(NewSession::of(session.clone())).await.context("make a session")?;
        writers.spawn(write(store.clone(), session.id, time));
    }
    let mut all = Vec::new();
    while let Some(joined) = writers.join_next().await {
        all.extend(joined.context("a writer")??);
    }
    Ok(all)
}

async fn write(store: Arc<dyn Store>, id: SessionId, time: Duration) -> Result<Vec<Duration>> {
    let taken = store.take(&id).await.context("take the session")?;
    let (mut latencies, mut last) = (Vec::new(), 0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let mut commit = Commit::new(id.clone(), taken.generation);
        commit.events = (1..=EVENTS).map(|number| event(last + number)).collect();
        commit.agents = vec![AgentState { driver: json!({ "consumed": last }), ..AgentState::main() }];
        let begun = Instant::now();
        store.commit(commit).await.context("commit")?;
        latencies.push(begun.elapsed());
        last += EVENTS;
    }
    Ok(latencies)
}

/// A piece of an answer, as large as they usually are.
fn event(seq: u64) -> Arc<Event> {
    let data = json!({ "conversationId": "main", "blockId": "msg_01XFDUDYJgAACzvnptvVoYEL-0", "index": 0,
        "kind": "text", "delta": "some twenty letters " });
    let data = RawValue::from_string(data.to_string()).unwrap_or_default();
    let message_id = Some(Arc::from("5e0cf2f8-1f49-4a0b-9a0e-3b8f9a4f7c11"));
    let new = NewEvent { kind: EventKind::BlockDelta, message_id, data: Arc::from(data) };
    Arc::new(Event::new(seq, jiff::Timestamp::now(), new))
}

fn session() -> Session {
    Session {
        id: SessionId::generate(),
        session_id: String::new(),
        pattern: Pattern::LongRunning,
        status: SessionStatus::Active,
        reason: None,
        reason_message: None,
        environment: Environment::default(),
        active_turn: None,
        conversation_id: None,
        config: SessionConfig::default(),
        created_at: jiff::Timestamp::now(),
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
