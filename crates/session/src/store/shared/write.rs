//! What changes the database. Every function leaves it to its caller to keep what it wrote or not.
#![expect(
    clippy::duplicate_mod,
    reason = "compiled for each database, whose types differ and whose SQL does not"
)]

use super::rows::{self, get};
use super::{Connection, Query};
use crate::error::{Error, Result};
use crate::event::{Event, EventKind};
use crate::id::SessionId;
use crate::message::Message;
use crate::question::Question;
use crate::store::failure::failed;
use crate::store::values::{Json, Time, plain, plain_option, signed, word};
use crate::store::work::{Done, Work};
use crate::store::{AgentState, Commit, NewSession, StoredSession, TranscriptPiece, numbers};
use sqlx::query;
use std::sync::{Arc, LazyLock};

const ACTION: &str = "write to a session";
/// Rows that are deleted at one go: a session may have millions, others wait for the database meanwhile, and a
/// statement has half a minute.
const MOST_PRUNED: i64 = 5_000;

/// What the store is called: some name that it keeps from its first opening on.
pub(super) async fn name(connection: &mut Connection) -> Result<String> {
    let named = query("INSERT INTO session_store (id, name) VALUES (1, $1) ON CONFLICT (id) DO NOTHING")
        .bind(uuid::Uuid::new_v4().simple().to_string());
    run(named, connection).await?;
    let row = query("SELECT name FROM session_store WHERE id = 1")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed("open the database"))?;
    get(&row, "name")
}

/// Does a piece of work.
pub(super) async fn apply(connection: &mut Connection, work: &Work) -> Result<Done> {
    match work {
        Work::Create(new) => create(connection, new).await,
        Work::Take(id) => take(connection, id).await,
        Work::Commit(commit) => {
            keep(connection, commit).await?;
            Ok(Done::Written)
        }
        Work::Prune(id) => prune(connection, id).await,
        Work::Delete(id) => delete(connection, id).await,
        Work::Check => check(connection).await,
    }
}

async fn create(connection: &mut Connection, new: &NewSession) -> Result<Done> {
    let NewSession { session, events, transcript, key } = new;
    numbers::check_first(session, events)?;
    if let Some((key, hash)) = key
        && let Some(before) = claim(connection, key, hash, &session.id).await?
    {
        return Ok(Done::Created(Some(Box::new(before))));
    }
    let inserted = rows::bind_session(query(rows::INSERT_SESSION.as_str()), session)?;
    if run(inserted, connection).await? == 0 {
        return Err(Error::Exists { id: session.id.clone() });
    }
    insert_events(connection, &session.id, events).await?;
    for piece in transcript {
        append_transcript(connection, &session.id, piece).await?;
    }
    Ok(Done::Created(None))
}

/// Claims an idempotency key, unless a session has it: that session.
async fn claim(
    connection: &mut Connection,
    key: &str,
    hash: &[u8; 32],
    id: &SessionId,
) -> Result<Option<crate::session::Session>> {
    let claimed = query(
        "INSERT INTO session_requests (idempotency_key, hash, session_id, created_at)
         VALUES ($1, $2, $3, $4) ON CONFLICT (idempotency_key) DO NOTHING",
    )
    .bind(plain(key))
    .bind(hash.to_vec())
    .bind(id.as_str())
    .bind(Time(jiff::Timestamp::now()));
    if run(claimed, connection).await? == 1 {
        return Ok(None);
    }
    let row = query("SELECT hash, session_id FROM session_requests WHERE idempotency_key = $1")
        .bind(plain(key))
        .fetch_one(&mut *connection)
        .await
        .map_err(failed(ACTION))?;
    if get::<Vec<u8>>(&row, "hash")? != hash {
        return Err(Error::KeyReused { key: key.to_owned() });
    }
    let before = SessionId::try_from(get::<String>(&row, "session_id")?)?;
    super::read::session(connection, &before).await.map(Some)
}

