//! What a session does next: a pure function of what happened, without clock, I/O or ids of its own.
//!
//! [`Machine::happened`] takes one input and says what is to be done about it. Whoever carries it out tells the outcome
//! as further inputs. One turn at a time, first come first served; what ended does not begin again.

mod effect;
mod input;
mod restore;
mod turn;

pub(crate) use effect::Effect;
pub(crate) use input::Input;
pub(crate) use restore::Restored;
pub(crate) use turn::{Agent, Phase, Turn, TurnEnd};

use crate::status::{EndReason, EnvironmentStatus, Pattern, SessionStatus};
use std::collections::VecDeque;

/// Where a session is, and what it does next.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pattern: Pattern,
    agent: Agent,
    turn: Option<Turn>,
    waiting: VecDeque<String>,
    started: bool,
    /// It is on its way to its end.
    ending: Option<EndReason>,
    /// It is at its end.
    ended: Option<EndReason>,
    /// Why it stands still though it has not ended: an error, or a limit.
    halted: Option<EndReason>,
    /// Something was started that may have left a sandbox: it is looked for before the session is over.
    made: bool,
    /// The sandbox is being taken away.
    closing: bool,
    /// The agent is had again when nothing of the one before runs.
    again: bool,
    environment: EnvironmentStatus,
}

