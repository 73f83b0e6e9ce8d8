//! Bounds of a session, and everything else that time does to it.

use super::Worker;
use crate::event::EventKind;
use crate::machine::{Agent, Input, Phase};
use crate::question::QuestionAnswer;
use crate::question::Verdict;
use crate::session::{OnLimit, Session};
use crate::status::{EndReason, SessionStatus};
use crate::usd::Usd;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// The limit that a session has reached, of those that do not depend on time.
fn reached(session: &Session) -> Option<EndReason> {
    [EndReason::BudgetExceeded, EndReason::MaxTurns].into_iter().find(|reason| is_reached(session, *reason))
}

/// What is spent of which budget, where one is: the session's, or the one that its agent keeps by its own estimate.
fn spent(session: &Session) -> Option<(Usd, Usd)> {
    let budgets = [
        (session.total_cost, session.limits.max_budget_usd),
        (session.agent_cost, session.config.max_budget_usd),
    ];
    budgets.into_iter().find_map(|(spent, most)| most.filter(|most| spent >= *most).map(|most| (spent, most)))
}

/// Whether a limit that can be raised is reached.
fn is_reached(session: &Session, reason: EndReason) -> bool {
    let limits = &session.limits;
    match reason {
        EndReason::BudgetExceeded => spent(session).is_some(),
        EndReason::MaxTurns => limits.max_turns.is_some_and(|most| session.num_turns >= most),
        _ => {
            let now = crate::clock::now();
            coming(session).any(|(at, limit)| limit == reason && at <= now)
        }
    }
}

/// The limits of time that a session will reach, and when. An idle session has no turn.
fn coming(session: &Session) -> impl Iterator<Item = (Timestamp, EndReason)> {
    let lives = !session.status.is_final() && session.status != SessionStatus::Stopping;
    let lifetime = session.started_at.and_then(|start| after(start, session.limits.max_lifetime_ms?));
    let rests = session.active_turn.is_none() && session.status != SessionStatus::Active;
    let since = session.last_activity_at.unwrap_or(session.created_at);
    let idle = rests.then(|| after(since, session.limits.max_idle_time_ms?)).flatten();
    let lifetime = lifetime.map(|at| (at, EndReason::MaxLifetime));
    idle.map(|at| (at, EndReason::IdleTimeout)).into_iter().chain(lifetime).filter(move |_| lives)
}

/// When a session that nobody has in memory reaches its next limit of time.
pub(crate) fn next(session: &Session) -> Option<Timestamp> {
    coming(session).filter(|(_, reason)| session.reason != Some(*reason)).map(|(at, _)| at).min()
}

fn after(start: Timestamp, milliseconds: u64) -> Option<Timestamp> {
    start.checked_add(jiff::SignedDuration::from_millis(i64::try_from(milliseconds).ok()?)).ok()
}

/// What a limit is called in a sentence, with what would help.
pub(crate) fn sentence(session: &Session, reason: EndReason) -> String {
    let limits = &session.limits;
    match reason {
        EndReason::BudgetExceeded => {
            let of_session = (session.total_cost, limits.max_budget_usd.unwrap_or_default());
            let (spent, most) = spent(session).unwrap_or(of_session);
            format!("{spent} of {most} are spent; raise maxBudgetUsd to go on")
        }
        EndReason::MaxTurns => {
            format!(
                "{} of {} turns are used; raise maxTurns to go on",
                session.num_turns,
                limits.max_turns.unwrap_or(0)
            )
        }
        EndReason::MaxLifetime => {
            format!(
                "it lived for {} s; raise maxLifetimeMs to go on",
                limits.max_lifetime_ms.unwrap_or(0) / 1000
            )
        }
        EndReason::IdleTimeout => {
            format!("nothing happened for {} s", limits.max_idle_time_ms.unwrap_or(0) / 1000)
        }
        EndReason::StorageExceeded => {
            "its agent wrote as much as the server keeps of one session (max-session-bytes)".to_owned()
        }
        other => other.as_str().to_owned(),
    }
}

impl Worker {
    /// The limits of time that the session will reach. An agent that works of its own accord is not idle.
    fn coming(&self) -> impl Iterator<Item = (Timestamp, EndReason)> {
        let works = self.machine.agent() == Agent::Busy;
        coming(&self.session).filter(move |(_, reason)| !works || *reason != EndReason::IdleTimeout)
    }

