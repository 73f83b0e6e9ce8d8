//! What happens to a session.

use crate::status::EndReason;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A message was accepted.
    Message(String),
    /// Somebody took a message back.
    Cancel(String),
    /// The agent takes prompts.
    Ready,
    /// The sandbox or the agent could not be had.
    StartFailed,
    /// The agent cannot have the prompt, for it was started with other bounds than now hold; another is to have it.
    Outdated,
    /// The agent is busy.
    Running,
    /// The agent has begun to work on a message.
    Begun(String),
    /// The agent gave a result for the turn.
    Answered,
    /// The agent will give no result for the turn: one before it began with it and died.
    Lost,
    /// The agent is idle.
    Idle,
    /// The agent's process has ended; whether that was to be expected.
    Exited {
        /// It was, for its turn is over.
        expected: bool,
    },
    /// The agent broke too often to be started again.
    BrokeTooOften,
    /// The sandbox is gone.
    SandboxGone,
    /// Somebody wants the turn interrupted.
    Interrupt,
    /// Somebody wants the turn stopped, with grace.
    Stop,
    /// Somebody wants everything of the turn killed.
    Kill,
    /// The grace is over.
    GraceOver,
    /// Nothing that the agent started runs any more, nor does it.
    Swept,
    /// What the turn used is known.
    Settled,
    /// The session is to end.
    End(EndReason),
    /// A limit is reached that ends the turn, not the session.
    Pause(EndReason),
    /// That limit is not reached any more.
    Lifted(EndReason),
    /// The sandbox was taken away, as asked for.
    Closed,
    /// The sandbox is to be taken away; the session stays.
    Unload,
}
