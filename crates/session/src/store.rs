//! Where sessions are kept.

mod failure;
mod migrate;
mod numbers;
mod open;
mod postgres;
mod sqlite;
mod summary;
mod values;
mod work;

pub use open::{StoreUrl, open};

use crate::error::Result;
use crate::event::Event;
use crate::host::{ListSessions, SessionPage};
use crate::id::SessionId;
use crate::message::Message;
use crate::question::Question;
use crate::session::Session;
use crate::stats::Statistics;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The most files that transcripts of one session are in: those of its conversation and of its subagents.
pub(crate) const MAX_TRANSCRIPT_FILES: usize = 10_000;

/// Where sessions are kept. What a call changed is on disk when it returns, all of it or nothing.
///
/// Every call has a deadline of some seconds. After [`Error::Store`](crate::Error::Store) it is not known whether a
/// change was made: the connection may have broken with the answer on its way. A numbered [`Commit`] may then be tried
/// again; otherwise who calls [`take`](Self::take) sees what is there and goes on from that. Times are kept to the microsecond, and U+0000 in text that is not JSON
/// becomes U+FFFD.
#[async_trait]
pub trait Store: Send + Sync {
    /// What tells it from other stores, whose sessions may have the same ids: lowercase letters and digits.
    fn name(&self) -> &str;

    /// Keeps a new session with all that it begins with. With a key that made a session before with the same body,
    /// that session is the answer and nothing is kept.
    ///
    /// # Errors
    /// [`Exists`](crate::Error::Exists), [`KeyReused`](crate::Error::KeyReused), [`Store`](crate::Error::Store).
    async fn create(&self, new: NewSession) -> Result<Option<Session>>;

    /// A session.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound), [`Store`](crate::Error::Store).
    async fn get(&self, id: &SessionId) -> Result<Session>;

    /// A session with all that is needed to go on with it, and the right to write it: whoever had that before is
    /// [`Fenced`](crate::Error::Fenced) from now on.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound), [`Store`](crate::Error::Store).
    async fn take(&self, id: &SessionId) -> Result<StoredSession>;

    /// Sessions that need somebody to look after them: not ended, or ended and with a sandbox left.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn unfinished(&self) -> Result<Vec<SessionId>>;

    /// The session that has that id, or whose agent calls the conversation so; of several the newest.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn find(&self, name: &str) -> Result<Option<SessionId>>;

    /// Some of all sessions, newest first.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn list(&self, list: &ListSessions) -> Result<SessionPage>;

    /// Keeps what happened. Numbers of events follow the last one, and a record's `last_event` is the last of them.
    ///
    /// # Errors
    /// [`Fenced`](crate::Error::Fenced), [`NotFound`](crate::Error::NotFound), [`Store`](crate::Error::Store), also
    /// for wrong numbers.
    async fn commit(&self, commit: Commit) -> Result<()>;

    /// Events after a number, oldest first, at most `limit` and 10,000. There may be fewer although more are there,
    /// where they are large; none only where there are none.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn events(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Arc<Event>>>;

    /// The messages of a session that wait or run, in order; none of one that is not there.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn queue(&self, id: &SessionId) -> Result<Vec<Message>>;

    /// The questions of a session that wait, oldest first; none of one that is not there.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn pending_questions(&self, id: &SessionId) -> Result<Vec<Question>>;

    /// A message by its id.
    ///
    /// # Errors
    /// [`NoSuch`](crate::Error::NoSuch), [`Store`](crate::Error::Store).
    async fn message(&self, id: &SessionId, message: &str) -> Result<Message>;

    /// The message that an idempotency key sent before.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn message_by_key(&self, id: &SessionId, key: &str) -> Result<Option<Message>>;

    /// A question by its id, also when it is answered.
    ///
    /// # Errors
    /// [`NoSuch`](crate::Error::NoSuch), [`Store`](crate::Error::Store).
    async fn question(&self, id: &SessionId, question: &str) -> Result<Question>;

    /// Whether there is any transcript of a session.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn has_transcripts(&self, id: &SessionId) -> Result<bool>;

    /// The files that a session has transcripts of, in order of their paths; at most 10 000 of them.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn transcript_paths(&self, id: &SessionId) -> Result<Vec<String>>;

    /// The transcript in one file; empty where there is none.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) where it has more than 512 MiB, [`Store`](crate::Error::Store).
    async fn transcript(&self, id: &SessionId, path: &str) -> Result<String>;

    /// The transcripts of a session, by file.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) where all together have more than 512 MiB,
    /// [`Store`](crate::Error::Store).
    async fn transcripts(&self, id: &SessionId) -> Result<Vec<TranscriptFile>>;

