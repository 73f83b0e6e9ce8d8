//! A sandbox's way to a model: through the daemon's gateway, which holds the key and counts.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// That a sandbox may ask the model, and how much.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelAccess {
    /// What it may use in its life. Budgets on labels hold besides.
    pub budget: ModelBudget,
}

/// How much may be asked of models. What is absent is not bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelBudget {
    /// Money, in millionths of a US dollar.
    pub cost_micros: Option<u64>,
    /// Tokens of every kind together.
    pub tokens: Option<u64>,
    /// Requests.
    pub requests: Option<u64>,
    /// Requests begun in any 60 seconds, those that cost nothing included.
    pub requests_per_minute: Option<u32>,
    /// Tokens used in any 60 seconds.
    pub tokens_per_minute: Option<u64>,
}

impl ModelBudget {
    /// Whether it bounds nothing.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the ranges. Zero is allowed: nothing may be asked.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a number that a store of 64 bits with a sign cannot hold.
    pub fn validate(&self) -> Result<()> {
        let most = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
        for (field, value) in
            [("cost_micros", self.cost_micros), ("tokens", self.tokens), ("requests", self.requests)]
        {
            if value.is_some_and(|value| value > most) {
                return Err(Error::invalid(format!("model.budget.{field}"), "too large"));
            }
        }
        Ok(())
    }
}
