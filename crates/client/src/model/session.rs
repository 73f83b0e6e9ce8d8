//! Sessions, their messages, questions and events.

mod words;

pub use words::{
    EndReason, EnvironmentStatus, LimitAction, MessageState, QuestionState, SessionPattern, SessionStatus,
    TurnPhase, Verdict,
};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// A conversation with an agent in a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Session {
    /// Its name.
    pub id: String,
    /// The agent's own name for the conversation, as soon as it is known.
    pub agent_session_id: Option<String>,
    /// How it uses sandboxes.
    pub pattern: SessionPattern,
    /// What it is to its users.
    pub status: SessionStatus,
    /// Why it ended, is in error or is paused.
    pub reason: Option<EndReason>,
    /// The same in a sentence.
    pub reason_message: Option<String>,
    /// Its sandbox.
    pub environment: SessionEnvironment,
    /// The turn that runs.
    pub active_turn: Option<ActiveTurn>,
    /// A number of the caller's.
    pub conversation_id: Option<i64>,
    /// How the agent is to be: the `config` of the REST API, in its spelling.
    pub config: Value,
    /// When it was created.
    pub create_time: Option<Timestamp>,
    /// When its first turn began.
    pub start_time: Option<Timestamp>,
    /// When something last happened.
    pub last_activity_time: Option<Timestamp>,
    /// When it did what it was for.
    pub complete_time: Option<Timestamp>,
    /// When it was ended.
    pub terminate_time: Option<Timestamp>,
    /// What it spent, in millionths of a US dollar.
    pub total_cost_micros: u64,
    /// What the agent estimates that it spent, in millionths of a US dollar.
    pub agent_cost_micros: u64,
    /// Tokens read and written, without those of caches.
    pub total_tokens: u64,
    /// Of these, read.
    pub input_tokens: u64,
    /// Of these, written.
    pub output_tokens: u64,
    /// Tokens read from and put into caches.
    pub cached_tokens: u64,
    /// How often the model was asked.
    pub num_turns: u64,
    /// Names of the tools that were used, sorted.
    pub tools_used: Vec<String>,
    /// Its bounds.
    pub limits: SessionLimits,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whose it is.
    pub user_id: Option<String>,
    /// The number of the last event of its journal; 0 before the first.
    pub last_event: u64,
    /// Whether the server has it in memory.
    pub loaded: bool,
}

impl Session {
    /// Whether it takes no messages any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status, SessionStatus::Completed | SessionStatus::Terminated)
    }

    /// A text of its configuration, `model` for example.
    #[must_use]
    pub fn configured(&self, key: &str) -> Option<&str> {
        self.config.get(key).and_then(Value::as_str)
    }
}

/// The sandbox of a session and the agent in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionEnvironment {
    /// What is with it.
    pub status: EnvironmentStatus,
    /// What is being done, or went wrong.
    pub message: Option<String>,
    /// The sandbox.
    pub sandbox_id: Option<String>,
    /// `warm` where it was claimed from a pool, `cold` where it was made.
    pub start: Option<String>,
    /// How often the agent was started again.
    pub restarts: u32,
}

/// A turn that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActiveTurn {
    /// The message that it answers.
    pub message_id: String,
    /// When it began.
    pub start_time: Option<Timestamp>,
    /// Where it is.
    pub phase: TurnPhase,
    /// The tool that runs.
    pub current_tool: Option<String>,
}

/// Bounds of a session; what is absent is not bounded, in a creation the server's default, in an update as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SessionLimits {
    /// Time without a turn.
    #[serde(rename = "max_idle_seconds", serialize_with = "seconds")]
    pub max_idle_time: Option<Duration>,
    /// Time from its first turn on.
    #[serde(rename = "max_lifetime_seconds", serialize_with = "seconds")]
    pub max_lifetime: Option<Duration>,
    /// What it may spend, in millionths of a US dollar.
    pub max_budget_micros: Option<u64>,
    /// How often it may ask the model.
    pub max_turns: Option<u64>,
    /// What happens when one is reached. The server's default where absent; an update cannot change it.
    pub on_limit: Option<LimitAction>,
}

fn seconds<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(serializer)
}

/// A message of a user.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionMessage {
    /// Its id.
    pub id: String,
    /// What made sending it repeatable.
    pub request_id: Option<String>,
    /// What it says.
    pub content: Vec<MessageContent>,
    /// Where it is.
    pub state: MessageState,
    /// The number of the event that accepted it. What comes of it has higher ones.
    pub seq: u64,
    /// When it was accepted.
    pub create_time: Option<Timestamp>,
    /// When its turn began.
    pub start_time: Option<Timestamp>,
    /// When its turn ended.
    pub end_time: Option<Timestamp>,
    /// What came of it.
    pub outcome: Option<MessageOutcome>,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessageContent {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
        media_type: String,
        /// The file. In JSON how many bytes it has.
        #[serde(rename = "size_bytes", serialize_with = "length")]
        data: Bytes,
    },
}