    /// Figures over all sessions.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn statistics(&self) -> Result<Statistics>;

    /// Forgets a session with all that belongs to it. Whether there was one.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn delete(&self, id: &SessionId) -> Result<bool>;

    /// Whether it can be read and written now.
    ///
    /// # Errors
    /// [`Store`](crate::Error::Store).
    async fn check(&self) -> Result<()>;

    /// Writes what is left to write and lets go of the database.
    async fn close(&self);
}

/// A session to keep.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its record.
    pub session: Session,
    /// Its first events, numbered from 1.
    pub events: Vec<Arc<Event>>,
    /// The conversation that it goes on with.
    pub transcript: Vec<TranscriptPiece>,
    /// What makes creating it repeatable, and the hash of what of the request must then be the same.
    pub key: Option<(String, [u8; 32])>,
}

impl NewSession {
    /// One that nothing happened in.
    #[must_use]
    pub fn of(session: Session) -> Self {
        Self { session, events: Vec::new(), transcript: Vec::new(), key: None }
    }

    /// One that is made once, however often it is asked for with that key.
    #[must_use]
    pub fn keyed(self, key: impl Into<String>, hash: [u8; 32]) -> Self {
        Self { key: Some((key.into(), hash)), ..self }
    }
}

/// A session with all that is needed to go on with it.
#[derive(Debug, Clone)]
pub struct StoredSession {
    /// Its record.
    pub session: Session,
    /// Who may write it: goes into every [`Commit`].
    pub generation: u64,
    /// Its agents.
    pub agents: Vec<AgentState>,
    /// Messages that wait or run, in order.
    pub queue: Vec<Message>,
    /// Questions that wait.
    pub questions: Vec<Question>,
}

/// What must be known to go on with a running agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentState {
    /// Which agent of the session; `main` where there is one.
    pub name: String,
    /// The sandbox that it is in, or that is being made for it.
    pub sandbox_id: Option<String>,
    /// The process; none before it is started and after its end.
    pub process_id: Option<String>,
    /// How many sandboxes and processes it had: goes into what makes creating them repeatable.
    pub attempt: u64,
    /// The offset of the first byte of `input` in the process's stdin.
    pub input_offset: u64,
    /// What was given for stdin and is not known to have arrived.
    pub input: Vec<u8>,
    /// The driver, as it saved itself: holds how far stdout is dealt with.
    pub driver: Value,
    /// Bytes of events and transcripts that were written for it, but for those that compaction took away.
    pub journaled: u64,
}

impl AgentState {
    /// The one agent of a session that has none yet.
    #[must_use]
    pub fn main() -> Self {
        Self {
            name: "main".to_owned(),
            sandbox_id: None,
            process_id: None,
            attempt: 0,
            input_offset: 0,
            input: Vec::new(),
            driver: Value::Null,
            journaled: 0,
        }
    }
}

/// What happened in a session at one go.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Which session.
    pub id: SessionId,
    /// As [`StoredSession::generation`].
    pub generation: u64,
    /// Which commit of this owner it is: 1 is the first after [`take`](Store::take). The last one may come again,
    /// when it is not known whether it was kept: it is kept once, and succeeds. `None` is never known again.
    pub number: Option<u64>,
    /// The record as it is now; `None` where it did not change.
    pub session: Option<Session>,
    /// New events, with numbers that follow the last ones.
    pub events: Vec<Arc<Event>>,
    /// Agents that changed.
    pub agents: Vec<AgentState>,
    /// Messages that are new or changed.
    pub messages: Vec<Message>,
    /// Questions that are new or changed.
    pub questions: Vec<Question>,
    /// Lines for transcripts.
    pub transcript: Vec<TranscriptPiece>,
    /// Deltas that need not be kept any more.
    pub compact: Vec<Compaction>,
}

impl Commit {
    /// One that changes nothing.
    #[must_use]
    pub fn new(id: SessionId, generation: u64) -> Self {
        Self {
            id,
            generation,
            number: None,
            session: None,
            events: Vec::new(),
            agents: Vec::new(),
            messages: Vec::new(),
            questions: Vec::new(),
            transcript: Vec::new(),
            compact: Vec::new(),
        }
    }
}

/// Deltas of one block that is complete, whose numbers follow each other: `block:delta` events, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// Lines of a transcript, as the agent wrote them.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscriptPiece {
    /// The file inside the sandbox.
    pub path: String,
    /// The lines, each ended by `\n`.
    pub lines: String,
}

/// A transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptFile {
    /// The file inside the sandbox.
    pub path: String,
    /// All of it.
    pub content: String,
}
