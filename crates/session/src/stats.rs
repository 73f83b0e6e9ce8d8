//! Figures over all sessions.

use crate::usd::Usd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Figures over all sessions that are on record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// How many there are.
    pub total_sessions: u64,
    /// Of these, `active`.
    pub active_sessions: u64,
    /// Of these, `idle`.
    pub idle_sessions: u64,
    /// Of these, `completed`.
    pub completed_sessions: u64,
    /// Of these, `error`.
    pub error_sessions: u64,
    /// Of these, `terminated`.
    pub terminated_sessions: u64,
    /// What they spent together.
    pub total_cost: Usd,
    /// Tokens that they used together.
    pub total_tokens: u64,
    /// Milliseconds from start to completion, on average, of those completed; 0 without any.
    pub avg_session_duration: f64,
    /// The same by pattern; patterns without sessions are not there.
    pub by_pattern: BTreeMap<String, PatternStatistics>,
}

/// Figures of one pattern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatternStatistics {
    /// How many there are.
    pub count: u64,
    /// What they spent on average, in dollars.
    pub avg_cost: f64,
    /// Tokens on average.
    pub avg_tokens: f64,
    /// Milliseconds from start to completion on average, of those completed.
    pub avg_duration: f64,
}
