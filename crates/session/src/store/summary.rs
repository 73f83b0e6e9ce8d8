//! Figures over all sessions, from sums over those with the same pattern and status.

use super::values::{as_number, dollars};
use crate::stats::{PatternStatistics, Statistics};
use crate::status::{Pattern, SessionStatus};

/// Sessions with the same pattern and status.
pub(super) struct Group {
    pub(super) pattern: Pattern,
    pub(super) status: SessionStatus,
    pub(super) sums: Sums,
}

/// Sums over sessions.
#[derive(Default, Clone, Copy)]
pub(super) struct Sums {
    pub(super) sessions: u64,
    /// In dollars.
    pub(super) cost: f64,
    pub(super) tokens: f64,
    /// Milliseconds from start to completion, of those that have both.
    pub(super) duration: f64,
    /// How many have.
    pub(super) durations: u64,
}

impl Sums {
    fn over<'a>(groups: impl Iterator<Item = &'a Group>) -> Self {
        groups.fold(Self::default(), |sums, group| Self {
            sessions: sums.sessions + group.sums.sessions,
            cost: sums.cost + group.sums.cost,
            tokens: sums.tokens + group.sums.tokens,
            duration: sums.duration + group.sums.duration,
            durations: sums.durations + group.sums.durations,
        })
    }
}

/// The figures.
pub(super) fn of(groups: &[Group]) -> Statistics {
    let with = |status| Sums::over(groups.iter().filter(|group| group.status == status)).sessions;
    let all = Sums::over(groups.iter());
    let patterns = Pattern::ALL.iter().filter_map(|pattern| {
        let sums = Sums::over(groups.iter().filter(|group| group.pattern == *pattern));
        (sums.sessions > 0).then(|| {
            let statistics = PatternStatistics {
                count: sums.sessions,
                avg_cost: mean(sums.cost, sums.sessions),
                avg_tokens: mean(sums.tokens, sums.sessions),
                avg_duration: mean(sums.duration, sums.durations),
            };
            (pattern.as_str().to_owned(), statistics)
        })
    });
    Statistics {
        total_sessions: all.sessions,
        active_sessions: with(SessionStatus::Active),
        idle_sessions: with(SessionStatus::Idle),
        completed_sessions: with(SessionStatus::Completed),
        error_sessions: with(SessionStatus::Error),
        terminated_sessions: with(SessionStatus::Terminated),
        total_cost: dollars(all.cost),
        total_tokens: whole(all.tokens),
        avg_session_duration: mean(all.duration, all.durations),
        by_pattern: patterns.collect(),
    }
}

fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / as_number(count) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of counts; it saturates")]
fn whole(sum: f64) -> u64 {
    sum as u64
}
