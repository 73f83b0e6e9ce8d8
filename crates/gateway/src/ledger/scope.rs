//! What one sandbox or one budget has spent, against its limits.

use super::window::Window;
use crate::budget::Spent;
use hostel_sandbox::ModelBudget;

/// A cap that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cap {
    pub kind: CapKind,
    pub spent: u64,
    pub limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CapKind {
    Cost,
    Tokens,
    Requests,
}

/// A rate that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub kind: RateKind,
    pub limit: u64,
    /// Seconds until it may be less.
    pub wait: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RateKind {
    Requests,
    Tokens,
}

#[derive(Debug, Default)]
pub(super) struct Scope {
    pub spent: Spent,
    /// Finished requests whose usage is not on the disk yet.
    pub uncommitted: usize,
    requests: Window,
    tokens: Window,
}

impl Scope {
    pub(super) fn cap(&self, limits: &ModelBudget) -> Option<Cap> {
        let spent = self.spent;
        [
            (CapKind::Cost, spent.cost_micros, limits.cost_micros),
            (CapKind::Tokens, spent.tokens, limits.tokens),
            (CapKind::Requests, spent.requests, limits.requests),
        ]
        .into_iter()
        .find_map(|(kind, spent, limit)| {
            let limit = limit.filter(|limit| spent >= *limit)?;
            Some(Cap { kind, spent, limit })
        })
    }

    pub(super) fn rate(&mut self, limits: &ModelBudget, second: u64) -> Option<Rate> {
        [
            (RateKind::Requests, &mut self.requests, limits.requests_per_minute.map(u64::from)),
            (RateKind::Tokens, &mut self.tokens, limits.tokens_per_minute),
        ]
        .into_iter()
        .find_map(|(kind, window, limit)| {
            let limit = limit?;
            let wait = window.wait(limit, second)?;
            Some(Rate { kind, limit, wait })
        })
    }

    pub(super) fn begin(&mut self, second: u64) {
        self.spent.requests = self.spent.requests.saturating_add(1);
        self.begin_free(second);
    }

    /// What costs nothing counts towards the rate of requests.
    pub(super) fn begin_free(&mut self, second: u64) {
        self.requests.add(1, second);
    }

    pub(super) fn seen(&mut self, tokens: u64, cost_micros: u64, second: u64) {
        self.spent.add(tokens, cost_micros);
        self.tokens.add(tokens, second);
    }
}
