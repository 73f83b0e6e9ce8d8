//! What a session does about it.

use super::TurnEnd;
use crate::status::EndReason;

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Journal that the turn of a message began.
    BeginTurn(String),
    /// Have a sandbox and an agent in it; then `Ready` or `StartFailed`.
    Start,
    /// The agent has ended by itself: have it again, or say `BrokeTooOften`.
    StartAgain,
    /// Give the message to the agent.
    Prompt(String),
    /// Ask the agent to stop.
    Interrupt,
    /// Say `GraceOver` after the grace.
    ArmGrace,
    /// Kill the agent and everything in the sandbox; then `Swept`.
    Sweep,
    /// Find out what the turn used; then `Settled`.
    Settle,
    /// Journal that the turn of a message ended, and how.
    EndTurn(String, TurnEnd),
    /// Journal that a message will have no turn, and why.
    Drop(String, &'static str),
    /// Take the sandbox away now; then `Closed`.
    Close,
    /// Take the sandbox away after the retention of ephemeral sessions.
    CloseLater,
    /// Journal that the session ended.
    Ended(EndReason),
}
