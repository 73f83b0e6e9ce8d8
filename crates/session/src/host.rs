//! Where sessions live, for everything above.

use crate::change::Change;
use crate::config::SessionConfig;
use crate::error::Result;
use crate::event::Event;
use crate::id::SessionId;
use crate::message::Message;
use crate::question::{Question, QuestionAnswer};
use crate::session::{Limits, OnLimit, Session};
use crate::stats::Statistics;
use crate::status::{EndReason, Pattern, SessionStatus};
use async_trait::async_trait;
use hostel_agent::{Content, PermissionMode};
use hostel_client::Client;
use hostel_client::domain::SandboxId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Where sessions live. Everything is safe to cancel: what was accepted goes on.
#[async_trait]
pub trait SessionHost: Send + Sync {
    /// Makes a session. Its sandbox is made with the first message, or at once where `config` or the pattern wants.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid), [`Unsupported`](crate::Error::Unsupported),
    /// [`Exists`](crate::Error::Exists), [`KeyReused`](crate::Error::KeyReused), [`Busy`](crate::Error::Busy).
    async fn create(&self, create: CreateSession) -> Result<Created>;

    /// A session, loaded or not.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn get(&self, id: &SessionId) -> Result<Session>;

    /// Some of all sessions, loaded or not, newest first.
    ///
    /// # Errors
    /// Those of the store.
    async fn list(&self, list: &ListSessions) -> Result<SessionPage>;

    /// Figures over all sessions.
    ///
    /// # Errors
    /// Those of the store.
    async fn statistics(&self) -> Result<Statistics>;

    /// Changes what may be changed.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound), [`Invalid`](crate::Error::Invalid).
    async fn update(&self, id: &SessionId, update: UpdateSession) -> Result<Session>;

    /// Ends a session where it has not ended, and forgets it with its journal and blobs. Where these cannot be removed
    /// the record stays, so that it can be tried again.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound), [`Store`](crate::Error::Store), [`Blob`](crate::Error::Blob).
    async fn delete(&self, id: &SessionId) -> Result<()>;

    /// Takes a session into memory: its agent is attached to where it runs.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn load(&self, id: &SessionId) -> Result<Session>;

    /// Lets a session out of memory. Its sandbox is taken away; its record stays.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn unload(&self, id: &SessionId) -> Result<()>;

    /// Whether a session is in memory.
    fn is_loaded(&self, id: &SessionId) -> bool;

    /// The sessions in memory.
    fn loaded(&self) -> Vec<SessionId>;

    /// Accepts a message for a turn of its own, after those before it. Durable when it returns.
    ///
    /// # Errors
    /// [`NotActive`](crate::Error::NotActive), [`LimitReached`](crate::Error::LimitReached),
    /// [`Busy`](crate::Error::Busy) where too many wait, [`KeyReused`](crate::Error::KeyReused).
    async fn send(&self, id: &SessionId, message: SendMessage) -> Result<Accepted>;

    /// The messages of a session that are waiting or running, in order.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn queue(&self, id: &SessionId) -> Result<Vec<Message>>;

    /// One message, also when it is done.
    ///
    /// # Errors
    /// [`NoSuch`](crate::Error::NoSuch).
    async fn message(&self, id: &SessionId, message: &str) -> Result<Message>;

    /// Takes a waiting message back.
    ///
    /// # Errors
    /// [`NoSuch`](crate::Error::NoSuch) where it does not wait any more.
    async fn cancel(&self, id: &SessionId, message: &str) -> Result<Message>;

    /// Asks the agent to stop the turn that runs. Returns when it has, or `wait` is over. Nothing happens without one.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn interrupt(&self, id: &SessionId, wait: Duration) -> Result<Session>;

    /// Interrupts, and where the agent has not stopped after `grace`, ends its process with everything it started.
    /// Returns when nothing of the turn runs.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn stop(&self, id: &SessionId, grace: Duration) -> Result<Session>;

    /// Ends the agent's process with everything it started, at once. Returns when nothing of it runs.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn kill(&self, id: &SessionId) -> Result<Session>;

