//! Budgets over labels: what all sandboxes with certain labels may use together.

use crate::error::{Error, Result};
use hostel_sandbox::ModelBudget;
use hostel_sandbox::label::{self, Labels};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Longest name of a budget, in bytes.
const MAX_NAME: usize = 63;

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Requests begun.
    pub requests: u64,
    /// Tokens of every kind together.
    pub tokens: u64,
    /// Money, in millionths of a US dollar.
    pub cost_micros: u64,
}

impl Spent {
    pub(crate) fn add(&mut self, tokens: u64, cost_micros: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
        self.cost_micros = self.cost_micros.saturating_add(cost_micros);
    }
}

/// After which time a budget begins anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// Never.
    #[default]
    Total,
    /// Each day at midnight UTC.
    Day,
    /// Each first of a month at midnight UTC.
    Month,
}

impl Period {
    /// The name of the period that a moment is in: empty, `2026-11-21` or `2026-11`.
    pub(crate) fn key(self, now: Timestamp) -> String {
        let now = now.to_zoned(TimeZone::UTC);
        match self {
            Self::Total => String::new(),
            Self::Day => now.strftime("%Y-%m-%d").to_string(),
            Self::Month => now.strftime("%Y-%m").to_string(),
        }
    }
}

/// A budget that every sandbox counts towards whose labels hold all pairs of the selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelBudget {
    /// Its name: 1 to 63 letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// Labels that a sandbox must have; empty for every sandbox of the node.
    pub selector: Labels,
    /// The limits.
    pub budget: ModelBudget,
    /// When what was spent is forgotten.
    pub period: Period,
}

impl LabelBudget {
    /// Checks name, selector and limits.
    ///
    /// # Errors
    /// [`Error::Domain`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let plain = self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if !plain || self.name.is_empty() || self.name.len() > MAX_NAME {
            let detail = format!("{:.80?}: use 1 to {MAX_NAME} letters, digits, '_', '-' and '.'", self.name);
            return Err(Error::Domain(hostel_sandbox::Error::invalid("budget.name", detail)));
        }
        label::validate(&self.selector)?;
        self.budget.validate()?;
        Ok(())
    }

    pub(crate) fn covers(&self, labels: &Labels) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// A budget and how far it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetStatus {
    /// The budget.
    pub definition: LabelBudget,
    /// The current period: empty, `2026-11-21` or `2026-11`.
    pub period: String,
    /// What was spent in it since the budget was made.
    pub spent: Spent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_named_in_utc() {
        let moment: Timestamp = "2026-11-30T23:59:59-02:00".parse().unwrap();
        assert_eq!(Period::Month.key(moment), "2026-12");
        assert_eq!(Period::Day.key(moment), "2026-12-01");
        assert_eq!(Period::Total.key(moment), "");
    }

    #[test]
    fn a_selector_covers_labels_that_hold_all_of_it() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let mut budget = LabelBudget {
            name: "team".into(),
            selector: labels(&[("team", "a")]),
            budget: ModelBudget::default(),
            period: Period::Total,
        };
        assert!(budget.covers(&labels(&[("team", "a"), ("x", "y")])));
        assert!(!budget.covers(&labels(&[("team", "b")])) && !budget.covers(&Labels::new()));
        budget.selector.clear();
        assert!(budget.covers(&Labels::new()));
        budget.name = "a/b".into();
        assert!(budget.validate().is_err());
    }
}
