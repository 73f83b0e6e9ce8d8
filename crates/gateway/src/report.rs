//! Questions about usage, and their answers.

use crate::error::Result;
use crate::usage::Tokens;
use hostel_sandbox::SandboxId;
use hostel_sandbox::label::{self, Labels};
use std::time::SystemTime;

/// Most rows of one answer.
pub const MAX_ROWS: usize = 10_000;

/// What usage is added up by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Everything in one row.
    #[default]
    None,
    /// The sandbox.
    Sandbox,
    /// The value of a label; those without it have no key.
    Label(String),
    /// Every label, as `key=value`: a request counts in the row of each that its sandbox had.
    Labels,
    /// The model that answered; empty where none did.
    Model,
    /// The day, in UTC, that the request began on: `2026-11-21`.
    Day,
    /// The session that the client named (`x-claude-code-session-id`), or empty.
    Session,
}

/// Which usage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Requests that began at this time or later.
    pub since: Option<SystemTime>,
    /// Requests that began before this time.
    pub until: Option<SystemTime>,
    /// Of one sandbox.
    pub sandbox: Option<SandboxId>,
    /// Of sandboxes that had all these labels when they asked.
    pub labels: Labels,
    /// How it is added up.
    pub group_by: GroupBy,
}

impl Query {
    /// Refuses labels that no sandbox can have.
    pub(crate) fn validate(&self) -> Result<()> {
        label::validate(&self.labels)?;
        if let GroupBy::Label(key) = &self.group_by {
            label::validate(&[(key.clone(), String::new())].into())?;
        }
        Ok(())
    }
}

/// Usage of one group. Where nothing was used there is no group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// What the group has in common.
    pub key: Option<String>,
    /// Requests that were admitted.
    pub requests: u64,
    /// Of them, those that a crash interrupted, and those of whose figures some are an estimate because the client or an
    /// upstream left before they were told.
    pub interrupted: u64,
    /// Their tokens.
    pub tokens: Tokens,
    /// What they cost, in millionths of a US dollar.
    pub cost_micros: u64,
}
