//! The task that has a session: the one that writes its journal.
//!
//! What happens (output of the agent, commands, timers, jobs that ended) changes the state in memory and is drafted;
//! the draft is committed in one piece, and only then is anything seen or done outside: events are published, answers
//! given, bytes written to the agent, jobs begun. While one commit is on its way the next draft grows. A worker that
//! dies at any instant is therefore followed by one that goes on where the last commit was.

mod close;
mod command;
mod commands;
mod draft;
mod effects;
mod jobs;
mod limits;
mod link;
mod meaning;
mod model_calls;
pub(crate) mod options;
mod restarts;
mod restore;
mod settle;
mod start;
mod tool_results;
mod transcripts;

pub(crate) use command::{Command, Halt, Reply};
pub(crate) use commands::replay;
pub(crate) use draft::json as event_data;
pub(crate) use limits::next as next_limit;
pub(crate) use tool_results::blobs_of;

use crate::bus::EventBus;
use crate::error::{Error, Result};
use crate::event::{Event, EventKind, NewEvent};
use crate::id::SessionId;
use crate::local::Shared;
use crate::machine::{Input, Machine};
use crate::message::Message;
use crate::question::Question;
use crate::session::Session;
use crate::store::{AgentState, Commit};
use close::Mirroring;
use command::{Until, Waiter};
use draft::{After, Deltas, Draft};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hostel_agent::AgentDriver;
use jobs::{Job, Progress};
use link::{Link, Moved};
use model_calls::ModelCalls;
use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Commands that may wait for a worker.
pub(crate) const MAILBOX: usize = 64;
/// Reports of a start that may wait.
const PROGRESS: usize = 16;
/// How long a store that fails is left alone, at first and at most.
const STORE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Bytes that an event takes in a store beside its data, about.
const EVENT: u64 = 128;
/// Pieces of output that are taken at one go, so that many small ones are one commit.
const AT_ONCE: usize = 64;

/// The task that has a session.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    bus: Arc<EventBus>,
    view: watch::Sender<Arc<Session>>,
    mailbox: mpsc::Receiver<Command>,
    /// The host is going away: nothing is begun, the agent goes on.
    leaving: CancellationToken,
    id: SessionId,
    generation: u64,
    session: Session,
    machine: Machine,
    /// Messages that wait or run.
    messages: Vec<Message>,
    /// Questions that wait.
    questions: Vec<Question>,
    /// Bytes of what those are about.
    asked: usize,
    /// Bytes that the agent was answered by itself since it last had read everything.
    answers: usize,
    agent: AgentState,
    driver: Option<Box<dyn AgentDriver>>,
    link: Option<Link>,
    /// Counts agents and sandboxes of this worker: what is told of earlier ones is of no interest.
    epoch: u64,
    /// Counts attempts to attach.
    attachments: u64,
    starting: Option<CancellationToken>,
    /// The sandbox is to be taken away when the start has ended.
    close_after_start: bool,
    draft: Draft,
    deltas: Deltas,
    files: transcripts::Files,
    /// Inputs for the machine that came of its own effects.
    inputs: VecDeque<Input>,
    /// The commit that is on its way.
    committing: Option<Committing>,
    /// Commits are numbered, so that one whose answer was lost may be tried again.
    commits_made: u64,
    /// How far what is to be written to the agent is durable.
    durable_input: u64,
    jobs: JoinSet<Job>,
    reports: mpsc::Sender<(u64, Progress)>,
    progress: mpsc::Receiver<(u64, Progress)>,
    waiters: Vec<Waiter>,
    grace: Option<Instant>,
    close_at: Option<Instant>,
    stop_grace: Duration,
    /// When the agent was started again since a turn last went well.
    restarts: VecDeque<Instant>,
    /// When the agent is to be started again, and in which epoch.
    start_at: Option<(Instant, u64)>,
    tools: BTreeSet<String>,
    /// How often the model was asked in this turn.
    model_calls: ModelCalls,
    /// Everything in the sandbox was killed; the agent's own end is not seen yet.
    has_swept: bool,
    /// It was told that they could not be killed.
    resists: bool,
    /// It is to be let go when it has no sandbox.
    unloading: bool,
    /// Messages with keys that came of late: key and id.
    keyed: VecDeque<(String, String)>,
    bounds: Bounds,
    counting: Counting,
    mirroring: Mirroring,
    /// Nothing more can be written here, and why.
    cut_off: Option<Left>,
}

/// How a worker left its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// With nothing to do, or because the host goes away.
    Whole,
    /// Because another server writes to it.
    Fenced,
    /// Part of it panicked: what the store has is to be taken up anew.
    Broken,
}

/// What the daemon knows of the session's bounds: its budget and its lifetime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Bounds {
    /// All of it, or there is no sandbox.
    #[default]
    Told,
    /// It is being told.
    Telling,
    /// It is being told what has changed again.
    Changed,
}

