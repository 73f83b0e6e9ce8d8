//! What the machine wants done, and what comes of it.

use super::Worker;
use super::jobs::{self, Job, Progress};
use super::link::Link;
use super::meaning::clipped;
use super::options;
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::machine::{Agent, Effect, Input, Phase, TurnEnd};
use crate::message::{MessageOutcome, MessageState};
use crate::session::{ActiveTurn, TurnPhase};
use crate::status::{EndReason, EnvironmentStatus};
use crate::usd::Usd;
use hostel_agent::{Block, BlockKind, Content, Prompt, Request};
use hostel_client::ExecSession;
use hostel_client::model::StartKind;
use jiff::Timestamp;
use jobs::Started;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a job that failed waits before it is done again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The end of a turn, as the journal has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Completed<'a> {
    message_id: &'a str,
    outcome: &'a MessageOutcome,
    tools_used: &'a BTreeSet<String>,
}

impl Worker {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::BeginTurn(message) => self.begin_turn(&message),
            Effect::Start => self.start(),
            Effect::StartAgain => self.start_again(),
            Effect::Prompt(message) => self.prompt(&message),
            Effect::Interrupt => self.interrupt(),
            Effect::ArmGrace => self.grace = Some(Instant::now() + self.stop_grace),
            Effect::Sweep => {
                self.grace = None;
                if self.machine.turn().is_none() {
                    // Until now it did something of its own accord.
                    self.session.last_activity_at = Some(crate::clock::now());
                }
                let epoch = self.epoch;
                self.when_durable(move |worker| worker.sweep(epoch, Duration::ZERO));
            }
            Effect::Settle => {
                // What is asked from here on is asked by what goes on without a turn.
                if self.machine.agent() != Agent::Busy {
                    self.deny_questions();
                }
                self.settle();
            }
            Effect::EndTurn(message, end) => self.end_turn(&message, end),
            Effect::Drop(message, why) => self.drop_message(&message, why),
            Effect::Close => self.close(),
            Effect::CloseLater => {
                self.close_at = Some(Instant::now() + self.shared.config.ephemeral_retention);
            }
            Effect::Ended(reason) => self.ended(reason),
        }
    }

    fn begin_turn(&mut self, message: &str) {
        let now = crate::clock::now();
        self.session.started_at.get_or_insert(now);
        self.session.last_activity_at = Some(now);
        self.model_calls = Default::default();
        if let Some(message) = self.messages.iter_mut().find(|one| one.id == message) {
            message.state = MessageState::Running;
            message.started_at = Some(now);
            self.draft.messages.insert(message.id.clone(), message.clone());
        }
        self.journal_of(Some(message), EventKind::TurnStarted, &json!({ "messageId": message }));
        let Some(text) = self.messages.iter().find(|one| one.id == message).map(|one| text_of(&one.content))
        else {
            return;
        };
        let block = Block { id: message.to_owned(), kind: BlockKind::UserMessage { text } };
        let begun = json!({ "conversationId": "main", "block": block });
        self.journal_of(Some(message), EventKind::BlockStart, &begun);
        let complete = json!({ "conversationId": "main", "blockId": message, "block": block });
        self.journal_of(Some(message), EventKind::BlockComplete, &complete);
    }

    fn prompt(&mut self, id: &str) {
        let Some(message) = self.messages.iter().find(|one| one.id == id) else { return };
        let content = message.content.clone();
        let budget = options::agent_budget(&self.session, self.shared.config.gateway);
        let Some(driver) = &mut self.driver else { return };
        if !driver.keeps_budget(budget.map(Usd::dollars)) {
            return self.inputs.push_back(Input::Outdated);
        }
        match driver.request(Request::Prompt(Prompt { uuid: id.to_owned(), content })) {
            Ok(()) => self.listen_to_driver(),
            Err(error) => {
                let text = Some(error.to_string());
                self.outcome(id, |outcome| {
                    *outcome = MessageOutcome {
                        is_error: true,
                        result: "refused".to_owned(),
                        text,
                        ..MessageOutcome::default()
                    };
                });
                self.inputs.extend([Input::Answered, Input::Idle]);
            }
        }
    }

    /// Asks the agent to stop; one that cannot be asked has the signal that a terminal would send.
    fn interrupt(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        if driver.request(Request::Interrupt { id: crate::id::new_id() }).is_ok() {
            return self.listen_to_driver();
        }
        self.when_durable(|worker| {
            let (shared, agent) = (Arc::clone(&worker.shared), worker.agent.clone());
            worker.jobs.spawn(jobs::interrupt(shared, agent));
        });
    }

    /// Asks the agent for something that it may not be able to do.
    pub(super) fn ask(&mut self, request: Request) {
        let Some(driver) = &mut self.driver else { return };
        if let Err(error) = driver.request(request) {
            let message = error.to_string();
            self.journal(EventKind::Log, &json!({ "level": "warn", "message": message }));
        }
        self.listen_to_driver();
    }

    /// Changes what came of a message whose turn runs.
    pub(super) fn outcome(&mut self, id: &str, change: impl FnOnce(&mut MessageOutcome)) {
        if let Some(message) = self.messages.iter_mut().find(|one| one.id == id) {
            change(message.outcome.get_or_insert_default());
            self.draft.messages.insert(message.id.clone(), message.clone());
        }
    }

    pub(super) fn sweep(&mut self, epoch: u64, pause: Duration) {
        let (shared, agent) = (Arc::clone(&self.shared), self.agent.clone());
        self.jobs.spawn(async move {
            tokio::time::sleep(pause).await;
            jobs::sweep(shared, agent, epoch).await
        });
    }

    fn end_turn(&mut self, id: &str, end: TurnEnd) {
        self.grace = None;
        if end == TurnEnd::Answered {
            self.restarts.clear();
        }
        let now = crate::clock::now();
        self.session.last_activity_at = Some(now);
        let Some(place) = self.messages.iter().position(|one| one.id == id) else { return };
        let mut message = self.messages.remove(place);
        let mut outcome = message.outcome.take().unwrap_or_default();
        if end != TurnEnd::Answered {
            outcome.is_error = true;
            outcome.result = end.as_str().to_owned();
            if matches!(end, TurnEnd::EnvironmentFailed | TurnEnd::AgentExited) && outcome.text.is_none() {
                outcome.text =
                    self.session.reason_message.clone().or(self.session.environment.message.clone());
            }
            if end == TurnEnd::AgentExited && self.machine.stands_for(EndReason::Error) {
                self.session.reason_message =
                    self.session.reason_message.take().or(outcome.text.as_deref().map(clipped));
            }
        } else if outcome.result.is_empty() {
            outcome.result = end.as_str().to_owned();
        }
        outcome.latency =
            u64::try_from(now.duration_since(message.created_at).as_millis()).unwrap_or_default();
        let tools = std::mem::take(&mut self.tools);
        let completed = Completed { message_id: id, outcome: &outcome, tools_used: &tools };
        self.journal_of(Some(id), EventKind::TurnCompleted, &completed);
        message.outcome = Some(outcome);
        message.state = MessageState::Done;
        message.ended_at = Some(now);
        self.draft.messages.insert(message.id.clone(), message);
        self.when_durable(Self::mirror);
    }

    fn drop_message(&mut self, id: &str, why: &'static str) {
        let Some(place) = self.messages.iter().position(|one| one.id == id) else { return };
        let mut message = self.messages.remove(place);
        message.state = MessageState::Cancelled;
        message.ended_at = Some(crate::clock::now());
        self.journal_of(Some(id), EventKind::MessageCancelled, &json!({ "messageId": id, "reason": why }));
        self.draft.messages.insert(message.id.clone(), message);
    }

    fn ended(&mut self, reason: EndReason) {
        let now = crate::clock::now();
        if reason == EndReason::Completed {
            self.session.completed_at = Some(now);
        } else {
            self.session.terminated_at = Some(now);
        }
    }

    pub(super) fn job_done(&mut self, job: Job) {
        match job {
            Job::Started(epoch, started) => self.started(epoch, started),
            Job::Attached(number, attached) if number == self.attachments => self.attached(attached),
            Job::Swept(epoch, _) if epoch != self.epoch => {}
            Job::Swept(_, Ok(())) => {
                self.has_swept = true;
                self.resists = false;
                self.swept();
            }
            Job::Swept(epoch, Err(error)) => {
                tracing::warn!(session = %self.id, %error, "the processes of a session could not be killed; it is tried again");
                // Nobody but who asked knows whether the sandbox is worth waiting for.
                if !std::mem::replace(&mut self.resists, true) {
                    let message = format!(
                        "the processes in the sandbox could not be killed: {error}; it is tried until they are, or until \
                         the session is terminated, which removes the sandbox"
                    );
                    self.journal(EventKind::Log, &json!({ "level": "warn", "message": message }));
                }
                self.sweep(epoch, PAUSE);
            }
            Job::Settled(turn, spent) => {
                self.settled(&turn, spent);
                self.run_inputs();
            }
            Job::Counted(spent) => self.counted(spent),
            Job::Mirrored(epoch, mirrored) => self.mirrored(epoch, mirrored),
            Job::Closed(closed) => self.closed(closed),
            Job::Bounded(told) => self.bounded(told),
            Job::Attached(..) | Job::Done => {}
        }
    }

    fn started(&mut self, epoch: u64, started: Result<Started>) {
        // What it told on its way comes before its end.
        while let Ok((epoch, progress)) = self.progress.try_recv() {
            self.progressed(epoch, progress);
        }
        self.starting = None;
        if std::mem::take(&mut self.close_after_start) {
            self.epoch += 1;
            return self.when_durable(Self::close_when_mirrored);
        }
        if epoch != self.epoch {
            return;
        }
        match started {
            Ok(Started { driver, session, sandbox, process, claimed, with }) => {
                // One that is used again was told to nobody since the environment failed.
                self.agent.sandbox_id = Some(sandbox.to_string());
                self.session.environment.sandbox_id.clone_from(&self.agent.sandbox_id);
                self.agent.process_id = Some(process.to_string());
                self.agent.input_offset = session.process.stdin_offset;
                self.agent.input.clear();
                self.durable_input = self.agent.input_offset;
                self.draft.agent = true;
                self.driver = Some(driver);
                self.link = Some(Link::new(session));
                self.session.environment.message = Some("Ready".to_owned());
                if claimed {
                    self.session.environment.start = Some("claimed".to_owned());
                }
                self.listen_to_driver();
                // What it is asked for before it is ready waits in the driver.
                self.catch_up(&with);
                self.happened(Input::Ready);
            }
            Err(Error::Again) => self.start(),
            Err(error) => {
                let message = error.to_string();
                tracing::warn!(session = %self.id, error = %message, "no environment for a session");
                self.session.environment.message = Some(message.clone());
                self.session.reason_message = Some(message.clone());
                self.journal(EventKind::Error, &json!({ "code": "environment_failed", "message": message }));
                self.happened(Input::StartFailed);
            }
        }
    }

    fn attached(&mut self, attached: Result<ExecSession>) {
        match attached {
            Ok(session) => {
                if session.process.stdin_offset > self.input_end() {
                    // Somebody else wrote to it. What we had to say is said after that.
                    self.agent.input_offset = session.process.stdin_offset;
                    self.durable_input = self.agent.input_offset;
                    self.draft.agent = true;
                }
                self.link = Some(Link::new(session));
                self.listen_to_driver();
                self.write_on();
            }
            Err(Error::Daemon(error)) => self.detached(Some(error)),
            Err(Error::NoEnvironment { message }) => {
                tracing::warn!(session = %self.id, message, "the sandbox of a session does not run any more");
                self.lose_process();
                if !self.swept() {
                    self.sandbox_gone();
                }
            }
            Err(error) => {
                tracing::error!(session = %self.id, %error, "an agent cannot be attached to");
                self.lose_process();
                if !self.swept() {
                    self.happened(Input::Exited { expected: false });
                }
            }
        }
    }

    /// Attaches to the agent's process anew, from where its output is dealt with.
    pub(super) fn attach_again(&mut self) {
        let Some(driver) = &self.driver else { return };
        // What it has of a line that was not complete comes again.
        match self.session.config.agent.restore(&driver.save()) {
            Ok(restored) => self.driver = Some(restored),
            Err(error) => tracing::error!(session = %self.id, %error, "a driver does not know what it saved"),
        }
        // Whoever took stdin from us may have taken the session too: the store knows.
        self.draft.session = true;
        self.begin_attach(PAUSE);
    }

    pub(super) fn begin_attach(&mut self, pause: Duration) {
        self.attachments += 1;
        let (shared, agent, from) = (Arc::clone(&self.shared), self.agent.clone(), self.consumed());
        self.jobs.spawn(jobs::reattach(shared, agent, from, self.attachments, pause));
    }

    pub(super) fn progressed(&mut self, epoch: u64, progress: Progress) {
        if epoch != self.epoch {
            return;
        }
        match progress {
            Progress::Doing(what) => self.session.environment.message = Some(what.to_owned()),
            Progress::Sandbox(id, kind) => {
                self.agent.sandbox_id = Some(id.to_string());
                self.draft.agent = true;
                self.session.environment.sandbox_id = Some(id.to_string());
                self.session.environment.start =
                    Some(if kind == StartKind::Warm { "warm" } else { "cold" }.to_owned());
            }
            Progress::ToolResults(restored) => return self.restored(restored),
            Progress::FreshWorkspace => {
                let message =
                    "the sandbox is a new one: the conversation goes on, the files of the workspace are gone";
                self.journal(EventKind::Log, &json!({ "level": "warn", "message": message }));
            }
        }
        let environment = self.session.environment.clone();
        self.journal(EventKind::EnvironmentChanged, &json!({ "environment": environment }));
    }

    /// Brings the record up to date with the machine, and journals what changed.
    pub(super) fn synchronize(&mut self) {
        let environment = self.machine.environment();
        if self.session.environment.status != environment {
            self.session.environment.status = environment;
            if environment != EnvironmentStatus::Starting && environment != EnvironmentStatus::Ready {
                self.session.environment.sandbox_id = None;
            }
            let environment = self.session.environment.clone();
            self.journal(EventKind::EnvironmentChanged, &json!({ "environment": environment }));
        }
        let current_tool = self.session.active_turn.take().and_then(|active| active.current_tool);
        self.session.active_turn = self.machine.turn().map(|turn| ActiveTurn {
            message_id: turn.message.clone(),
            started_at: self.started_at(&turn.message),
            phase: phase(turn.phase),
            begun: turn.begun,
            answered: turn.answered,
            end: (turn.end != TurnEnd::Answered).then(|| turn.end.as_str().to_owned()),
            current_tool,
        });
        let (status, reason) = (self.machine.status(), self.machine.reason());
        if (self.session.status, self.session.reason) != (status, reason) {
            (self.session.status, self.session.reason) = (status, reason);
            if reason.is_none() {
                self.session.reason_message = None;
            }
            let message = self.session.reason_message.clone();
            let changed = json!({ "status": status, "reason": reason, "message": message });
            self.journal(EventKind::StatusChanged, &changed);
            // After that, for who reads no further. There is no way back from there: it comes once.
            if status.is_final() {
                let ended = json!({ "reason": reason, "message": self.session.reason_message });
                self.journal(EventKind::SessionEnded, &ended);
            }
        }
        self.draft.session = true;
    }

    fn started_at(&self, message: &str) -> Timestamp {
        let message = self.messages.iter().find(|one| one.id == message);
        message.and_then(|message| message.started_at).unwrap_or_else(crate::clock::now)
    }
}

fn phase(phase: Phase) -> TurnPhase {
    match phase {
        Phase::Starting => TurnPhase::Starting,
        Phase::Running => TurnPhase::Running,
        Phase::Settling => TurnPhase::Settling,
        Phase::Interrupting => TurnPhase::Interrupting,
        Phase::Stopping => TurnPhase::Stopping,
        Phase::Killing => TurnPhase::Killing,
    }
}

/// What a message says, for people; pictures are told in brackets.
fn text_of(content: &[Content]) -> String {
    let parts: Vec<String> = content
        .iter()
        .map(|part| match part {
            Content::Text { text } => text.clone(),
            Content::Image { media_type, .. } => format!("[{media_type}]"),
        })
        .collect();
    parts.join("\n")
}