    /// Stops the turn, takes the sandbox away, and ends the session with that reason.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound), [`Invalid`](crate::Error::Invalid) for [`EndReason::Completed`], which is
    /// not anybody's to say.
    async fn terminate(&self, id: &SessionId, reason: EndReason) -> Result<Session>;

    /// The questions that wait for an answer, oldest first.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn questions(&self, id: &SessionId) -> Result<Vec<Question>>;

    /// Answers a question; the first answer counts.
    ///
    /// # Errors
    /// [`NoSuch`](crate::Error::NoSuch), [`Answered`](crate::Error::Answered).
    async fn answer(&self, id: &SessionId, question: &str, answer: QuestionAnswer) -> Result<Question>;

    /// Events of a session after a number, oldest first, at most `limit` and 10,000.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn events(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Arc<Event>>>;

    /// The events of a session after a number, and then those that come, until it is deleted.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound), [`Invalid`](crate::Error::Invalid) for a number that is not yet.
    async fn subscribe(&self, id: &SessionId, after: u64) -> Result<Box<dyn SubscriptionSource>>;

    /// How many subscriptions a session has.
    fn subscribers(&self, id: &SessionId) -> usize;

    /// The sandbox of a session and the daemon that has it, for files and commands.
    ///
    /// # Errors
    /// [`NoEnvironment`](crate::Error::NoEnvironment) where there is none now.
    async fn environment(&self, id: &SessionId) -> Result<(Client, SandboxId)>;

    /// The transcript files of a session: path inside the sandbox, and content.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound).
    async fn transcripts(&self, id: &SessionId) -> Result<Vec<(String, String)>>;

    /// How it is.
    async fn health(&self) -> Health;

    /// Lets go of every session. Their agents go on, and the next host picks them up.
    async fn shutdown(&self);
}

/// What session to make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSession {
    /// The id to have; made by us where absent.
    pub id: Option<SessionId>,
    /// How it uses sandboxes; `ephemeral` where absent.
    pub pattern: Option<Pattern>,
    /// How the agent is to be.
    pub config: SessionConfig,
    /// A number of the caller's.
    pub conversation_id: Option<i64>,
    /// See [`Limits`].
    pub max_idle_time_ms: Option<u64>,
    /// See [`Limits`].
    pub max_lifetime_ms: Option<u64>,
    /// See [`Limits`].
    pub max_budget_usd: Option<crate::usd::Usd>,
    /// See [`Limits`].
    pub max_turns: Option<u64>,
    /// See [`Limits`].
    pub on_limit: Option<OnLimit>,
    /// Words to find it by, at most 32 of 64 characters.
    pub tags: Vec<String>,
    /// What it is for, at most 4096 bytes.
    pub description: Option<String>,
    /// Whose it is, at most 255 bytes.
    pub user_id: Option<String>,
    /// Makes the call repeatable. Comes from a header, not from the body.
    #[serde(skip)]
    #[schema(ignore)]
    pub idempotency_key: Option<String>,
}

/// A session that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The session.
    pub session: Session,
    /// Whether an earlier call with the same key made it.
    pub replayed: bool,
}

/// Which sessions to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSessions {
    /// Only this pattern.
    pub pattern: Option<Pattern>,
    /// Only this status.
    pub status: Option<SessionStatus>,
    /// Only this user's.
    pub user_id: Option<String>,
    /// Only with any of these tags. Empty: all.
    pub tags: Vec<String>,
    /// Where it begins.
    pub start: Start,
    /// How many on a page, 1 to 1000.
    pub page_size: u64,
}

impl Default for ListSessions {
    fn default() -> Self {
        let start = Start::default();
        Self { pattern: None, status: None, user_id: None, tags: Vec::new(), start, page_size: 50 }
    }
}

/// Where a page of sessions begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At a page by its number, from 1. What it holds shifts when sessions come or go.
    Page(u64),
    /// Behind a session, which may be gone. Whoever goes on from there sees every session that stays, and none twice.
    After(Position),
}