/// Counting what was used where no turn ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Counting {
    /// It is done.
    #[default]
    Done,
    /// It is being done.
    UnderWay,
    /// It is being done, and more was used since.
    Again,
}

/// How a commit went, where it did not panic.
type Committed = std::thread::Result<Result<()>>;

/// A commit on its way, and what follows.
struct Committing {
    /// Writes it.
    writing: BoxFuture<'static, Committed>,
    events: Vec<Arc<Event>>,
    after: Vec<After>,
    view: Arc<Session>,
    /// How far it makes the agent's input durable.
    input: u64,
    /// How far the sandbox need not keep the agent's output after it.
    unneeded: (u64, u64),
}

impl Worker {
    /// Works until the session needs nobody any more, the host goes away, or another has the session.
    pub(crate) async fn run(mut self) -> Left {
        self.recall_files().await;
        self.recall_turn().await;
        self.begin();
        let left = loop {
            self.answer_waiters();
            self.flush();
            if self.cut_off.is_some()
                || (self.committing.is_none() && self.draft.is_empty() && self.may_leave())
            {
                // Who asks from now on finds it closed and has it loaded again; who asked before is answered.
                self.mailbox.close();
                match self.mailbox.try_recv() {
                    Ok(command) if self.cut_off.is_none() && !self.leaving.is_cancelled() => {
                        self.command(command)
                    }
                    _ => break self.cut_off.unwrap_or(Left::Whole),
                }
                continue;
            }
            let reads = self.draft.has_room() && !self.leaving.is_cancelled();
            let deadline = self.next_deadline();
            tokio::select! {
                done = commit_ended(&mut self.committing) => self.committed(done),
                Some(job) = self.jobs.join_next() => match job {
                    Ok(job) => self.job_done(job),
                    Err(error) if error.is_panic() => {
                        tracing::error!(session = %self.id, %error, "a job of a session broke");
                        self.cut_off = Some(Left::Broken);
                    }
                    Err(_) => {}
                },
                Some((epoch, progress)) = self.progress.recv() => self.progressed(epoch, progress),
                moved = link::moved(&mut self.link, reads) => match moved {
                    Moved::Output(event) => self.output(event),
                    Moved::Written(written) => self.written(written),
                },
                // Without room what others want waits too: a store that is away must not fill the memory.
                Some(command) = self.mailbox.recv(), if reads => self.command(command),
                () = self.leaving.cancelled(), if !self.leaving.is_cancelled() => {}
                () = sleep_until(deadline), if deadline.is_some() => self.due(),
            }
        };
        // What they were about is done again by whoever has the session next.
        self.jobs.shutdown().await;
        self.leave(left);
        left
    }

    /// Whether nothing is left to do here.
    fn may_leave(&self) -> bool {
        if self.leaving.is_cancelled() {
            return true;
        }
        let unneeded = self.machine.is_over()
            || (self.unloading && self.machine.turn().is_none() && !self.machine.has_sandbox());
        unneeded && self.waiters.is_empty() && self.jobs.is_empty() && self.mailbox.is_empty()
    }

    /// Lets go. The agent's process goes on, and what it says is kept there for whoever attaches next.
    fn leave(mut self, left: Left) {
        let why = || match left {
            Left::Whole => Error::Stopping,
            Left::Fenced => Error::Fenced,
            Left::Broken => {
                let what = "something broke in this session, and it is being taken up again".to_owned();
                Error::Busy { what, retry_after_seconds: 2 }
            }
        };
        for waiter in self.waiters.drain(..) {
            command::answer(waiter.reply, Err(why()));
        }
        while let Ok(command) = self.mailbox.try_recv() {
            commands::refuse(command, why());
        }
    }

    /// Begins to commit what is drafted, unless a commit is on its way.
    fn flush(&mut self) {
        if self.committing.is_some() || self.draft.is_empty() || self.cut_off.is_some() {
            return;
        }
        let draft = std::mem::take(&mut self.draft);
        let mut commit = Commit::new(self.id.clone(), self.generation);
        // What an agent says word by word changes nothing of the record but the number of its last event, and the
        // store counts that by itself.
        if draft.session {
            commit.session = Some(self.session.clone());
        }
        if draft.agent {
            if let Some(driver) = &self.driver {
                self.agent.driver = driver.save();
            }
            self.trim_input();
            commit.agents.push(self.agent.clone());
        }
        self.commits_made += 1;
        commit.number = Some(self.commits_made);
        commit.events = draft.events.clone();
        commit.messages = draft.messages.into_values().collect();
        commit.questions = draft.questions.into_values().collect();
        commit.transcript = draft.transcript;
        commit.compact = draft.compact;
        // It is polled here and not by a task of its own, to which and back would be two more switches for each event
        // that is seen. At once, so that it is under way before anything else is looked at.
        let mut writing =
            AssertUnwindSafe(commit_patiently(Arc::clone(&self.shared), commit)).catch_unwind().boxed();
        let done = (&mut writing).now_or_never();
        self.committing = Some(Committing {
            writing,
            events: draft.events,
            after: draft.after,
            view: Arc::new(self.session.clone()),
            input: self.input_end(),
            unneeded: self.unneeded(),
        });
        if let Some(done) = done {
            self.committed(done);
        }
    }

