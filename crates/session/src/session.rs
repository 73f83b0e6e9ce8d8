//! What is known of a session.

use crate::config::SessionConfig;
use crate::id::SessionId;
use crate::status::{EndReason, EnvironmentStatus, Pattern, SessionStatus};
use crate::usd::Usd;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A session as it is now. In JSON as the REST API has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// The agent's own name for the conversation; empty until it is known.
    pub session_id: String,
    /// How it uses sandboxes.
    pub pattern: Pattern,
    /// What it is to its users.
    pub status: SessionStatus,
    /// Why it ended, or is in error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_message: Option<String>,
    /// Its sandbox.
    pub environment: Environment,
    /// The turn that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_turn: Option<ActiveTurn>,
    /// A number of the caller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<i64>,
    /// How the agent is to be.
    pub config: SessionConfig,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its first turn began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When something last happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_activity_at: Option<Timestamp>,
    /// When it did what it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub completed_at: Option<Timestamp>,
    /// When it was ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub terminated_at: Option<Timestamp>,
    /// What it spent: as the gateway counted, or where none is used as the agent estimates.
    pub total_cost: Usd,
    /// What the agent estimates that it spent.
    pub agent_cost: Usd,
    /// Tokens read and written, without those of caches.
    pub total_tokens: u64,
    /// Of these, read.
    pub input_tokens: u64,
    /// Of these, written.
    pub output_tokens: u64,
    /// Tokens read from and put into caches.
    pub cached_tokens: u64,
    /// How often the model was asked on its way through turns, as the agent counts.
    pub num_turns: u64,
    /// Names of the tools that were used, sorted.
    pub tools_used: Vec<String>,
    /// Bounds.
    #[serde(flatten)]
    pub limits: Limits,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The number of the last event of its journal; 0 before the first.
    pub last_event: u64,
}

/// The sandbox of a session and the agent in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// What is with it.
    pub status: EnvironmentStatus,
    /// What is being done, or went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The sandbox, for `hostel exec` and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// What was there before it was wanted: `claimed` where the agent was, `warm` where only the sandbox was, out of a
    /// pool, and `cold` where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// How often the agent was started again.
    pub restarts: u32,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            status: EnvironmentStatus::Inactive,
            message: None,
            sandbox_id: None,
            start: None,
            restarts: 0,
        }
    }
}

/// A turn that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveTurn {
    /// The message that it answers.
    pub message_id: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Where it is.
    pub phase: TurnPhase,
    /// Whether the agent has begun to work on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// Whether the agent has given a result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
    /// How it will have ended, where not by the agent's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The tool that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_tool: Option<String>,
}

/// Where a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TurnPhase {
    /// The sandbox or the agent is not ready yet.
    Starting,
    /// The agent works.
    Running,
    /// The agent was asked to stop.
    Interrupting,
    /// The agent has until its grace is over.
    Stopping,
    /// Everything in the sandbox is being killed.
    Killing,
    /// It is over; what it cost is being found out.
    Settling,
}

/// Bounds of a session; what is absent is not bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Limits {
    /// Milliseconds that its agent does nothing: no turn, and nothing of its own accord.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_idle_time_ms: Option<u64>,
    /// Milliseconds from its first turn on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lifetime_ms: Option<u64>,
    /// What it may spend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_budget_usd: Option<Usd>,
    /// Turns, as `numTurns` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u64>,
    /// What happens when one is reached.
    pub on_limit: OnLimit,
}

/// What happens when a limit is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnLimit {
    /// The session ends with the limit as its reason.
    #[default]
    Terminate,
    /// The turn ends and the session is idle with the limit as its reason; it goes on when the limit is raised.
    Pause,
}
