//! What others want of a session's worker.

use crate::error::{Error, Result};
use crate::host::{Accepted, SendMessage, UpdateSession};
use crate::message::Message;
use crate::question::{Question, QuestionAnswer};
use crate::session::Session;
use crate::status::EndReason;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What others want.
pub(crate) enum Command {
    /// Accept a message.
    Send(SendMessage, Reply<Accepted>),
    /// Take a message back.
    Cancel(String, Reply<Message>),
    /// Tell what waits and runs.
    Queue(Reply<Vec<Message>>),
    /// Tell what is asked.
    Questions(Reply<Vec<Question>>),
    /// Answer a question.
    Answer(String, QuestionAnswer, Reply<Question>),
    /// Change the record.
    Update(UpdateSession, Reply<Session>),
    /// Stop the turn in some way; the answer comes when nothing of it runs.
    Halt(Halt, Reply<Session>),
    /// End the session; the answer comes when it has ended.
    End(EndReason, Reply<Session>),
    /// Take the sandbox away; the answer comes when it is.
    Unload(Reply<Session>),
}

/// Ways to stop a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The agent is asked to.
    Interrupt,
    /// The agent is asked to, and has that long.
    Stop(Duration),
    /// At once.
    Kill,
}

/// Somebody who waits until a session is in some state.
pub(super) struct Waiter {
    pub(super) until: Until,
    pub(super) reply: Reply<Session>,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Until {
    /// The turn of that message is over.
    TurnOver(String),
    /// Nothing is being killed.
    Swept,
    /// It has ended.
    Ended,
    /// There is no sandbox.
    NoSandbox,
}

/// Answers where somebody still waits for it.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T>) {
    // Who went away learns nothing, and what was done stays done.
    let _ = reply.send(result);
}

/// There is nothing of that kind and name.
pub(super) fn no_such(kind: &'static str, name: &str) -> Error {
    Error::NoSuch { kind, name: name.chars().take(255).collect() }
}