    /// What was on its way is durable: it is seen, and what waited for that is done.
    fn committed(&mut self, done: Committed) {
        let Some(committing) = self.committing.take() else { return };
        if let Ok(Ok(())) = done {
            self.view.send_replace(committing.view);
            self.bus.publish(&committing.events);
            self.durable_input = committing.input;
            self.write_on();
            self.acknowledge(committing.unneeded);
            for act in committing.after {
                act(self);
            }
            return;
        }
        self.cut_off = Some(match done {
            Err(_) => {
                tracing::error!(session = %self.id, "a commit of a session broke");
                Left::Broken
            }
            Ok(done) => {
                let error = done.err().map(|error| error.to_string());
                tracing::warn!(session = %self.id, error, "a session is written by somebody else now");
                Left::Fenced
            }
        });
    }

    /// Tells the machine what happened, does what follows, and brings the record up to date.
    fn happened(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.run_inputs();
    }

    /// Tells the machine what came of its own effects.
    fn run_inputs(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            for effect in self.machine.happened(input) {
                self.carry_out(effect);
            }
            self.synchronize();
        }
    }

    /// Drafts an event of the turn that runs.
    fn journal(&mut self, kind: EventKind, data: &impl Serialize) -> u64 {
        let message = self.machine.turn().map(|turn| turn.message.clone());
        self.journal_of(message.as_deref(), kind, data)
    }

    /// Drafts an event of a message's turn.
    fn journal_of(&mut self, message: Option<&str>, kind: EventKind, data: &impl Serialize) -> u64 {
        self.session.last_event += 1;
        let seq = self.session.last_event;
        let data = draft::json(kind, data);
        self.count_written(data.get().len());
        let event = NewEvent { kind, message_id: message.map(Arc::from), data };
        self.draft.session |= kind != EventKind::BlockDelta;
        self.draft.push(Event::new(seq, crate::clock::now(), event));
        seq
    }

    /// Counts what the store is given to keep.
    fn count_written(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.agent.journaled = self.agent.journaled.saturating_add(bytes).saturating_add(EVENT);
    }

    /// Does something when all that is drafted until now is durable.
    fn when_durable(&mut self, act: impl FnOnce(&mut Self) + Send + 'static) {
        self.draft.after.push(Box::new(act));
    }

    /// Answers those who wait for what has come about, as soon as that is durable: what goes on meanwhile is no reason
    /// to have them wait.
    fn answer_waiters(&mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            let come = match &waiter.until {
                Until::TurnOver(message) => {
                    self.machine.turn().is_none_or(|turn| turn.message != *message) && self.is_swept()
                }
                Until::Swept => self.is_swept(),
                Until::Ended => self.session.status.is_final() && !self.machine.has_sandbox(),
                Until::NoSandbox => !self.machine.has_sandbox(),
            };
            if !come {
                if !waiter.reply.is_closed() {
                    self.waiters.push(waiter);
                }
                continue;
            }
            let session = self.session.clone();
            if self.committing.is_none() && self.draft.is_empty() {
                command::answer(waiter.reply, Ok(session));
            } else {
                self.when_durable(move |_| command::answer(waiter.reply, Ok(session)));
            }
        }
    }

    /// Answers those who wait for the sandbox to be gone, though another may be had at once.
    fn answer_unloaded(&mut self) {
        let (unloaded, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiters).into_iter().partition(|one| one.until == Until::NoSandbox);
        self.waiters = waiting;
        self.when_durable(move |worker| {
            for waiter in unloaded {
                command::answer(waiter.reply, Ok(worker.session.clone()));
            }
        });
    }

    fn is_swept(&self) -> bool {
        self.machine.agent() != crate::machine::Agent::Sweeping
    }
}

/// Commits, again and again while the store cannot, until another has the session.
async fn commit_patiently(shared: Arc<Shared>, commit: Commit) -> Result<()> {
    let mut pause = STORE_PAUSE.0;
    loop {
        let error = match shared.store.commit(commit.clone()).await {
            Ok(()) => {
                shared.store_works();
                return Ok(());
            }
            Err(error @ Error::Store { .. }) => error,
            Err(error) => return Err(error),
        };
        shared.store_failed(&error);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(STORE_PAUSE.1);
    }
}

/// How the commit that is on its way went; never without one.
async fn commit_ended(committing: &mut Option<Committing>) -> Committed {
    match committing {
        Some(committing) => (&mut committing.writing).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

#[cfg(test)]
mod tests;
