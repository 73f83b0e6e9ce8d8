//! What a worker does when others want something.

use super::command::{Command, Halt, Reply, Until, Waiter, answer, no_such};
use super::{Worker, jobs, limits};
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::host::{Accepted, SendMessage, UpdateSession};
use crate::machine::Input;
use crate::message::{Message, MessageState};
use crate::question::{Question, QuestionAnswer, QuestionState, Verdict};
use crate::session::Session;
use hostel_agent::{Answer, Decision, Request};
use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Duration;

/// Messages with keys that are remembered here; older ones are looked up in the store.
const MAX_KEYED: usize = 256;

/// Nobody does it any more.
pub(super) fn refuse(command: Command, error: Error) {
    match command {
        Command::Send(_, reply) => answer(reply, Err(error)),
        Command::Cancel(_, reply) => answer(reply, Err(error)),
        Command::Queue(reply) => answer(reply, Err(error)),
        Command::Questions(reply) => answer(reply, Err(error)),
        Command::Answer(_, _, reply) => answer(reply, Err(error)),
        Command::Update(_, reply)
        | Command::Halt(_, reply)
        | Command::End(_, reply)
        | Command::Unload(reply) => answer(reply, Err(error)),
    }
}

impl Worker {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Send(message, reply) => {
                let accepted = self.accept(message);
                self.reply(reply, accepted);
            }
            Command::Cancel(id, reply) => {
                let cancelled = self.cancel(&id);
                self.reply(reply, cancelled);
            }
            Command::Queue(reply) => answer(reply, Ok(self.messages.clone())),
            Command::Questions(reply) => answer(reply, Ok(self.questions.clone())),
            Command::Answer(id, given, reply) => {
                let decided = self.decide(&id, given);
                self.reply(reply, decided);
            }
            Command::Update(update, reply) => {
                let updated = self.update(update);
                self.reply(reply, updated);
            }
            Command::Halt(halt, reply) => self.halt(halt, reply),
            Command::End(reason, reply) => {
                self.happened(Input::End(reason));
                self.wait(Until::Ended, reply);
            }
            Command::Unload(reply) => {
                if self.machine.turn().is_some() {
                    let what = "a turn runs: stop it first".to_owned();
                    return answer(reply, Err(Error::Busy { what, retry_after_seconds: 1 }));
                }
                self.unloading = true;
                self.happened(Input::Unload);
                self.wait(Until::NoSandbox, reply);
            }
        }
    }

    /// Answers when what was done is durable.
    fn reply<T: Send + 'static>(&mut self, reply: Reply<T>, result: Result<T>) {
        match result {
            Ok(done) => self.when_durable(move |_| answer(reply, Ok(done))),
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn wait(&mut self, until: Until, reply: Reply<Session>) {
        self.waiters.push(Waiter { until, reply });
    }

    fn accept(&mut self, send: SendMessage) -> Result<Accepted> {
        if let Some(key) = &send.idempotency_key
            && let Some(known) = self.keyed.iter().find(|one| one.idempotency_key.as_ref() == Some(key))
        {
            let now = self.messages.iter().find(|one| one.id == known.id).unwrap_or(known);
            return replay(now, &send);
        }
        let status = self.machine.status();
        if status.is_final() || status == crate::status::SessionStatus::Stopping {
            let message = self.session.reason.map(|reason| reason.to_string());
            return Err(Error::NotActive { status, message });
        }
        if let Some(reason) = limits::reached(&self.session).or_else(|| limits::late(&self.session)) {
            let message = limits::sentence(&self.session, reason);
            return Err(Error::LimitReached { reason, message });
        }
        let position = self.messages.len();
        if position >= self.shared.config.max_queue {
            let what = format!("{position} messages wait in this session");
            return Err(Error::Busy { what, retry_after_seconds: 5 });
        }
        self.unloading = false;
        let id = crate::id::new_id();
        let queued = json!({ "messageId": id, "position": position, "content": send.content });
        let seq = self.journal_of(Some(&id), EventKind::MessageQueued, &queued);
        let message = Message {
            id: id.clone(),
            idempotency_key: send.idempotency_key,
            content: send.content,
            state: MessageState::Queued,
            seq,
            created_at: crate::clock::now(),
            started_at: None,
            ended_at: None,
            outcome: None,
        };
        if message.idempotency_key.is_some() {
            self.keyed.push_back(message.clone());
            if self.keyed.len() > MAX_KEYED {
                self.keyed.pop_front();
            }
        }
        self.messages.push(message.clone());
        self.draft.messages.insert(id.clone(), message.clone());
        self.happened(Input::Message(id));
        Ok(Accepted { message, position, replayed: false })
    }

    fn cancel(&mut self, id: &str) -> Result<Message> {
        let waits = |one: &&Message| one.id == id && one.state == MessageState::Queued;
        let Some(message) = self.messages.iter().find(waits).cloned() else {
            return Err(no_such("waiting message", id));
        };
        self.happened(Input::Cancel(id.to_owned()));
        Ok(Message { state: MessageState::Cancelled, ended_at: Some(crate::clock::now()), ..message })
    }

    /// Decides a question.
    pub(super) fn decide(&mut self, id: &str, given: QuestionAnswer) -> Result<Question> {
        let Some(place) = self.questions.iter().position(|one| one.id == id) else {
            return Err(no_such("question", id));
        };
        let decision = match given.verdict {
            Verdict::Allow => Decision::Allow { input: given.input, for_session: false },
            Verdict::AllowForSession => Decision::Allow { input: given.input, for_session: true },
            Verdict::Deny => Decision::Deny {
                message: given.message.clone().unwrap_or_else(|| "The user does not want this.".to_owned()),
                interrupt: given.interrupt,
            },
        };
        if let Some(driver) = &mut self.driver {
            driver.request(Request::Answer(Answer { question: id.to_owned(), decision }))?;
        }
        let mut question = self.questions.remove(place);
        question.state = QuestionState::Answered;
        question.verdict = Some(given.verdict);
        question.decided_by = Some(given.decided_by.unwrap_or_else(|| "user".to_owned()));
        let resolved = json!({
            "questionId": id, "verdict": given.verdict, "decidedBy": question.decided_by, "message": given.message
        });
        self.journal(EventKind::PermissionResolved, &resolved);
        self.draft.questions.insert(question.id.clone(), question.clone());
        self.listen_to_driver();
        Ok(question)
    }

    fn update(&mut self, update: UpdateSession) -> Result<Session> {
        let mut fields = Map::new();
        let session = &mut self.session;
        macro_rules! change {
            ($($name:literal: $target:expr, $value:expr;)*) => {$(
                if let Some(value) = $value {
                    fields.insert($name.to_owned(), json!(value));
                    $target = value.into();
                }
            )*};
        }
        let budget = update.max_budget_usd.is_some();
        let (model, mode) = (update.model.clone(), update.permission_mode);
        change! {
            "tags": session.tags, update.tags;
            "description": session.description, update.description;
            "userId": session.user_id, update.user_id;
            "conversationId": session.conversation_id, update.conversation_id;
            "maxIdleTimeMs": session.limits.max_idle_time_ms, update.max_idle_time_ms;
            "maxLifetimeMs": session.limits.max_lifetime_ms, update.max_lifetime_ms;
            "maxBudgetUsd": session.limits.max_budget_usd, update.max_budget_usd;
            "maxTurns": session.limits.max_turns, update.max_turns;
            "model": session.config.model, update.model;
            "permissionMode": session.config.permission_mode, update.permission_mode;
        }
        if fields.is_empty() {
            return Ok(self.session.clone());
        }
        self.journal(EventKind::MetadataUpdate, &json!({ "fields": fields }));
        self.draft.session = true;
        let id = crate::id::new_id();
        if model.is_some() {
            self.ask(Request::SetModel { id: id.clone(), model });
        }
        if let Some(mode) = mode {
            self.ask(Request::SetPermissionMode { id, mode });
        }
        if budget && self.machine.has_sandbox() && self.shared.config.gateway {
            self.when_durable(|worker| {
                let (shared, session) = (Arc::clone(&worker.shared), worker.session.clone());
                worker.jobs.spawn(jobs::rebudget(shared, session));
            });
        }
        Ok(self.session.clone())
    }

    fn halt(&mut self, halt: Halt, reply: Reply<Session>) {
        let until = match self.machine.turn() {
            Some(turn) => Until::TurnOver(turn.message.clone()),
            None => Until::Swept,
        };
        match halt {
            Halt::Interrupt => self.happened(Input::Interrupt),
            Halt::Stop(grace) => {
                self.stop_grace = grace.min(Duration::from_secs(300));
                self.happened(Input::Stop);
            }
            Halt::Kill => self.happened(Input::Kill),
        }
        self.wait(until, reply);
    }
}

/// The answer to a message that was sent before.
///
/// # Errors
/// [`Error::KeyReused`] where it is another.
pub(crate) fn replay(known: &Message, send: &SendMessage) -> Result<Accepted> {
    if known.content != send.content {
        return Err(Error::KeyReused { key: send.idempotency_key.clone().unwrap_or_default() });
    }
    Ok(Accepted { message: known.clone(), position: 0, replayed: true })
}