impl Default for Start {
    fn default() -> Self {
        Self::Page(1)
    }
}

/// The place of a session in listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// When it was created.
    pub created_at: Timestamp,
    /// Its id, which decides between sessions of one moment.
    pub id: SessionId,
}

/// Some sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPage {
    /// They, newest first.
    pub sessions: Vec<Session>,
    /// How many there are on all pages.
    pub total: u64,
    /// Which page this is, from 1.
    pub page: u64,
    /// How many were asked for.
    pub page_size: u64,
    /// Behind which one the next page begins; `None` on the last.
    #[serde(skip)]
    pub next: Option<Position>,
}

impl SessionPage {
    /// A page of `page_size`, of which one session more was looked for.
    pub(crate) fn new(mut sessions: Vec<Session>, page: u64, page_size: u64, total: u64) -> Self {
        let more = sessions.len() as u64 > page_size;
        if more {
            sessions.pop();
        }
        let position = |last: &Session| Position { created_at: last.created_at, id: last.id.clone() };
        let next = sessions.last().filter(|_| more).map(position);
        Self { sessions, total, page, page_size, next }
    }
}

/// What to change of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateSession {
    /// Tags instead of those it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// What it is for; `null` takes it away.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<String>)]
    pub description: Change<String>,
    /// Whose it is; `null` takes it away.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<String>)]
    pub user_id: Change<String>,
    /// A number of the caller's; `null` takes it away.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<i64>)]
    pub conversation_id: Change<i64>,
    /// See [`Limits`]; `null` is no limit.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<u64>)]
    pub max_idle_time_ms: Change<u64>,
    /// See [`Limits`]; `null` is no limit.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<u64>)]
    pub max_lifetime_ms: Change<u64>,
    /// See [`Limits`]; `null` is no limit.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<crate::usd::Usd>)]
    pub max_budget_usd: Change<crate::usd::Usd>,
    /// See [`Limits`]; `null` is no limit.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<u64>)]
    pub max_turns: Change<u64>,
    /// The model from the next turn on; `null` is the agent's default.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<String>)]
    pub model: Change<String>,
    /// What the agent may do without asking from now on; `null` is what it may where nobody says.
    #[serde(skip_serializing_if = "Change::is_keep")]
    #[schema(value_type = Option<String>)]
    pub permission_mode: Change<PermissionMode>,
}

/// A message to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendMessage {
    /// What it says.
    pub content: Vec<Content>,
    /// Makes the call repeatable, 1 to 255 printable ASCII characters.
    pub idempotency_key: Option<String>,
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The message.
    pub message: Message,
    /// How many are before it.
    pub position: usize,
    /// Whether an earlier call with the same key sent it.
    pub replayed: bool,
}

/// Where the events of a subscription come from. There is no buffer for each reader: who is slow reads from the
/// journal what it did not read in time.
#[async_trait]
pub trait SubscriptionSource: Send {
    /// What comes next; `None` when the session was deleted or the host is going away. Cancel safe.
    ///
    /// # Errors
    /// Those of the store. The next call tries again.
    async fn next(&mut self) -> Result<Option<Delivery>>;
}

/// What a subscription delivers.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// An event.
    Event(Arc<Event>),
    /// These numbers are no longer there: deltas of blocks that are complete, whose whole text comes in the block.
    Compacted {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
}

/// How a host is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether sessions can be made and work.
    pub healthy: bool,
    /// What is wrong, in sentences; also what sessions can do without for a while.
    pub problems: Vec<String>,
    /// Sessions in memory.
    pub loaded_sessions: usize,
    /// Turns that run.
    pub running_turns: usize,
}

impl CreateSession {
    /// The bounds that it asks for.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_idle_time_ms: self.max_idle_time_ms,
            max_lifetime_ms: self.max_lifetime_ms,
            max_budget_usd: self.max_budget_usd.or(self.config.max_budget_usd),
            max_turns: self.max_turns.or(self.config.max_turns.map(u64::from)),
            on_limit: self.on_limit.unwrap_or_default(),
        }
    }
}
