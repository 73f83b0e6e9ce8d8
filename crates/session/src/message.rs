//! Messages of users, in the order in which they came.

use crate::usd::Usd;
use hostel_agent::{Content, Usage};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A message of a user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its id: a uuid, which the agent is told too.
    pub id: String,
    /// What makes sending it repeatable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// What it says.
    #[schema(value_type = Vec<Object>)]
    pub content: Vec<Content>,
    /// Where it is.
    pub state: MessageState,
    /// The number of the event that accepted it; what comes of it has higher ones.
    pub seq: u64,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its turn began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When its turn ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<MessageOutcome>,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// It waits for its turn.
    Queued,
    /// Its turn runs.
    Running,
    /// Its turn has ended.
    Done,
    /// It will have no turn.
    Cancelled,
}

/// What came of a message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageOutcome {
    /// Whether it failed.
    pub is_error: bool,
    /// `success`, `error_…` as the agent says, or `interrupted`, `stopped`, `killed`, `agent_exited`,
    /// `environment_failed`, `budget_exceeded`, `max_turns`, `max_lifetime`, `storage_exceeded`.
    pub result: String,
    /// The agent's last words, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What was used, as the agent tells.
    #[schema(value_type = Object)]
    pub usage: Usage,
    /// What it cost.
    pub cost: Usd,
    /// Milliseconds from acceptance to end.
    pub latency: u64,
    /// How often the model was asked.
    pub num_turns: u32,
    /// The agent's own result, as it wrote it; for the last of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<serde_json::Value>,
}
