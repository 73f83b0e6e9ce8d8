//! What was used of models, and budgets.

use hostel_sandbox::ModelBudget;
use jiff::Timestamp;
use serde::Serialize;

/// What was used of models. Tokens of each kind are apart; money is in millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ModelUsage {
    /// Requests that were forwarded.
    pub requests: u64,
    /// Input tokens that were not cached.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens written to the cache for 5 minutes.
    pub cache_write_5m_tokens: u64,
    /// Input tokens written to the cache for an hour.
    pub cache_write_1h_tokens: u64,
    /// Input tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Money.
    pub cost_micros: u64,
    /// Requests of these whose figures nobody told, so that some are an estimate.
    pub interrupted_requests: u64,
}

/// Most rows of one [`Usage`].
pub const MOST_USAGE_ROWS: usize = 10_000;

/// Usage, added up by something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// By group, the most expensive first, but days in their order; at most [`MOST_USAGE_ROWS`].
    pub rows: Vec<UsageRow>,
    /// All together.
    pub total: ModelUsage,
}

/// The usage of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageRow {
    /// The sandbox, label's value or `label=value`, model, day or session. Empty where there is none.
    pub group: String,
    /// What was used.
    #[serde(flatten)]
    pub usage: ModelUsage,
}

/// What usage is added up by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageGroup {
    /// Nothing: only the total.
    Total,
    /// Sandbox.
    Sandbox,
    /// The value of this label.
    Label(String),
    /// Each label and value: what is used with several labels is in the row of each.
    Labels,
    /// Model.
    Model,
    /// Day in UTC.
    Day,
    /// The session id that the agent sends along.
    Session,
}

/// A budget that sandboxes with certain labels share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// Who shares it. Empty: every sandbox of the node.
    pub label_selector: String,
    /// The bounds.
    pub bounds: ModelBudget,
    /// What they are for.
    pub period: BudgetPeriod,
    /// What was used of it in this period.
    pub used: BudgetUse,
}

/// How far a budget is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BudgetUse {
    /// Requests that were forwarded.
    pub requests: u64,
    /// Tokens of every kind together.
    pub tokens: u64,
    /// Money in millionths of a US dollar.
    pub cost_micros: u64,
}

/// What the bounds of a budget are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// Its whole life.
    #[default]
    Total,
    /// A day in UTC.
    Day,
    /// A month in UTC.
    Month,
}

impl BudgetPeriod {
    /// As JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// What is known of a secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Where the value is: `vault`, `credential`, `file` or `environment`.
    pub source: String,
    /// When it last changed, where that is known.
    pub update_time: Option<Timestamp>,
}
