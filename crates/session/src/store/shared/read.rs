//! What reads the database.
#![expect(
    clippy::duplicate_mod,
    reason = "compiled for each database, whose types differ and whose SQL does not"
)]

use super::rows::{self, get};
use super::{ANY_TAG, Connection, DURATION_MS, Query, Row};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::host::{ListSessions, Position, SessionPage, Start};
use crate::id::SessionId;
use crate::message::Message;
use crate::question::Question;
use crate::session::Session;
use crate::stats::Statistics;
use crate::store::failure::failed;
use crate::store::summary::{self, Group, Sums};
use crate::store::values::{Time, Words, from_word, plain, plain_words, signed};
use crate::store::{AgentState, MAX_TRANSCRIPT_FILES, TranscriptFile};
use futures::TryStreamExt as _;
use sqlx::{AssertSqlSafe, query};
use std::sync::{Arc, LazyLock};

const ACTION: &str = "read a session";
/// The most events in one answer.
const MAX_EVENTS: usize = 10_000;
/// Data of events after which an answer ends, whatever was asked for.
const MAX_EVENT_BYTES: usize = 16 << 20;
/// The most of transcripts that is given in one answer.
const MAX_TRANSCRIPT_BYTES: u64 = 512 << 20;
/// The most sessions on a page.
const MAX_PAGE: u64 = 1000;

/// A session.
pub(super) async fn session(connection: &mut Connection, id: &SessionId) -> Result<Session> {
    static SQL: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {} FROM agent_sessions WHERE id = $1", *rows::SESSION_COLUMNS));
    let row = optional(query(SQL.as_str()).bind(id.as_str()), connection).await?;
    row.as_ref().map(rows::session).unwrap_or_else(|| Err(Error::NotFound { id: id.clone() }))
}

/// The agents of a session.
pub(super) async fn agents(connection: &mut Connection, id: &SessionId) -> Result<Vec<AgentState>> {
    let sql = "SELECT * FROM session_agents WHERE session_id = $1 ORDER BY name";
    all(query(sql).bind(id.as_str()), connection, rows::agent).await
}

/// Messages that wait or run, in order.
pub(super) async fn queue(connection: &mut Connection, id: &SessionId) -> Result<Vec<Message>> {
    let sql = "SELECT * FROM session_messages
               WHERE session_id = $1 AND state IN ('queued', 'running') ORDER BY seq, id";
    all(query(sql).bind(id.as_str()), connection, rows::message).await
}

/// Questions that wait, oldest first.
pub(super) async fn pending_questions(connection: &mut Connection, id: &SessionId) -> Result<Vec<Question>> {
    let sql = "SELECT * FROM session_questions
               WHERE session_id = $1 AND state = 'pending' ORDER BY asked_at, id";
    all(query(sql).bind(id.as_str()), connection, rows::question).await
}

/// Sessions that have not ended, or have a sandbox.
pub(super) async fn unfinished(connection: &mut Connection) -> Result<Vec<SessionId>> {
    let sql = "SELECT id FROM agent_sessions WHERE status NOT IN ('completed', 'terminated')
               UNION SELECT id FROM agent_sessions
                   WHERE environment_status NOT IN ('inactive', 'terminated')
               UNION SELECT session_id FROM session_agents WHERE sandbox_id IS NOT NULL";
    all(query(sql), connection, |row| SessionId::try_from(get::<String>(row, "id")?)).await
}

/// The newest session of that id, or with a conversation of that name.
pub(super) async fn find(connection: &mut Connection, name: &str) -> Result<Option<SessionId>> {
    let sql = "SELECT id FROM agent_sessions WHERE id = $1 OR session_id = $1
               ORDER BY CASE WHEN id = $1 THEN 0 ELSE 1 END, created_at DESC LIMIT 1";
    let found =
        all(query(sql).bind(plain(name)), connection, |row| SessionId::try_from(get::<String>(row, "id")?))
            .await?;
    Ok(found.into_iter().next())
}

