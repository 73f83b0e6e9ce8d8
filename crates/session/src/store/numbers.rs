//! Numbers of events: they follow each other, from 1, without holes and repeats.

use super::Commit;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::session::Session;
use std::sync::Arc;

/// Checks the first events of a session.
pub(super) fn check_first(session: &Session, events: &[Arc<Event>]) -> Result<()> {
    follow(0, events)?;
    same_last(session, events.last().map_or(0, |event| event.seq))
}

/// Checks the events of a commit, and says what the last one before it has to be: `None` where that is not said.
pub(super) fn check_next(commit: &Commit) -> Result<Option<u64>> {
    let Some(first) = commit.events.first() else {
        return Ok(commit.session.as_ref().map(|session| session.last_event));
    };
    let before = first.seq.checked_sub(1).ok_or_else(|| wrong("an event has the number 0".to_owned()))?;
    let last = follow(before, &commit.events)?;
    if let Some(session) = &commit.session {
        same_last(session, last)?;
    }
    Ok(Some(before))
}

fn follow(before: u64, events: &[Arc<Event>]) -> Result<u64> {
    let mut last = before;
    for event in events {
        if event.seq != last + 1 {
            return Err(wrong(format!("event {} does not follow {last}", event.seq)));
        }
        last = event.seq;
    }
    Ok(last)
}

fn same_last(session: &Session, last: u64) -> Result<()> {
    if session.last_event == last {
        return Ok(());
    }
    Err(wrong(format!("the record says that the last event is {}, it is {last}", session.last_event)))
}

/// The error for numbers that are not as they have to be.
pub(super) fn wrong(problem: String) -> Error {
    Error::Store { action: "number events", problem }
}
