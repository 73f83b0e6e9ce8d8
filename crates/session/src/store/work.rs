//! What is written, as both databases take it: owned, so that it is written whoever waits.

use super::{Commit, NewSession, StoredSession, TranscriptPiece};
use crate::id::SessionId;
use crate::session::Session;

/// Something to write, in one transaction.
#[derive(Debug)]
pub(super) enum Work {
    /// Keep a new session.
    Create(Box<NewSession>),
    /// Take the right to write a session.
    Take(SessionId),
    /// Keep what happened in a session.
    Commit(Box<Commit>),
    /// Forget some of the journal of a session that is to be forgotten.
    Prune(SessionId),
    /// Forget a session.
    Delete(SessionId),
    /// See whether writing works.
    Check,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    /// It is kept; or there is this one, that an earlier call made.
    Created(Option<Box<Session>>),
    /// All that there is of it.
    Taken(Box<StoredSession>),
    /// Whether there was something.
    Deleted(bool),
    /// Nothing to tell.
    Written,
}

impl Work {
    /// For errors.
    pub(super) fn action(&self) -> &'static str {
        match self {
            Self::Create(_) => "create a session",
            Self::Take(_) => "take a session",
            Self::Commit(_) => "write to a session",
            Self::Prune(_) | Self::Delete(_) => "delete a session",
            Self::Check => "check the store",
        }
    }

    /// About how many bytes it writes, for bounding what is written at one go.
    pub(super) fn bytes(&self) -> usize {
        let lines = |pieces: &[TranscriptPiece]| pieces.iter().map(|piece| piece.lines.len()).sum::<usize>();
        let commit = match self {
            Self::Commit(commit) => commit,
            Self::Create(new) => return lines(&new.transcript) + 4096,
            _ => return 4096,
        };
        let events: usize = commit.events.iter().map(|event| event.data.get().len() + 128).sum();
        let input: usize = commit.agents.iter().map(|agent| agent.input.len()).sum();
        events + lines(&commit.transcript) + input + 1024
    }
}
