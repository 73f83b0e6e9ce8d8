//! Why a request is not forwarded, as its sender is told.

use super::scope::{Cap, CapKind, Rate, RateKind};
use crate::budget::BudgetStatus;

/// What is refused for, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    Cost,
    Tokens,
    Requests,
    RequestRate,
    TokenRate,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cost => "budget_cost",
            Self::Tokens => "budget_tokens",
            Self::Requests => "budget_requests",
            Self::RequestRate => "rate_requests",
            Self::TokenRate => "rate_tokens",
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub reason: Reason,
    /// Whose limit, how much, and what to do.
    pub message: String,
    /// Seconds after which the same request may pass; only for rates.
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// A cap of the sandbox, or of a label budget, is reached.
    pub(super) fn cap(budget: Option<BudgetStatus>, cap: Cap) -> Self {
        let (reason, field) = match cap.kind {
            CapKind::Cost => (Reason::Cost, "cost_micros"),
            CapKind::Tokens => (Reason::Tokens, "tokens"),
            CapKind::Requests => (Reason::Requests, "requests"),
        };
        let (spent, limit) = match cap.kind {
            CapKind::Cost => (dollars(cap.spent), dollars(cap.limit)),
            CapKind::Tokens => (format!("{} tokens", cap.spent), format!("{} tokens", cap.limit)),
            CapKind::Requests => (format!("{} requests", cap.spent), format!("{} requests", cap.limit)),
        };
        let message = format!(
            "Hostel: {} is used up: {spent} of {limit} spent. Nothing was sent to the model. To go on, raise {field} \
             of {} and send the message again.",
            whose(budget.as_ref()),
            where_to(budget.as_ref()),
        );
        Self { reason, message, retry_after: None }
    }

    /// A rate of the sandbox, or of a label budget, is reached.
    pub(super) fn rate(budget: Option<BudgetStatus>, rate: Rate) -> Self {
        let (reason, unit) = match rate.kind {
            RateKind::Requests => (Reason::RequestRate, "requests"),
            RateKind::Tokens => (Reason::TokenRate, "tokens"),
        };
        let message = format!(
            "Hostel: {} allows {} {unit} per minute. Nothing was sent to the model. Try again in {} s.",
            whose(budget.as_ref()),
            rate.limit,
            rate.wait,
        );
        Self { reason, message, retry_after: Some(rate.wait) }
    }
}

fn whose(budget: Option<&BudgetStatus>) -> String {
    match budget {
        None => "the budget of this sandbox".to_owned(),
        Some(status) if status.period.is_empty() => format!("the budget {:?}", status.definition.name),
        Some(status) => format!("the budget {:?} for {}", status.definition.name, status.period),
    }
}

fn where_to(budget: Option<&BudgetStatus>) -> String {
    match budget {
        None => "the sandbox's model budget".to_owned(),
        Some(status) => format!("the budget {:?}", status.definition.name),
    }
}

fn dollars(micros: u64) -> String {
    format!("${}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