    /// The limit of time that is reached now.
    pub(super) fn late(&self) -> Option<EndReason> {
        let now = crate::clock::now();
        self.coming().find(|(at, _)| *at <= now).map(|(_, reason)| reason)
    }

    /// The limit that is reached, where the session has not ended for it.
    pub(super) fn limit_reached(&self) -> Option<EndReason> {
        reached(&self.session)
    }

    /// Whether no more may be kept of what its agents write.
    pub(super) fn is_full(&self) -> bool {
        self.shared.config.max_session_bytes.is_some_and(|most| self.agent.journaled >= most)
    }

    /// A limit is reached: the session ends, or stands still.
    pub(super) fn limit(&mut self, reason: EndReason) {
        if self.machine.stands_for(reason) {
            return;
        }
        self.session.reason_message = Some(sentence(&self.session, reason));
        let pauses = self.session.limits.on_limit == OnLimit::Pause && reason != EndReason::IdleTimeout;
        self.inputs.push_back(if pauses { Input::Pause(reason) } else { Input::End(reason) });
    }

    /// Whether the session is not at its end, nor on its way there.
    pub(super) fn goes_on(&self) -> bool {
        !self.session.status.is_final() && self.session.status != SessionStatus::Stopping
    }

    /// Ends what goes on between turns where a limit is reached that does not depend on time. Turns look for that at
    /// their end.
    pub(super) fn check_limits(&mut self) {
        let is_between = self.machine.turn().is_none_or(|turn| turn.phase == Phase::Starting);
        if let Some(reason) = self.limit_reached().filter(|_| is_between && self.goes_on()) {
            self.limit(reason);
            self.run_inputs();
        }
    }

    /// What stands still for a limit that was raised stands still for nothing.
    pub(super) fn lift_limits(&mut self) {
        for reason in [EndReason::BudgetExceeded, EndReason::MaxTurns, EndReason::MaxLifetime] {
            if self.machine.stands_for(reason) && !is_reached(&self.session, reason) {
                self.happened(Input::Lifted(reason));
            }
        }
    }

    /// When something is next to be done though nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let asked = self.questions.iter().map(|question| question.expires_at).min();
        let limit = self.next_limit().map(|(at, _)| at);
        let wall = asked.into_iter().chain(limit).min().map(instant);
        let start = self.start_at.map(|(at, _)| at);
        self.grace.into_iter().chain(self.close_at).chain(start).chain(wall).min()
    }

    /// Something is due.
    pub(super) fn due(&mut self) {
        let now = Instant::now();
        if self.grace.take_if(|at| *at <= now).is_some() {
            self.happened(Input::GraceOver);
        }
        if self.start_at.is_some_and(|(at, _)| at <= now) {
            self.start_now();
        }
        if self.close_at.take_if(|at| *at <= now).is_some() {
            self.happened(Input::End(EndReason::Completed));
        }
        let wall = crate::clock::now();
        let late: Vec<_> =
            self.questions.iter().filter(|one| one.expires_at <= wall).map(|one| one.id.clone()).collect();
        for id in late {
            let answer = QuestionAnswer {
                verdict: Verdict::Deny,
                message: Some("nobody answered in time".to_owned()),
                input: None,
                interrupt: false,
                decided_by: Some("timeout".to_owned()),
            };
            if let Err(error) = self.decide(&id, answer) {
                self.journal(EventKind::Log, &json!({ "level": "warn", "message": error.to_string() }));
                self.withdraw(&id, "timeout");
            }
        }
        if let Some((_, reason)) = self.next_limit().filter(|(at, _)| *at <= wall) {
            self.limit(reason);
            self.run_inputs();
        }
    }

    /// The limit of time that is next, unless it has been dealt with.
    pub(super) fn next_limit(&self) -> Option<(Timestamp, EndReason)> {
        self.coming().filter(|(_, reason)| !self.machine.stands_for(*reason)).min_by_key(|(at, _)| *at)
    }
}

/// A moment of the wall clock on the clock that timers have.
fn instant(at: Timestamp) -> Instant {
    let left = Duration::try_from(at.duration_since(crate::clock::now())).unwrap_or_default();
    Instant::now() + left
}