async fn take(connection: &mut Connection, id: &SessionId) -> Result<Done> {
    static TAKE: LazyLock<String> = LazyLock::new(|| {
        format!(
            "UPDATE agent_sessions SET generation = generation + 1, commits = 0 WHERE id = $1 RETURNING generation, {}",
            *rows::SESSION_COLUMNS
        )
    });
    // All rows are asked for, although there is one at most: SQLite is done with the statement only after them.
    let row = query(TAKE.as_str())
        .bind(id.as_str())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("take a session"))?
        .pop()
        .ok_or_else(|| Error::NotFound { id: id.clone() })?;
    Ok(Done::Taken(Box::new(StoredSession {
        session: rows::session(&row)?,
        generation: rows::count(&row, "generation")?,
        agents: super::read::agents(connection, id).await?,
        queue: super::read::queue(connection, id).await?,
        questions: super::read::pending_questions(connection, id).await?,
    })))
}

async fn prune(connection: &mut Connection, id: &SessionId) -> Result<Done> {
    let mut removed = 0;
    for some in [
        "DELETE FROM session_events WHERE session_id = $1 AND seq IN
            (SELECT seq FROM session_events WHERE session_id = $1 ORDER BY seq LIMIT $2)",
        "DELETE FROM session_transcripts WHERE session_id = $1 AND piece IN
            (SELECT piece FROM session_transcripts WHERE session_id = $1 ORDER BY piece LIMIT $2)",
    ] {
        removed += run(query(some).bind(id.as_str()).bind(MOST_PRUNED), connection).await?;
    }
    Ok(Done::Deleted(removed > 0))
}

async fn delete(connection: &mut Connection, id: &SessionId) -> Result<Done> {
    let deleted = query("DELETE FROM agent_sessions WHERE id = $1").bind(id.as_str());
    Ok(Done::Deleted(run(deleted, connection).await? == 1))
}

async fn check(connection: &mut Connection) -> Result<Done> {
    let checked = query(
        "INSERT INTO session_store_checks (id, checked_at) VALUES (1, $1)
         ON CONFLICT (id) DO UPDATE SET checked_at = excluded.checked_at",
    )
    .bind(Time(jiff::Timestamp::now()));
    run(checked, connection).await?;
    Ok(Done::Written)
}

async fn keep(connection: &mut Connection, commit: &Commit) -> Result<()> {
    let before = numbers::check_next(commit)?;
    if !update_session(connection, commit, before).await? {
        return Ok(());
    }
    let events: Vec<_> = commit.events.iter().filter(|event| !compacted(commit, event)).cloned().collect();
    insert_events(connection, &commit.id, &events).await?;
    for agent in &commit.agents {
        keep_agent(connection, &commit.id, agent).await?;
    }
    for message in &commit.messages {
        keep_message(connection, &commit.id, message).await?;
    }
    for question in &commit.questions {
        keep_question(connection, &commit.id, question).await?;
    }
    for piece in &commit.transcript {
        append_transcript(connection, &commit.id, piece).await?;
    }
    for range in &commit.compact {
        let compacted = query(
            "DELETE FROM session_events
             WHERE session_id = $1 AND seq BETWEEN $2 AND $3 AND type = 'block:delta'",
        )
        .bind(commit.id.as_str())
        .bind(signed(range.from))
        .bind(signed(range.to));
        run(compacted, connection).await?;
    }
    Ok(())
}

/// Whether an event need not be kept at all, because this very commit compacts it away.
fn compacted(commit: &Commit, event: &Event) -> bool {
    event.kind == EventKind::BlockDelta
        && commit.compact.iter().any(|range| (range.from..=range.to).contains(&event.seq))
}

