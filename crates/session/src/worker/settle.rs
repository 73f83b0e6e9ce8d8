//! What the agent used: counted at the end of turns, after what it did of its own accord, and when its sandbox is gone.

use super::effects::PAUSE;
use super::jobs::{self, Job};
use super::{Counting, Worker};
use crate::machine::{Agent, Input, Phase, Turn};
use crate::usd::Usd;
use std::sync::Arc;
use std::time::Duration;

impl Worker {
    /// A turn is over: what it used is found out, and then it has ended.
    pub(super) fn settle(&mut self) {
        let Some(turn) = self.machine.turn().map(|turn| turn.message.clone()) else { return };
        if !self.is_metered() {
            return self.settled(&turn, None);
        }
        let (shared, id, since) = (Arc::clone(&self.shared), self.id.clone(), self.session.created_at);
        self.jobs.spawn(async move { Job::Settled(turn, jobs::spent(&shared, &id, since).await) });
    }

    /// Whether what is used is to be asked for.
    fn is_metered(&self) -> bool {
        self.shared.config.gateway && self.agent.attempt > 0
    }

    /// What was spent until the end of a turn is known, or will not be.
    pub(super) fn settled(&mut self, turn: &str, spent: Option<u64>) {
        let cost = self.note_spent(spent);
        // What was counted for one turn says nothing about the end of another.
        let its = |now: &Turn| now.message == turn && now.phase == Phase::Settling;
        if !self.machine.turn().is_some_and(its) {
            return;
        }
        let reached = self.limit_reached();
        let mut went_well = false;
        self.outcome(turn, |outcome| {
            outcome.cost = cost;
            went_well = !outcome.is_error;
            if outcome.is_error
                && let Some(reason) = reached
            {
                outcome.result = reason.as_str().to_owned();
            }
        });
        // Before the turn's end, so that nothing begins between. What has done all that it was for needs no more of
        // what it used up with that.
        let is_done = went_well && self.machine.is_last_turn();
        if let Some(reason) = reached.filter(|_| !is_done) {
            self.limit(reason);
        }
        self.inputs.push_back(Input::Settled);
    }

    /// The agent is idle. What it did of its own accord counts as what it was asked for does.
    pub(super) fn idle(&mut self) {
        let turn = self.machine.turn().map(|turn| turn.phase);
        let works = self.machine.agent() == Agent::Busy;
        // The prompt that waits for that is not to be given where it would be beyond a limit.
        if works && turn == Some(Phase::Starting) {
            self.count();
        }
        self.happened(Input::Idle);
        if works && turn.is_none() {
            self.session.last_activity_at = Some(crate::clock::now());
            self.count();
        }
    }

    /// Finds out what was used where no turn ends, and ends what goes on beyond a limit. One at a time: an agent may go
    /// on by itself as often as it likes.
    fn count(&mut self) {
        if !self.is_metered() {
            self.note_spent(None);
        } else if self.counting == Counting::Done {
            self.begin_count(Duration::ZERO);
        } else {
            self.counting = Counting::Again;
        }
        self.check_limits();
    }

    fn begin_count(&mut self, pause: Duration) {
        self.counting = Counting::UnderWay;
        let (shared, id, since) = (Arc::clone(&self.shared), self.id.clone(), self.session.created_at);
        self.jobs.spawn(async move {
            tokio::time::sleep(pause).await;
            Job::Counted(jobs::spent(&shared, &id, since).await)
        });
    }

    /// What was spent until now is known, or will not be.
    pub(super) fn counted(&mut self, spent: Option<u64>) {
        self.note_spent(spent);
        self.check_limits();
        if std::mem::take(&mut self.counting) == Counting::Again {
            self.begin_count(PAUSE);
        }
    }

    /// Takes over what was spent until now, where that is known. How much of it is new.
    pub(super) fn note_spent(&mut self, spent: Option<u64>) -> Usd {
        let before = self.session.total_cost;
        self.session.total_cost = match spent {
            Some(spent) => Usd::from_micros(spent).max(before),
            None if self.shared.config.gateway => before,
            None => self.session.agent_cost,
        };
        self.draft.session |= self.session.total_cost != before;
        Usd::from_micros(self.session.total_cost.micros().saturating_sub(before.micros()))
    }
}
