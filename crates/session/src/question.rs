//! Questions of the agent that wait for somebody's answer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A question of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// To answer with.
    pub id: String,
    /// The tool that it wants to use.
    pub tool: String,
    /// What it wants to do with it.
    pub input: Value,
    /// What it is about, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The block of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_use_id: Option<String>,
    /// Where it is.
    pub state: QuestionState,
    /// When it was asked.
    #[schema(value_type = String, format = DateTime)]
    pub asked_at: Timestamp,
    /// When it is denied unless somebody answers.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// What was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Who decided: whoever answered, or `timeout`, `turn_ended`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
}

/// Where a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuestionState {
    /// It waits.
    Pending,
    /// It has its answer.
    Answered,
    /// It needs none any more.
    Withdrawn,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Do it.
    Allow,
    /// Do it, and do not ask for the like again in this session.
    AllowForSession,
    /// Do not do it.
    Deny,
}

/// Somebody's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuestionAnswer {
    /// What is decided.
    pub verdict: Verdict,
    /// What the agent is told with a denial.
    #[serde(default)]
    pub message: Option<String>,
    /// With this input instead.
    #[serde(default)]
    pub input: Option<Value>,
    /// Whether a denial ends the turn too.
    #[serde(default)]
    pub interrupt: bool,
    /// Who decides, for the journal.
    #[serde(default)]
    pub decided_by: Option<String>,
}
