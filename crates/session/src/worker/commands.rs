//! What a worker does when others want something.

use super::command::{Command, Halt, Reply, Until, Waiter, answer, no_such};
use super::{Bounds, Worker, jobs, limits};
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::host::{Accepted, SendMessage, UpdateSession};
use crate::machine::{Input, Phase};
use crate::message::{Message, MessageState};
use crate::question::{Question, QuestionAnswer, QuestionState, Verdict};
use crate::session::Session;
use crate::status::EndReason;
use hostel_agent::{Answer, Content, Decision, Request};
use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Messages with keys that are remembered here; older ones are looked up in the store.
const MAX_KEYED: usize = 256;

/// Bytes of messages that may wait in a session.
const MAX_WAITING: usize = 64 << 20;
/// The longest that an agent may take to stop by itself.
const LONGEST_GRACE: Duration = Duration::from_secs(600);
/// How long a daemon that refused bounds is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

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
            Command::Send(message, reply) => match self.sent_before(&message) {
                Some(id) => self.replay_stored(id, message, reply),
                None => {
                    let accepted = self.accept(message);
                    self.reply(reply, accepted);
                }
            },
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
                self.hurry();
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

    /// The message that this one repeats. Others were looked for in the store before; these came since.
    fn sent_before(&self, send: &SendMessage) -> Option<String> {
        let key = send.idempotency_key.as_ref()?;
        self.keyed.iter().find(|(known, _)| known == key).map(|(_, id)| id.clone())
    }

    /// Answers with the message that the store has by then.
    fn replay_stored(&mut self, message: String, send: SendMessage, reply: Reply<Accepted>) {
        self.when_durable(move |worker| {
            let (shared, session) = (Arc::clone(&worker.shared), worker.id.clone());
            worker.jobs.spawn(async move {
                let known = shared.store.message(&session, &message).await;
                answer(reply, known.and_then(|known| replay(&known, &send)));
                jobs::Job::Done
            });
        });
    }

    fn accept(&mut self, send: SendMessage) -> Result<Accepted> {
        let status = self.machine.status();
        if status.is_final() || status == crate::status::SessionStatus::Stopping {
            let message = self.session.reason.map(|reason| reason.to_string());
            return Err(Error::NotActive { status, message });
        }
        let full = self.is_full().then_some(EndReason::StorageExceeded);
        let reached = || self.limit_reached().or_else(|| self.late());
        if let Some(reason) = full.or_else(reached) {
            let message = limits::sentence(&self.session, reason);
            return Err(Error::LimitReached { reason, message });
        }
        let position = self.messages.len();
        if position >= self.shared.config.max_queue {
            let what = format!("{position} messages wait in this session");
            return Err(Error::Busy { what, retry_after_seconds: 5 });
        }
        let size = |content: &[Content]| content.iter().map(Content::size).sum::<usize>();
        let waiting: usize = self.messages.iter().map(|one| size(&one.content)).sum();
        if position > 0 && waiting + size(&send.content) > MAX_WAITING {
            let what = format!("messages of {waiting} bytes wait in this session");
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
        if let Some(key) = &message.idempotency_key {
            self.keyed.push_back((key.clone(), id.clone()));
            if self.keyed.len() > MAX_KEYED {
                self.keyed.pop_front();
            }
        }
        self.messages.push(message.clone());
        self.draft.messages.insert(id.clone(), message.clone());
        self.happened(Input::Message(id));
        self.start_now();
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
        let mut question = self.take_question(place);
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
        let mut session = self.session.clone();
        macro_rules! change {
            ($($name:literal: $target:expr, $change:expr;)*) => {$(
                let change = $change;
                if !change.is_keep() {
                    fields.insert($name.to_owned(), json!(change));
                    $target = change.value().cloned();
                }
            )*};
        }
        if let Some(tags) = update.tags {
            fields.insert("tags".to_owned(), json!(tags));
            session.tags = tags;
        }
        change! {
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
            return Ok(session);
        }
        // The agent's own goes with it: otherwise nobody could raise that.
        if fields.contains_key("maxBudgetUsd") && session.config.max_budget_usd.is_some() {
            session.config.max_budget_usd = session.limits.max_budget_usd;
        }
        if session.config != self.session.config {
            super::options::check(&self.shared.config, &session)?;
        }
        let before = std::mem::replace(&mut self.session, session);
        self.journal(EventKind::MetadataUpdate, &json!({ "fields": fields }));
        self.draft.session = true;
        self.catch_up(&before);
        self.lift_limits();
        self.check_limits();
        Ok(self.session.clone())
    }

    /// Has the agent and the gateway follow what was changed of a session since it was like that.
    pub(super) fn catch_up(&mut self, before: &Session) {
        let now = &self.session.config;
        let model = (now.model != before.config.model).then(|| now.model.clone());
        let mode = (now.permission_mode != before.config.permission_mode)
            .then(|| now.permission_mode.unwrap_or_default());
        if let Some(model) = model {
            self.ask(Request::SetModel { id: super::meaning::change_of("the model"), model });
        }
        if let Some(mode) = mode {
            self.ask(Request::SetPermissionMode {
                id: super::meaning::change_of("the permission mode"),
                mode,
            });
        }
        let bounds = |session: &Session| (session.limits.max_budget_usd, session.limits.max_lifetime_ms);
        if bounds(&self.session) != bounds(before) {
            self.follow_bounds();
        }
    }

    /// Has the daemon know what the sandbox may spend and how long it may live, one call at a time: the last word is
    /// the newest.
    pub(super) fn follow_bounds(&mut self) {
        if self.agent.sandbox_id.is_none() {
            return;
        }
        match self.bounds {
            Bounds::Told => {
                self.bounds = Bounds::Telling;
                self.when_durable(|worker| worker.tell_bounds(Duration::ZERO));
            }
            Bounds::Telling | Bounds::Changed => self.bounds = Bounds::Changed,
        }
    }

    fn tell_bounds(&mut self, pause: Duration) {
        let (session, sandbox) = (self.session.clone(), self.agent.sandbox_id.clone());
        self.jobs.spawn(jobs::tell_bounds(Arc::clone(&self.shared), session, sandbox, pause));
    }

    pub(super) fn bounded(&mut self, told: Result<()>) {
        let again = match told {
            _ if self.agent.sandbox_id.is_none() => None,
            Ok(()) => (self.bounds == Bounds::Changed).then_some(Duration::ZERO),
            Err(Error::Daemon(error)) if error.is_not_found() => None,
            Err(error) => {
                tracing::warn!(session = %self.id, %error, "the daemon does not know a session's new bounds; it is told again");
                let is_away = matches!(&error, Error::Daemon(error) if error.is_connection());
                Some(if is_away { super::effects::PAUSE } else { REFUSED_PAUSE })
            }
        };
        self.bounds = if again.is_some() { Bounds::Telling } else { Bounds::Told };
        if let Some(pause) = again {
            self.tell_bounds(pause);
        }
    }

    /// A turn that is being stopped has no longer than is given now.
    fn hurry(&mut self) {
        let latest = Instant::now() + self.stop_grace;
        self.grace = self.grace.map(|at| at.min(latest));
    }

    fn halt(&mut self, halt: Halt, reply: Reply<Session>) {
        let until = match self.machine.turn() {
            Some(turn) => Until::TurnOver(turn.message.clone()),
            None => Until::Swept,
        };
        match halt {
            Halt::Interrupt => self.happened(Input::Interrupt),
            Halt::Stop(grace) => {
                let usual = std::mem::replace(&mut self.stop_grace, grace.min(LONGEST_GRACE));
                self.hurry();
                // Between turns there is nobody to ask, but there may be what one of them left in the background.
                let runs = self.machine.turn().is_some_and(|turn| turn.phase != Phase::Settling);
                let leaves = self.driver.as_ref().is_some_and(|driver| driver.has_tasks());
                self.happened(if leaves && !runs { Input::Kill } else { Input::Stop });
                self.stop_grace = usual;
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
