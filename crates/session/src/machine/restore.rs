//! A session as it was when somebody last had it.

use super::{Agent, Machine, Phase, Turn, TurnEnd};
use crate::status::{EndReason, EnvironmentStatus, Pattern, SessionStatus};
use std::collections::VecDeque;

/// What is needed to go on with a session.
#[derive(Debug, Clone)]
pub(crate) struct Restored {
    /// How it uses sandboxes.
    pub(crate) pattern: Pattern,
    /// What it was to its users.
    pub(crate) status: SessionStatus,
    /// Why.
    pub(crate) reason: Option<EndReason>,
    /// What was with its sandbox.
    pub(crate) environment: EnvironmentStatus,
    /// The turn that ran.
    pub(crate) turn: Option<Turn>,
    /// The messages that waited.
    pub(crate) waiting: VecDeque<String>,
    /// Whether its agent is idle; `None` where there is none that can be followed.
    pub(crate) is_idle: Option<bool>,
}

impl Machine {
    /// A session as it was when somebody last had it.
    pub(crate) fn restore(restored: Restored) -> Self {
        let Restored { pattern, status, reason, environment, mut turn, waiting, is_idle } = restored;
        let lost = |turn: &&mut Turn| turn.phase == Phase::Running && is_idle.is_none() && !turn.answered;
        if let Some(turn) = turn.as_mut().filter(lost) {
            turn.end = TurnEnd::AgentExited;
        }
        let phase = turn.as_ref().map(|turn| turn.phase);
        let works = phase.is_some_and(|phase| !matches!(phase, Phase::Starting | Phase::Settling));
        let agent = match is_idle {
            _ if phase == Some(Phase::Killing) => Agent::Sweeping,
            Some(true) if !works => Agent::Idle,
            Some(_) => Agent::Busy,
            // The agent ended; what it started may be left.
            None if works => Agent::Sweeping,
            None if environment == EnvironmentStatus::Starting && !status.is_final() => Agent::Starting,
            None => Agent::Absent,
        };
        let ended = status.is_final().then(|| reason.unwrap_or(EndReason::Completed));
        let halted = match turn.as_ref().map(|turn| turn.end) {
            Some(TurnEnd::Limit(reason)) => Some(reason),
            Some(TurnEnd::EnvironmentFailed) => Some(EndReason::Error),
            // It broke too often; after a single exit it is only being had again.
            Some(TurnEnd::AgentExited) if environment == EnvironmentStatus::Error => Some(EndReason::Error),
            Some(_) => None,
            None => reason.filter(|_| matches!(status, SessionStatus::Error | SessionStatus::Idle)),
        };
        Self {
            pattern,
            agent,
            started: status != SessionStatus::Initializing,
            ending: (status == SessionStatus::Stopping).then(|| reason.unwrap_or(EndReason::UserRequested)),
            ended,
            halted,
            made: !matches!(environment, EnvironmentStatus::Inactive | EnvironmentStatus::Terminated),
            closing: false,
            again: false,
            turn,
            waiting,
            environment,
        }
    }
}