/// A page of sessions.
pub(super) async fn list(connection: &mut Connection, list: &ListSessions) -> Result<SessionPage> {
    let page_size = list.page_size.clamp(1, MAX_PAGE);
    let (condition, filters) = conditions(list);
    let count = format!("SELECT COUNT(*) AS total FROM agent_sessions WHERE {condition}");
    let total = filters.bind(query(AssertSqlSafe(count)));
    let total = total.fetch_one(&mut *connection).await.map_err(failed("list sessions"))?;
    let (page, after) = match &list.start {
        Start::Page(page) => ((*page).max(1), None),
        Start::After(position) => (1, Some(position)),
    };
    let next = filters.count() + 1;
    let behind =
        after.map(|_| format!(" AND (created_at, id) < (${}, ${})", next + 2, next + 3)).unwrap_or_default();
    let sql = format!(
        "SELECT {} FROM agent_sessions WHERE {condition}{behind}
         ORDER BY created_at DESC, id DESC LIMIT ${next} OFFSET ${}",
        *rows::SESSION_COLUMNS,
        next + 1
    );
    let offset = (page - 1).saturating_mul(page_size);
    // One more than a page, to know of the next.
    let mut sql = filters.bind(query(AssertSqlSafe(sql))).bind(signed(page_size + 1)).bind(signed(offset));
    if let Some(Position { created_at, id }) = after {
        sql = sql.bind(Time(*created_at)).bind(id.as_str());
    }
    let sessions = all(sql, connection, rows::session).await?;
    Ok(SessionPage::new(sessions, page, page_size, rows::count(&total, "total")?))
}

/// What a list is filtered by.
struct Filters<'a> {
    texts: Vec<&'a str>,
    tags: &'a [String],
}

impl Filters<'_> {
    fn count(&self) -> usize {
        self.texts.len() + usize::from(!self.tags.is_empty())
    }

    fn bind<'q>(&self, mut query: Query<'q>) -> Query<'q> {
        for text in &self.texts {
            query = query.bind(plain(text));
        }
        if self.tags.is_empty() { query } else { query.bind(Words(plain_words(self.tags))) }
    }
}

fn conditions(list: &ListSessions) -> (String, Filters<'_>) {
    let mut filters = Filters { texts: Vec::new(), tags: &list.tags };
    let mut conditions = vec!["1 = 1".to_owned()];
    let columns = [
        ("pattern", list.pattern.map(|pattern| pattern.as_str())),
        ("status", list.status.map(|status| status.as_str())),
        ("user_id", list.user_id.as_deref()),
    ];
    for (column, value) in columns {
        if let Some(value) = value {
            filters.texts.push(value);
            conditions.push(format!("{column} = ${}", filters.texts.len()));
        }
    }
    if !list.tags.is_empty() {
        conditions.push(ANY_TAG.replace("TAGS", &format!("${}", filters.count())));
    }
    (conditions.join(" AND "), filters)
}

/// Events after a number. They end early where they get many bytes; with at least one, if there is one.
pub(super) async fn events(
    connection: &mut Connection,
    id: &SessionId,
    after: u64,
    limit: usize,
) -> Result<Vec<Arc<Event>>> {
    let sql = "SELECT seq, type, message_id, created_at, data FROM session_events
               WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    let limit = limit.min(MAX_EVENTS);
    let mut rows =
        query(sql).bind(id.as_str()).bind(signed(after)).bind(signed(limit as u64)).fetch(&mut *connection);
    let mut events = Vec::new();
    let mut bytes = 0;
    while bytes < MAX_EVENT_BYTES
        && let Some(row) = rows.try_next().await.map_err(failed("read events"))?
    {
        let event = rows::event(&row)?;
        bytes += event.data.get().len();
        events.push(Arc::new(event));
    }
    Ok(events)
}

/// A message.
pub(super) async fn message(connection: &mut Connection, id: &SessionId, message: &str) -> Result<Message> {
    let sql = "SELECT * FROM session_messages WHERE session_id = $1 AND id = $2";
    let row = optional(query(sql).bind(id.as_str()).bind(plain(message)), connection).await?;
    row.as_ref().map(rows::message).unwrap_or_else(|| Err(no_such("message", message)))
}

/// The message with an idempotency key.
pub(super) async fn message_by_key(
    connection: &mut Connection,
    id: &SessionId,
    key: &str,
) -> Result<Option<Message>> {
    let sql = "SELECT * FROM session_messages WHERE session_id = $1 AND idempotency_key = $2";
    let row = optional(query(sql).bind(id.as_str()).bind(plain(key)), connection).await?;
    row.as_ref().map(rows::message).transpose()
}

/// A question.
pub(super) async fn question(
    connection: &mut Connection,
    id: &SessionId,
    question: &str,
) -> Result<Question> {
    let sql = "SELECT * FROM session_questions WHERE session_id = $1 AND id = $2";
    let row = optional(query(sql).bind(id.as_str()).bind(plain(question)), connection).await?;
    row.as_ref().map(rows::question).unwrap_or_else(|| Err(no_such("question", question)))
}

fn no_such(kind: &'static str, name: &str) -> Error {
    Error::NoSuch { kind, name: name.to_owned() }
}

