//! A turn, and the agent that has it.

use crate::status::EndReason;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnEnd {
    /// With the agent's answer, which may be an error.
    Answered,
    /// Somebody interrupted it.
    Interrupted,
    /// Somebody stopped it.
    Stopped,
    /// It was killed.
    Killed,
    /// The agent's process ended.
    AgentExited,
    /// There was no sandbox or agent to have it in.
    EnvironmentFailed,
    /// A limit was reached.
    Limit(EndReason),
}

impl TurnEnd {
    /// What a word is for; any that is not known is an end of the agent.
    pub(crate) fn from_word(word: &str) -> Self {
        let all = [Self::Answered, Self::Interrupted, Self::Stopped, Self::Killed, Self::EnvironmentFailed];
        let limit = || word.parse().ok().map(Self::Limit);
        all.into_iter().find(|end| end.as_str() == word).or_else(limit).unwrap_or(Self::AgentExited)
    }

    /// The word for it, where the agent has none of its own.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "success",
            Self::Interrupted => "interrupted",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::AgentExited => "agent_exited",
            Self::EnvironmentFailed => "environment_failed",
            Self::Limit(reason) => reason.as_str(),
        }
    }
}

/// What the agent's process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    /// There is none.
    Absent,
    /// It does not take prompts yet.
    Starting,
    /// It waits for a prompt.
    Idle,
    /// It works, or was given something to work on.
    Busy,
    /// It is being killed.
    Sweeping,
}

/// Where a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits for the agent.
    Starting,
    /// The agent works.
    Running,
    /// The agent was asked to stop.
    Interrupting,
    /// The agent was asked to stop, and everything it started is killed after that.
    Stopping,
    /// Everything is being killed.
    Killing,
    /// It is over; what it used is being found out.
    Settling,
}

/// A turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The message that it is for.
    pub(crate) message: String,
    /// Where it is.
    pub(crate) phase: Phase,
    /// Whether the agent has begun to work on it. A prompt that nobody has seen is given to the next agent.
    pub(crate) begun: bool,
    /// How many agents it was given to that died without having seen it.
    pub(crate) lost: u8,
    /// Whether the agent gave a result for it.
    pub(crate) answered: bool,
    /// How it ends, once that is known.
    pub(crate) end: TurnEnd,
}

/// How often a prompt is given to another agent.
const MOST_LOST: u8 = 3;

impl Turn {
    /// One that waits for an agent.
    pub(super) fn new(message: String) -> Self {
        let phase = Phase::Starting;
        Self { message, phase, begun: false, lost: 0, answered: false, end: TurnEnd::Answered }
    }

    /// It was not given to its agent after all, and waits for another. Whether it does.
    pub(super) fn take_back(&mut self) -> bool {
        let unseen = self.phase == Phase::Running && !self.begun && !self.answered;
        if unseen {
            self.phase = Phase::Starting;
        }
        unseen
    }

    /// An agent that began with it is gone, and no other will answer it.
    pub(super) fn lose(&mut self) {
        if !matches!(self.phase, Phase::Starting | Phase::Settling) {
            self.answered = true;
            if self.end == TurnEnd::Answered {
                self.end = TurnEnd::AgentExited;
            }
        }
    }

    /// Its agent is gone: where that had not begun with it, it waits for another. Whether it does.
    pub(super) fn wait_again(&mut self) -> bool {
        let again = self.lost < MOST_LOST && self.take_back();
        self.lost += u8::from(again);
        again
    }
}
