//! Agent sessions: a conversation with an agent in a sandbox, with its journal, turns, limits and spending.
//!
//! A [`Session`] outlives processes, sandboxes, clients and the server. Everything that happens in it is an [`Event`]
//! of its journal, durable before anybody sees it. [`SessionHost`] is how everything above uses sessions;
//! [`LocalSessionHost`] is the one that keeps them in this process, and [`ClientHub`] connects clients with their events.
//! [`Store`] is where they are kept.
#![forbid(unsafe_code)]

mod blob;
mod bus;
mod change;
mod clock;
mod config;
mod error;
mod event;
mod host;
mod hub;
mod id;
mod local;
mod machine;
mod message;
mod question;
mod session;
mod stats;
mod status;
mod store;
mod types;
mod usd;
mod worker;

pub use blob::{Blob, BlobLocation, BlobStore, BlobStream, S3Bucket};
pub use change::Change;
pub use config::{Plugin, SessionConfig};
pub use error::{Error, Result};
pub use event::{Event, EventKind, NewEvent};
pub use host::{
    Accepted, CreateSession, Created, Delivery, Health, ListSessions, Position, SendMessage, SessionHost,
    SessionPage, Start, SubscriptionSource, UpdateSession,
};
pub use hostel_agent as agent;
pub use hostel_client as client;
pub use hub::{ClientHub, ClientListener, Disconnect};
pub use id::{SessionId, new_id};
pub use local::{HostConfig, LocalSessionHost};
pub use message::{Message, MessageOutcome, MessageState};
pub use question::{Question, QuestionAnswer, QuestionState, Verdict};
pub use session::{ActiveTurn, Environment, Limits, OnLimit, Session, TurnPhase};
pub use stats::{PatternStatistics, Statistics};
pub use status::{EndReason, EnvironmentStatus, Pattern, SessionStatus};
pub use store::{
    AgentState, Commit, Compaction, NewSession, Store, StoreUrl, StoredSession, TranscriptFile,
    TranscriptPiece, open as open_store,
};
pub use types::EventTypes;
pub use usd::Usd;
