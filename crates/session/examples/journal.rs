//! Measures how fast a store journals: events a second and the latency of commits, by events of one commit and by
//! sessions that write at the same time. Every commit has the agent's state too, as the server writes it.
//!
//!     cargo run --release -p hostel-session --example journal -- /var/tmp/journal.db [seconds of each]
//!     cargo run --release -p hostel-session --example journal -- postgres://user@host/database

use hostel_session::{
    AgentState, Commit, Environment, Event, EventKind, Limits, NewEvent, NewSession, Pattern, Session,
    SessionConfig, SessionId, SessionStatus, Store, StoreUrl, Usd, open_store,
};
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let url: StoreUrl = arguments.next().ok_or("which database?")?.parse()?;
    let time = Duration::from_secs(arguments.next().map_or(Ok(3), |seconds| seconds.parse())?);
    let store = open_store(&url).await?;
    println!("| sessions | events of a commit | events/s | commits/s | p50 ms | p99 ms |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for sessions in [1, 8, 32] {
        for events in [1, 10, 100] {
            let mut latencies = measure(&store, sessions, events, time).await?;
            latencies.sort_unstable();
            let at = |part: usize| {
                latencies.get(latencies.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1e3
            };
            let rate = latencies.len() as u128 * 1000 / time.as_millis().max(1);
            let all = rate * u128::from(events);
            println!("| {sessions} | {events} | {all} | {rate} | {:.2} | {:.2} |", at(50), at(99));
        }
    }
    store.close().await;
    Ok(())
}

async fn measure(
    store: &Arc<dyn Store>,
    sessions: usize,
    events: u64,
    time: Duration,
) -> Result<Vec<Duration>, Failure> {
    let mut writers = JoinSet::new();
    for _ in 0..sessions {
        let session = session();
        store.create(NewSession::of(session.clone())).await?;
        let taken = store.take(&session.id).await?;
        let store = Arc::clone(store);
        writers.spawn(async move {
            let mut latencies = Vec::new();
            let mut last = 0;
            let end = Instant::now() + time;
            while Instant::now() < end {
                let mut commit = Commit::new(taken.session.id.clone(), taken.generation);
                commit.events = (1..=events).map(|number| event(last + number)).collect();
                commit.agents =
                    vec![AgentState { driver: json!({ "consumed": last }), ..AgentState::main() }];
                let begun = Instant::now();
                store.commit(commit).await?;
                latencies.push(begun.elapsed());
                last += events;
            }
            Ok::<_, hostel_session::Error>((taken.session.id, latencies))
        });
    }
    let mut all = Vec::new();
    while let Some(joined) = writers.join_next().await {
        let (id, latencies) = joined??;
        all.extend(latencies);
        store.delete(&id).await?;
    }
    Ok(all)
}

/// A piece of an answer, as large as they usually are.
fn event(seq: u64) -> Arc<Event> {
    let data = json!({
        "conversationId": "main",
        "blockId": "msg_01XFDUDYJgAACzvnptvVoYEL-0",
        "index": 0,
        "kind": "text",
        "delta": "some twenty letters ",
    });
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