/// Moves the session on from event `before`, where it is there and the commit's own to write. Not so where this very
/// commit has moved it on before.
async fn update_session(connection: &mut Connection, commit: &Commit, before: Option<u64>) -> Result<bool> {
    let generation = signed(commit.generation);
    let number = commit.number.map(signed);
    let update = match (&commit.session, before) {
        (Some(session), Some(before)) => {
            if session.id != commit.id {
                let problem = format!("a commit to {} has the record of {}", commit.id, session.id);
                return Err(numbers::wrong(problem));
            }
            rows::bind_session(query(rows::UPDATE_SESSION.as_str()), session)?
                .bind(generation)
                .bind(signed(before))
                .bind(number)
        }
        // Without a record and events nothing changes: the row is locked, and checked.
        _ => query(
            "UPDATE agent_sessions SET last_event = last_event + $3, commits = COALESCE($5, commits)
             WHERE id = $1 AND generation = $2 AND ($4 IS NULL OR last_event = $4)
                 AND ($5 IS NULL OR commits = $5 - 1)",
        )
        .bind(commit.id.as_str())
        .bind(generation)
        .bind(signed(commit.events.len() as u64))
        .bind(before.map(signed))
        .bind(number),
    };
    if run(update, connection).await? == 1 {
        return Ok(true);
    }
    refused(connection, commit, before).await.map(|()| false)
}

/// Why a session could not be moved on; nothing where it was by this very commit.
async fn refused(connection: &mut Connection, commit: &Commit, before: Option<u64>) -> Result<()> {
    let row = query("SELECT generation, last_event, commits FROM agent_sessions WHERE id = $1")
        .bind(commit.id.as_str())
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed(ACTION))?;
    let Some(row) = row else { return Err(Error::NotFound { id: commit.id.clone() }) };
    if rows::count(&row, "generation")? != commit.generation {
        return Err(Error::Fenced);
    }
    let commits = rows::count(&row, "commits")?;
    match commit.number {
        Some(number) if number == commits => return Ok(()),
        Some(number) if number != commits + 1 => {
            return Err(numbers::wrong(format!("this is commit {number}, the last one is {commits}")));
        }
        _ => {}
    }
    let last = rows::count(&row, "last_event")?;
    let before = before.unwrap_or_default();
    Err(numbers::wrong(format!("this commit follows event {before}, the last one is {last}")))
}

/// How many events go into one statement: as many as there are of the first, then of the next. Few sizes, so that
/// every statement is prepared once.
const ROWS: [usize; 4] = [64, 8, 2, 1];

fn insert_sql(rows: usize) -> &'static str {
    static SQL: LazyLock<[String; ROWS.len()]> = LazyLock::new(|| ROWS.map(insert_of));
    let place = ROWS.iter().position(|size| *size == rows).unwrap_or(ROWS.len() - 1);
    SQL[place].as_str()
}

fn insert_of(rows: usize) -> String {
    // $1 is the session, which all have.
    let row = |row: usize| {
        let first = 2 + row * 5;
        format!("($1, ${first}, ${}, ${}, ${}, ${})", first + 1, first + 2, first + 3, first + 4)
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO session_events (session_id, seq, type, message_id, created_at, data) VALUES {}",
        rows.join(", ")
    )
}

async fn insert_events(connection: &mut Connection, id: &SessionId, events: &[Arc<Event>]) -> Result<()> {
    let mut rest = events;
    for size in ROWS {
        while let Some((now, later)) = rest.split_at_checked(size) {
            let mut insert = query(insert_sql(size)).bind(id.as_str());
            for event in now {
                insert = insert
                    .bind(signed(event.seq))
                    .bind(event.kind.as_str())
                    .bind(plain_option(event.message_id.as_deref()))
                    .bind(Time(event.time))
                    .bind(Json(event.data.get().to_owned()));
            }
            run(insert, connection).await?;
            rest = later;
        }
    }
    Ok(())
}