impl Machine {
    /// A session that nothing happened in.
    #[cfg(test)]
    pub(crate) fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            agent: Agent::Absent,
            turn: None,
            waiting: VecDeque::new(),
            started: false,
            ending: None,
            ended: None,
            halted: None,
            made: false,
            closing: false,
            again: false,
            environment: EnvironmentStatus::Inactive,
        }
    }

    /// What the session is to its users.
    pub(crate) fn status(&self) -> SessionStatus {
        match (self.ended, self.ending, self.halted) {
            (Some(EndReason::Completed), ..) => SessionStatus::Completed,
            (Some(_), ..) => SessionStatus::Terminated,
            (None, Some(_), _) => SessionStatus::Stopping,
            (None, None, Some(EndReason::Error)) if self.turn.is_none() => SessionStatus::Error,
            _ if self.turn.is_some() || !self.waiting.is_empty() => SessionStatus::Active,
            _ if self.started => SessionStatus::Idle,
            _ => SessionStatus::Initializing,
        }
    }

    /// Why it ended, is ending, or stands still.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.ended.or(self.ending).or(if self.turn.is_none() { self.halted } else { None })
    }

    /// Whether it ends, has ended or stands still for that reason.
    pub(crate) fn stands_for(&self, reason: EndReason) -> bool {
        [self.ended, self.ending, self.halted].contains(&Some(reason))
    }

    /// What is with its sandbox.
    pub(crate) fn environment(&self) -> EnvironmentStatus {
        self.environment
    }

    /// The turn that runs.
    pub(crate) fn turn(&self) -> Option<&Turn> {
        self.turn.as_ref()
    }

    /// What the agent does.
    pub(crate) fn agent(&self) -> Agent {
        self.agent
    }

    /// The messages that wait, in order.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> impl ExactSizeIterator<Item = &str> {
        self.waiting.iter().map(String::as_str)
    }

    /// Whether nothing is left to be done, now or later, unless somebody asks for something.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.is_some() && self.agent == Agent::Absent && !self.has_sandbox()
    }

    /// Whether there is a sandbox, or may be.
    pub(crate) fn has_sandbox(&self) -> bool {
        self.made
    }

    /// Takes something that happened and says what to do about it, in this order.
    pub(crate) fn happened(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(input, &mut effects);
        self.advance(&mut effects);
        effects
    }

    fn take(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Message(message) => {
                if self.ended.is_some() || self.ending.is_some() {
                    effects.push(Effect::Drop(message, "session_ended"));
                } else {
                    // Whoever sends a message wants it to go on.
                    self.halted = None;
                    self.waiting.push_back(message);
                }
            }
            Input::Cancel(message) => {
                if let Some(place) = self.waiting.iter().position(|waiting| *waiting == message) {
                    self.waiting.remove(place);
                    effects.push(Effect::Drop(message, "user_requested"));
                }
            }
            Input::Ready => {
                if self.agent == Agent::Starting {
                    self.agent = Agent::Idle;
                    self.environment = EnvironmentStatus::Ready;
                }
            }
            Input::StartFailed => self.failed(EnvironmentStatus::Error, TurnEnd::EnvironmentFailed, effects),
            Input::Outdated => {
                if self.turn.as_mut().is_some_and(Turn::take_back) && !self.closing {
                    self.sweep_now(effects);
                }
            }
            Input::Running => {
                if self.agent == Agent::Idle {
                    self.agent = Agent::Busy;
                }
            }
            Input::Begun(message) => {
                if let Some(turn) = self.turn.as_mut().filter(|turn| turn.message == message) {
                    turn.begun = true;
                }
            }
            Input::Answered => {
                if let Some(turn) = &mut self.turn {
                    turn.answered |= turn.phase != Phase::Starting;
                }
            }
            Input::Lost => {
                if let Some(turn) = &mut self.turn {
                    turn.lose();
                }
            }
            Input::Idle => self.idle(effects),
            Input::Exited { expected } => self.exited(expected, effects),
            Input::BrokeTooOften => self.failed(EnvironmentStatus::Error, TurnEnd::AgentExited, effects),
            Input::SandboxGone => {
                if self.closing || !self.made {
                    return;
                }
                // Nobody has seen a prompt whose agent was being killed for another to have it.
                let waits = |turn: &Turn| turn.phase == Phase::Starting;
                let waits = self.agent == Agent::Sweeping && self.turn.as_ref().is_some_and(waits);
                if waits || self.turn.as_mut().is_some_and(Turn::wait_again) {
                    (self.agent, self.environment) = (Agent::Absent, EnvironmentStatus::Terminated);
                } else {
                    self.failed(EnvironmentStatus::Terminated, TurnEnd::EnvironmentFailed, effects);
                }
            }
            Input::Interrupt => self.interrupt(Phase::Interrupting, TurnEnd::Interrupted, effects),
            Input::Pause(reason) => {
                self.halted = Some(reason);
                self.drop_waiting(reason.as_str(), effects);
                self.stop(TurnEnd::Limit(reason), effects);
            }
            Input::Lifted(reason) => {
                if self.halted == Some(reason) {
                    self.halted = None;
                }
            }
            Input::Stop => self.stop(TurnEnd::Stopped, effects),
            Input::Kill => self.sweep(TurnEnd::Killed, effects),
            Input::GraceOver => {
                if self.turn.as_ref().is_some_and(|turn| turn.phase == Phase::Stopping) {
                    let end = self.turn.as_ref().map_or(TurnEnd::Killed, |turn| turn.end);
                    self.sweep(if end == TurnEnd::Stopped { TurnEnd::Killed } else { end }, effects);
                }
            }
            Input::Swept => self.swept(effects),
            Input::Settled => self.settled(effects),
            Input::End(reason) => self.end(reason, effects),
            Input::Closed => {
                if self.closing {
                    (self.closing, self.made) = (false, false);
                    self.environment = EnvironmentStatus::Terminated;
                    self.agent = Agent::Absent;
                    self.over(effects);
                }
            }
            Input::Unload => {
                if self.turn.is_none() && self.has_sandbox() && !self.closing {
                    self.close(effects);
                }
            }
        }
    }

    /// What follows from where things are now.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        if let Some(reason) = self.ending
            && self.turn.is_none()
            && self.ended.is_none()
        {
            if self.has_sandbox() {
                if !self.closing {
                    self.close(effects);
                }
            } else {
                (self.ended, self.ending) = (Some(reason), None);
                effects.push(Effect::Ended(reason));
            }
            return;
        }
        if self.closing || self.agent == Agent::Sweeping {
            return;
        }
        if self.turn.is_none()
            && self.ending.is_none()
            && let Some(message) = self.waiting.pop_front()
        {
            self.started = true;
            effects.push(Effect::BeginTurn(message.clone()));
            self.turn = Some(Turn::new(message));
        }
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.phase == Phase::Starting) else { return };
        match self.agent {
            Agent::Absent => {
                self.agent = Agent::Starting;
                self.environment = EnvironmentStatus::Starting;
                self.made = true;
                effects.push(Effect::Start);
            }
            Agent::Idle => {
                self.agent = Agent::Busy;
                turn.phase = Phase::Running;
                effects.push(Effect::Prompt(turn.message.clone()));
            }
            Agent::Starting | Agent::Busy | Agent::Sweeping => {}
        }
    }

    fn idle(&mut self, effects: &mut Vec<Effect>) {
        if self.agent != Agent::Busy {
            return;
        }
        let Some(turn) = &mut self.turn else {
            self.agent = Agent::Idle;
            return;
        };
        match turn.phase {
            // An idleness from before the prompt arrived says nothing about it.
            Phase::Running | Phase::Interrupting if turn.answered => {
                self.agent = Agent::Idle;
                self.over(effects);
            }
            // What it started in the background may still run.
            Phase::Stopping if turn.answered => self.sweep_now(effects),
            Phase::Starting | Phase::Settling => self.agent = Agent::Idle,
            _ => {}
        }
    }

    fn exited(&mut self, expected: bool, effects: &mut Vec<Effect>) {
        if matches!(self.agent, Agent::Absent | Agent::Sweeping) || self.closing {
            return;
        }
        let was = std::mem::replace(&mut self.agent, Agent::Absent);
        // One that could not even begin ends as it should, and the turn is another's.
        let again = self.turn.as_mut().is_some_and(Turn::wait_again);
        let stopping = self.turn.as_ref().is_some_and(|turn| turn.phase == Phase::Stopping);
        if let Some(turn) = self.turn.as_mut()
            && !matches!(turn.phase, Phase::Settling | Phase::Starting)
            && turn.end == TurnEnd::Answered
            && !(expected && turn.answered)
        {
            turn.end = TurnEnd::AgentExited;
        }
        if expected && !stopping {
            self.over_if_running(effects);
        } else if was == Agent::Starting {
            self.failed(EnvironmentStatus::Error, TurnEnd::AgentExited, effects);
        } else {
            // What it started may be left.
            let goes_on = self.ending.is_none() && self.ended.is_none();
            self.again = goes_on && !expected && (again || self.pattern == Pattern::LongRunning);
            self.sweep_now(effects);
        }
    }

    fn swept(&mut self, effects: &mut Vec<Effect>) {
        if self.agent != Agent::Sweeping {
            return;
        }
        self.agent = Agent::Absent;
        self.over_if_running(effects);
        if std::mem::take(&mut self.again) && self.ending.is_none() && self.ended.is_none() {
            self.agent = Agent::Starting;
            self.environment = EnvironmentStatus::Starting;
            effects.push(Effect::StartAgain);
        }
    }

    /// The turn is over, unless the agent knows nothing of it yet.
    fn over_if_running(&mut self, effects: &mut Vec<Effect>) {
        if self.turn.as_ref().is_some_and(|turn| turn.phase != Phase::Starting) {
            self.over(effects);
        }
    }

    /// There is no agent, and there will be none by itself.
    fn failed(&mut self, environment: EnvironmentStatus, end: TurnEnd, effects: &mut Vec<Effect>) {
        self.agent = Agent::Absent;
        self.environment = environment;
        if self.ended.is_none() && self.ending.is_none() {
            self.halted = Some(EndReason::Error);
            self.drop_waiting("environment_failed", effects);
        }
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.phase != Phase::Settling) {
            if turn.end == TurnEnd::Answered {
                turn.end = end;
            }
            self.over(effects);
        }
    }

    fn interrupt(&mut self, phase: Phase, end: TurnEnd, effects: &mut Vec<Effect>) {
        let Some(turn) = &mut self.turn else { return };
        match turn.phase {
            // The agent knows nothing of it yet.
            Phase::Starting => {
                turn.end = end;
                self.over(effects);
            }
            // Again, for who asks again: the first may have come too early to be heard.
            Phase::Running | Phase::Interrupting => {
                (turn.phase, turn.end) = (phase, end);
                effects.push(Effect::Interrupt);
                if phase == Phase::Stopping {
                    effects.push(Effect::ArmGrace);
                }
            }
            _ => {}
        }
    }

    fn stop(&mut self, end: TurnEnd, effects: &mut Vec<Effect>) {
        let phase = self.turn.as_ref().map(|turn| turn.phase);
        self.interrupt(Phase::Stopping, end, effects);
        let is_asked = !matches!(phase, None | Some(Phase::Starting | Phase::Settling));
        if !is_asked && self.agent == Agent::Busy && !self.closing {
            // Something of its own, or in the background, for which nobody can ask it to stop.
            self.sweep_now(effects);
        }
    }

    fn sweep(&mut self, end: TurnEnd, effects: &mut Vec<Effect>) {
        if let Some(turn) = &mut self.turn {
            match turn.phase {
                Phase::Killing => return,
                Phase::Starting => self.interrupt(Phase::Killing, end, effects),
                // How it ended stays; what it left behind does not.
                Phase::Settling => {}
                _ => turn.end = end,
            }
        }
        if matches!(self.agent, Agent::Idle | Agent::Busy) && !self.closing {
            self.sweep_now(effects);
        }
    }

    fn sweep_now(&mut self, effects: &mut Vec<Effect>) {
        if let Some(turn) = &mut self.turn
            && !matches!(turn.phase, Phase::Starting | Phase::Settling)
        {
            turn.phase = Phase::Killing;
        }
        self.agent = Agent::Sweeping;
        effects.push(Effect::Sweep);
    }

    /// The turn is over, where there is one.
    fn over(&mut self, effects: &mut Vec<Effect>) {
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.phase != Phase::Settling) {
            turn.phase = Phase::Settling;
            effects.push(Effect::Settle);
        }
    }

    /// Whether the session has done what it was for when its turn is over, if that went well: its limits are nothing
    /// to it then.
    pub(crate) fn is_last_turn(&self) -> bool {
        self.is_task_over() && self.turn.as_ref().is_some_and(|turn| turn.end == TurnEnd::Answered)
    }

    /// Whether nothing is left to do of a session that is for one task.
    fn is_task_over(&self) -> bool {
        self.pattern == Pattern::Ephemeral
            && self.waiting.is_empty()
            && self.ending.is_none()
            && self.ended.is_none()
            && self.halted.is_none()
    }

    fn settled(&mut self, effects: &mut Vec<Effect>) {
        let Some(turn) = self.turn.take_if(|turn| turn.phase == Phase::Settling) else { return };
        let is_done = self.is_task_over() && turn.end == TurnEnd::Answered;
        if self.is_task_over() {
            // It was not done, and what was asked for since was taken back.
            self.halted = match turn.end {
                TurnEnd::AgentExited | TurnEnd::EnvironmentFailed => Some(EndReason::Error),
                TurnEnd::Limit(reason) => Some(reason),
                TurnEnd::Answered | TurnEnd::Interrupted | TurnEnd::Stopped | TurnEnd::Killed => None,
            };
        }
        effects.push(Effect::EndTurn(turn.message, turn.end));
        // Who stopped it may want something else of it.
        if is_done {
            self.ended = Some(EndReason::Completed);
            effects.push(Effect::Ended(EndReason::Completed));
            if self.has_sandbox() {
                effects.push(Effect::CloseLater);
            }
        }
    }

    fn end(&mut self, reason: EndReason, effects: &mut Vec<Effect>) {
        if self.ended.is_some() {
            if self.has_sandbox() && !self.closing {
                self.close(effects);
            }
            return;
        }
        if self.ending.is_none() {
            self.ending = Some(reason);
            self.drop_waiting(reason.as_str(), effects);
            let end =
                if reason == EndReason::UserRequested { TurnEnd::Stopped } else { TurnEnd::Limit(reason) };
            self.interrupt(Phase::Stopping, end, effects);
        }
    }

    fn close(&mut self, effects: &mut Vec<Effect>) {
        self.closing = true;
        effects.push(Effect::Close);
    }

    fn drop_waiting(&mut self, why: &'static str, effects: &mut Vec<Effect>) {
        effects.extend(self.waiting.drain(..).map(|message| Effect::Drop(message, why)));
    }
}

#[cfg(test)]
mod tests;