fn length<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    data.len().serialize(serializer)
}

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageOutcome {
    /// Whether it failed.
    pub is_error: bool,
    /// `success`, `error_…`, `interrupted`, `stopped`, `killed`, and other words of the server.
    pub result: String,
    /// The agent's last words, or what went wrong.
    pub text: Option<String>,
    /// What was used, as the agent tells.
    pub usage: TurnUsage,
    /// What it cost, in millionths of a US dollar.
    pub cost_micros: u64,
    /// Seconds from acceptance to end.
    pub latency_seconds: f64,
    /// How often the model was asked.
    pub num_turns: u32,
    /// The agent's own result.
    pub raw: Option<Value>,
}

/// What a turn used of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TurnUsage {
    /// Tokens read that were in no cache.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
    /// Tokens put into a cache.
    pub cache_creation: u64,
    /// Tokens read from a cache.
    pub cache_read: u64,
}

/// A question of the agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionQuestion {
    /// To answer with.
    pub id: String,
    /// The tool that it wants to use.
    pub tool: String,
    /// What it wants to do with it.
    pub input: Value,
    /// What it is about, in a few words.
    pub description: Option<String>,
    /// The block of the call.
    pub tool_use_id: Option<String>,
    /// Where it is.
    pub state: QuestionState,
    /// When it was asked.
    pub ask_time: Option<Timestamp>,
    /// When it is denied unless somebody answers.
    pub expire_time: Option<Timestamp>,
    /// What was decided.
    pub verdict: Option<Verdict>,
    /// Who decided.
    pub decided_by: Option<String>,
}

/// Some events of a session.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// They, oldest first.
    pub events: Vec<SessionEvent>,
    /// What to ask after for those that follow; the same as was asked for where there are no more now.
    pub next: u64,
}

/// An event of a session's journal.
#[derive(Debug, Clone, Serialize)]
pub struct SessionEvent {
    /// Its number in the session, from 1.
    pub seq: u64,
    /// What kind: `block:delta` for example.
    #[serde(rename = "type")]
    pub kind: String,
    /// The message whose turn it belongs to.
    pub message_id: Option<String>,
    /// When it was journaled.
    pub time: Option<Timestamp>,
    /// What of it depends on the kind, as the journal has it: an object.
    pub data: Box<RawValue>,
}

/// What a watch of events delivers.
#[derive(Debug, Clone)]
pub enum SessionDelivery {
    /// An event.
    Event(SessionEvent),
    /// These numbers are no longer there: deltas of blocks that are complete, whose whole text comes in the block.
    Compacted {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The connection broke and is being made again.
    Disconnected,
    /// It is there again; nothing is missed.
    Reconnected,
}

/// Some sessions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionPage {
    /// They, newest first.
    pub sessions: Vec<Session>,
    /// To get the next page.
    pub next_page_token: Option<String>,
    /// How many there are on all pages.
    pub total_size: u64,
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SentMessage {
    /// The message.
    pub message: SessionMessage,
    /// How many are before it.
    pub position: u32,
    /// Whether an earlier call with the same request id sent it.
    pub replayed: bool,
}

/// A part of what is kept of a session.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportPart {
    /// Its record.
    Session(Box<Session>),
    /// An event.
    Event(SessionEvent),
    /// A piece of a transcript, at most 1 MiB.
    Transcript {
        /// The file inside the sandbox.
        path: String,
        /// The bytes; in JSON as text.
        #[serde(rename = "text", serialize_with = "text")]
        data: Bytes,
    },
}

fn text<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(data))
}

/// Figures of all sessions that are on record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionStatistics {
    /// How many there are.
    pub total_sessions: u64,
    /// Of these, active.
    pub active_sessions: u64,
    /// Of these, idle.
    pub idle_sessions: u64,
    /// Of these, completed.
    pub completed_sessions: u64,
    /// Of these, in error.
    pub error_sessions: u64,
    /// Of these, terminated.
    pub terminated_sessions: u64,
    /// What they spent together, in millionths of a US dollar.
    pub total_cost_micros: u64,
    /// Tokens that they used together.
    pub total_tokens: u64,
    /// Seconds from start to completion on average, of those completed.
    pub average_duration_seconds: f64,
    /// The same by pattern.
    pub by_pattern: BTreeMap<String, PatternStatistics>,
}

/// Figures of the sessions of one pattern.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PatternStatistics {
    /// How many there are.
    pub count: u64,
    /// What they spent on average, in US dollars.
    pub average_cost_usd: f64,
    /// Tokens on average.
    pub average_tokens: f64,
    /// Seconds from start to completion on average, of those completed.
    pub average_duration_seconds: f64,
}