/// Whether a session has a transcript.
pub(super) async fn has_transcripts(connection: &mut Connection, id: &SessionId) -> Result<bool> {
    let sql = "SELECT piece FROM session_transcripts WHERE session_id = $1 LIMIT 1";
    optional(query(sql).bind(id.as_str()), connection).await.map(|row| row.is_some())
}

/// The files that a session has transcripts of.
pub(super) async fn transcript_paths(connection: &mut Connection, id: &SessionId) -> Result<Vec<String>> {
    let sql = "SELECT DISTINCT path FROM session_transcripts WHERE session_id = $1 ORDER BY path LIMIT $2";
    let limit = signed(MAX_TRANSCRIPT_FILES as u64);
    all(query(sql).bind(id.as_str()).bind(limit), connection, |row| get(row, "path")).await
}

/// The transcript in one file.
pub(super) async fn transcript(connection: &mut Connection, id: &SessionId, path: &str) -> Result<String> {
    let sql = "SELECT lines FROM session_transcripts WHERE session_id = $1 AND path = $2 ORDER BY piece";
    let mut pieces = query(sql).bind(id.as_str()).bind(plain(path)).fetch(&mut *connection);
    let mut content = String::new();
    while let Some(row) = pieces.try_next().await.map_err(failed("read a transcript"))? {
        content.push_str(get(&row, "lines")?);
        if u64::try_from(content.len()).unwrap_or(u64::MAX) > MAX_TRANSCRIPT_BYTES {
            let problem = format!("{path} has more than the {MAX_TRANSCRIPT_BYTES} bytes that are given");
            return Err(Error::invalid("transcript", problem));
        }
    }
    Ok(content)
}

/// The transcripts of a session, by path.
pub(super) async fn transcripts(connection: &mut Connection, id: &SessionId) -> Result<Vec<TranscriptFile>> {
    let size = "SELECT CAST(COALESCE(SUM(LENGTH(lines)), 0) AS BIGINT) AS size FROM session_transcripts
                WHERE session_id = $1";
    let size = query(size).bind(id.as_str()).fetch_one(&mut *connection).await.map_err(failed(ACTION))?;
    let size = rows::count(&size, "size")?;
    // Asking again would change nothing: the store works.
    if size > MAX_TRANSCRIPT_BYTES {
        let problem = format!("there are {size} characters, at most {MAX_TRANSCRIPT_BYTES} are given");
        return Err(Error::invalid("transcripts", problem));
    }
    let sql = "SELECT path, lines FROM session_transcripts WHERE session_id = $1 ORDER BY piece";
    let mut pieces = query(sql).bind(id.as_str()).fetch(&mut *connection);
    let mut files = std::collections::BTreeMap::<String, String>::new();
    while let Some(row) = pieces.try_next().await.map_err(failed("read transcripts"))? {
        files.entry(get(&row, "path")?).or_default().push_str(get(&row, "lines")?);
    }
    Ok(files.into_iter().map(|(path, content)| TranscriptFile { path, content }).collect())
}

/// Figures over all sessions.
pub(super) async fn statistics(connection: &mut Connection) -> Result<Statistics> {
    let sql = format!(
        "SELECT pattern, status, COUNT(*) AS sessions,
             CAST(SUM(total_cost) AS DOUBLE PRECISION) AS cost,
             SUM(CAST(total_tokens AS DOUBLE PRECISION)) AS tokens,
             CAST(COALESCE(SUM({DURATION_MS}), 0) AS DOUBLE PRECISION) AS duration,
             COUNT({DURATION_MS}) AS durations
         FROM agent_sessions GROUP BY pattern, status"
    );
    let groups = all(query(AssertSqlSafe(sql)), connection, group).await?;
    Ok(summary::of(&groups))
}

fn group(row: &Row) -> Result<Group> {
    Ok(Group {
        pattern: from_word(get(row, "pattern")?)?,
        status: from_word(get(row, "status")?)?,
        sums: Sums {
            sessions: rows::count(row, "sessions")?,
            cost: get(row, "cost")?,
            tokens: get(row, "tokens")?,
            duration: get(row, "duration")?,
            durations: rows::count(row, "durations")?,
        },
    })
}

/// Whether it can be read.
pub(super) async fn check(connection: &mut Connection) -> Result<()> {
    let sql = "SELECT checked_at FROM session_store_checks";
    optional(query(sql), connection).await.map(|_| ())
}

async fn optional(query: Query<'_>, connection: &mut Connection) -> Result<Option<Row>> {
    query.fetch_optional(connection).await.map_err(failed(ACTION))
}

async fn all<T>(
    query: Query<'_>,
    connection: &mut Connection,
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    let rows = query.fetch_all(connection).await.map_err(failed(ACTION))?;
    rows.iter().map(read).collect()
}