async fn keep_agent(connection: &mut Connection, id: &SessionId, agent: &AgentState) -> Result<()> {
    let kept = query(
        "INSERT INTO session_agents
             (session_id, name, sandbox_id, process_id, attempt, input_offset, input, driver, journaled)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (session_id, name) DO UPDATE SET
             sandbox_id = excluded.sandbox_id, process_id = excluded.process_id, attempt = excluded.attempt,
             input_offset = excluded.input_offset, input = excluded.input, driver = excluded.driver,
             journaled = excluded.journaled",
    )
    .bind(id.as_str())
    .bind(plain(&agent.name))
    .bind(plain_option(agent.sandbox_id.as_deref()))
    .bind(plain_option(agent.process_id.as_deref()))
    .bind(signed(agent.attempt))
    .bind(signed(agent.input_offset))
    .bind(agent.input.clone())
    .bind(Json::of(&agent.driver)?)
    .bind(signed(agent.journaled));
    run(kept, connection).await.map(|_| ())
}

async fn keep_message(connection: &mut Connection, id: &SessionId, message: &Message) -> Result<()> {
    // What it says never changes.
    let kept = query(
        "INSERT INTO session_messages
             (session_id, id, idempotency_key, state, seq, created_at, started_at, ended_at, outcome, content)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (session_id, id) DO UPDATE SET
             state = excluded.state, seq = excluded.seq, started_at = excluded.started_at,
             ended_at = excluded.ended_at, outcome = excluded.outcome",
    )
    .bind(id.as_str())
    .bind(plain(&message.id))
    .bind(plain_option(message.idempotency_key.as_deref()))
    .bind(word(&message.state)?)
    .bind(signed(message.seq))
    .bind(Time(message.created_at))
    .bind(message.started_at.map(Time))
    .bind(message.ended_at.map(Time))
    .bind(message.outcome.as_ref().map(Json::of).transpose()?)
    .bind(Json::of(&message.content)?);
    run(kept, connection).await.map(|_| ())
}

async fn keep_question(connection: &mut Connection, id: &SessionId, question: &Question) -> Result<()> {
    // An agent may use an id again: what is kept is what was asked last.
    let kept = query(
        "INSERT INTO session_questions
             (session_id, id, tool, input, description, tool_use_id, state, asked_at, expires_at, verdict,
              decided_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (session_id, id) DO UPDATE SET
             tool = excluded.tool, input = excluded.input, description = excluded.description,
             tool_use_id = excluded.tool_use_id, state = excluded.state, asked_at = excluded.asked_at,
             expires_at = excluded.expires_at, verdict = excluded.verdict, decided_by = excluded.decided_by",
    )
    .bind(id.as_str())
    .bind(plain(&question.id))
    .bind(plain(&question.tool))
    .bind(Json::of(&question.input)?)
    .bind(plain_option(question.description.as_deref()))
    .bind(plain_option(question.tool_use_id.as_deref()))
    .bind(word(&question.state)?)
    .bind(Time(question.asked_at))
    .bind(Time(question.expires_at))
    .bind(question.verdict.as_ref().map(word).transpose()?)
    .bind(plain_option(question.decided_by.as_deref()));
    run(kept, connection).await.map(|_| ())
}

async fn append_transcript(
    connection: &mut Connection,
    id: &SessionId,
    piece: &TranscriptPiece,
) -> Result<()> {
    let kept = query(
        "INSERT INTO session_transcripts (session_id, piece, path, lines)
         SELECT $1, COALESCE(MAX(piece), 0) + 1, $2, $3 FROM session_transcripts WHERE session_id = $1",
    )
    .bind(id.as_str())
    .bind(plain(&piece.path))
    .bind(plain(&piece.lines));
    run(kept, connection).await.map(|_| ())
}

/// Runs a statement. How many rows it changed.
async fn run(query: Query<'_>, connection: &mut Connection) -> Result<u64> {
    query.execute(connection).await.map(|done| done.rows_affected()).map_err(failed(ACTION))
}
