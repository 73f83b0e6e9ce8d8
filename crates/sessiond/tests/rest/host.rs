//! Sessions in memory whose agent says the same to everybody, for what the server makes of them.

use async_trait::async_trait;
use hostel_session::agent::{Content, Usage};
use hostel_session::client::Client;
use hostel_session::client::domain::SandboxId;
use hostel_session::{
    Accepted, CreateSession, Created, Delivery, EndReason, Environment, Error, Event, EventKind, Health,
    ListSessions, Message, MessageOutcome, MessageState, NewEvent, Question, QuestionAnswer, QuestionState,
    Result, SendMessage, Session, SessionHost, SessionId, SessionPage, SessionStatus, Start, Statistics,
    SubscriptionSource, UpdateSession, Usd, new_id,
};
use jiff::Timestamp;
use serde_json::{Value, json, value::to_raw_value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// Sessions in memory.
#[derive(Default)]
pub(crate) struct MemoryHost(Arc<Mutex<BTreeMap<SessionId, Entry>>>, pub(crate) Gate);

/// Where messages are held until somebody lets them go on, whether all is over, and how often events cannot be read.
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    over: AtomicBool,
    failures: Arc<AtomicU32>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::Sender::new(true), over: AtomicBool::new(false), failures: Arc::default() }
    }
}

impl Gate {
    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    pub(crate) fn fail(&self, times: u32) {
        self.failures.store(times, Ordering::Relaxed);
    }
}

struct Entry {
    session: Session,
    events: Vec<Arc<Event>>,
    messages: Vec<Message>,
    questions: Vec<Question>,
    grown: watch::Sender<u64>,
}

impl Entry {
    fn push(&mut self, kind: EventKind, message: Option<&str>, data: &Value) -> u64 {
        let seq = self.session.last_event + 1;
        let data = Arc::from(to_raw_value(data).unwrap());
        let event = NewEvent { kind, message_id: message.map(Into::into), data };
        self.events.push(Arc::new(Event::new(seq, Timestamp::now(), event)));
        self.session.last_event = seq;
        self.grown.send_replace(seq);
        seq
    }

    /// A turn: the agent thinks, uses a tool, answers.
    fn turn(&mut self, id: &str) {
        let of = Some(id);
        let assistant = json!({ "type": "assistant", "parent_tool_use_id": null,
            "message": { "role": "assistant", "content": [{ "type": "text", "text": "Hello." }] } });
        let result = json!({ "type": "result", "subtype": "success", "result": "Hello." });
        let delta =
            json!({ "conversationId": "main", "blockId": "b1", "index": 0, "kind": "text", "delta": "Hel" });
        let tool = json!({ "conversationId": "main", "blockId": "b2", "block":
            { "id": "b2", "type": "tool_use", "name": "Bash", "input": {}, "status": "success" } });
        self.push(EventKind::TurnStarted, of, &json!({ "messageId": id }));
        self.push(EventKind::BlockDelta, of, &delta);
        self.push(EventKind::BlockComplete, of, &tool);
        self.push(EventKind::AgentMessage, Some("another"), &json!({ "message": { "type": "not-ours" } }));
        self.push(EventKind::AgentMessage, of, &json!({ "message": assistant }));
        self.push(EventKind::AgentMessage, of, &json!({ "message": result }));
        let usage = Usage { input: 10, output: 5, cache_creation: 1, cache_read: 2 };
        let outcome = MessageOutcome {
            result: "success".to_owned(),
            text: Some("Hello.".to_owned()),
            usage,
            cost: Usd::from_micros(1500),
            latency: 42,
            num_turns: 2,
            raw: Some(result),
            ..MessageOutcome::default()
        };
        self.push(EventKind::TurnCompleted, of, &json!({ "messageId": id, "outcome": outcome }));
        let message = self.messages.iter_mut().find(|message| message.id == id).unwrap();
        (message.state, message.outcome) = (MessageState::Done, Some(outcome));
        self.session.status = SessionStatus::Idle;
    }
}

impl MemoryHost {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Entry>> {
        self.0.lock().unwrap()
    }

    fn with<T>(&self, id: &SessionId, work: impl FnOnce(&mut Entry) -> Result<T>) -> Result<T> {
        let mut sessions = self.lock();
        work(sessions.get_mut(id).ok_or_else(|| Error::NotFound { id: id.clone() })?)
    }

    /// The agent asks.
    pub(crate) fn ask(&self, id: &SessionId) -> String {
        let now = Timestamp::now();
        let question = Question {
            id: new_id(),
            tool: "Bash".to_owned(),
            input: json!({ "command": "rm -r /" }),
            description: None,
            tool_use_id: None,
            state: QuestionState::Pending,
            asked_at: now,
            expires_at: now,
            verdict: None,
            decided_by: None,
        };
        let asked = question.id.clone();
        self.with(id, |entry| {
            entry.push(EventKind::PermissionRequested, None, &json!({ "question": question }));
            entry.questions.push(question);
            Ok(())
        })
        .unwrap();
        asked
    }

    /// The agent writes a line with so long a text.
    pub(crate) fn write_long(&self, id: &SessionId, bytes: usize) {
        let line = json!({ "message": { "type": "user", "text": "x".repeat(bytes) } });
        self.with(id, |entry| Ok(entry.push(EventKind::AgentMessage, None, &line))).unwrap();
    }

    /// Waits until a message is held.
    pub(crate) async fn held(&self) {
        while self.1.open.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.1.over.load(Ordering::Relaxed)
    }

    /// The turn that hangs goes on.
    pub(crate) fn finish(&self, id: &SessionId, message: &str) {
        self.with(id, |entry| {
            entry.turn(message);
            Ok(())
        })
        .unwrap();
    }
}

fn session(id: SessionId, create: CreateSession) -> Session {
    Session {
        id,
        session_id: String::new(),
        pattern: create.pattern.unwrap_or(hostel_session::Pattern::Ephemeral),
        status: SessionStatus::Initializing,
        reason: None,
        reason_message: None,
        environment: Environment::default(),
        active_turn: None,
        conversation_id: create.conversation_id,
        limits: create.limits(),
        config: create.config,
        created_at: Timestamp::now(),
        started_at: None,
        last_activity_at: None,
        completed_at: None,
        terminated_at: None,
        total_cost: Usd::default(),
        agent_cost: Usd::default(),
        total_tokens: 0,
        input_tokens: 0,
        output_tokens: 0,
        cached_tokens: 0,
        num_turns: 0,
        tools_used: Vec::new(),
        tags: create.tags,
        description: create.description,
        user_id: create.user_id,
        last_event: 0,
    }
}

#[async_trait]
impl SessionHost for MemoryHost {
    async fn create(&self, create: CreateSession) -> Result<Created> {
        let id = create.id.clone().unwrap_or_else(SessionId::generate);
        let mut sessions = self.lock();
        if sessions.contains_key(&id) {
            return Err(Error::Exists { id });
        }
        let session = session(id.clone(), create);
        let (grown, _) = watch::channel(0);
        let (events, messages, questions) = (Vec::new(), Vec::new(), Vec::new());
        let mut entry = Entry { session, events, messages, questions, grown };
        let data = json!({ "session": entry.session });
        entry.push(EventKind::SessionCreated, None, &data);
        let session = entry.session.clone();
        sessions.insert(id, entry);
        Ok(Created { session, replayed: false })
    }

    async fn get(&self, id: &SessionId) -> Result<Session> {
        self.with(id, |entry| Ok(entry.session.clone()))
    }

    async fn list(&self, list: &ListSessions) -> Result<SessionPage> {
        let wanted = |session: &Session| {
            list.pattern.is_none_or(|pattern| session.pattern == pattern)
                && list.status.is_none_or(|status| session.status == status)
                && list.user_id.as_ref().is_none_or(|user| session.user_id.as_ref() == Some(user))
                && (list.tags.is_empty() || list.tags.iter().any(|tag| session.tags.contains(tag)))
        };
        let all: Vec<Session> =
            self.lock().values().map(|entry| entry.session.clone()).filter(wanted).collect();
        let Start::Page(number) = list.start else { panic!("REST asks for pages by their number") };
        let skip = (number - 1).saturating_mul(list.page_size);
        let page =
            all.iter().skip(usize::try_from(skip).unwrap()).take(usize::try_from(list.page_size).unwrap());
        let (total, sessions) = (all.len() as u64, page.cloned().collect());
        Ok(SessionPage { sessions, total, page: number, page_size: list.page_size, next: None })
    }

    async fn statistics(&self) -> Result<Statistics> {
        Ok(Statistics { total_sessions: self.lock().len() as u64, ..Statistics::default() })
    }

    async fn update(&self, id: &SessionId, update: UpdateSession) -> Result<Session> {
        self.with(id, |entry| {
            if !update.description.is_keep() {
                entry.session.description = update.description.value().cloned();
            }
            Ok(entry.session.clone())
        })
    }

    async fn delete(&self, id: &SessionId) -> Result<()> {
        self.lock().remove(id).map(drop).ok_or_else(|| Error::NotFound { id: id.clone() })
    }

    async fn load(&self, id: &SessionId) -> Result<Session> {
        self.get(id).await
    }

    async fn unload(&self, id: &SessionId) -> Result<()> {
        self.get(id).await.map(drop)
    }

    fn is_loaded(&self, id: &SessionId) -> bool {
        self.lock().contains_key(id)
    }

    fn loaded(&self) -> Vec<SessionId> {
        self.lock().keys().cloned().collect()
    }

    /// "hang" hangs, "busy" is too much, all else has its turn at once.
    async fn send(&self, id: &SessionId, send: SendMessage) -> Result<Accepted> {
        let _ = self.1.open.subscribe().wait_for(|open| *open).await;
        self.with(id, |entry| {
            let status = entry.session.status;
            if status.is_final() {
                return Err(Error::NotActive { status, message: None });
            }
            let is = |word: &str| send.content == [Content::Text { text: word.to_owned() }];
            if is("busy") {
                return Err(Error::Busy {
                    what: "too many messages wait".to_owned(),
                    retry_after_seconds: 7,
                });
            }
            let known = entry.messages.iter().find(|message| {
                message.idempotency_key.is_some() && message.idempotency_key == send.idempotency_key
            });
            if let Some(message) = known {
                return Ok(Accepted { message: message.clone(), position: 0, replayed: true });
            }
            let (message, hang) = (new_id(), is("hang"));
            let data = json!({ "messageId": message, "position": 0, "content": send.content });
            let seq = entry.push(EventKind::MessageQueued, Some(&message), &data);
            let message = Message {
                id: message,
                idempotency_key: send.idempotency_key,
                content: send.content,
                state: MessageState::Running,
                seq,
                created_at: Timestamp::now(),
                started_at: None,
                ended_at: None,
                outcome: None,
            };
            entry.messages.push(message.clone());
            if !hang {
                entry.turn(&message.id);
            }
            Ok(Accepted { message, position: 0, replayed: false })
        })
    }

    async fn queue(&self, id: &SessionId) -> Result<Vec<Message>> {
        self.with(id, |entry| {
            let waits = |message: &&Message| message.state == MessageState::Running;
            Ok(entry.messages.iter().filter(waits).cloned().collect())
        })
    }

    async fn message(&self, id: &SessionId, message: &str) -> Result<Message> {
        let none = || Error::NoSuch { kind: "message", name: message.to_owned() };
        self.with(id, |entry| {
            entry.messages.iter().find(|known| known.id == message).cloned().ok_or_else(none)
        })
    }

    async fn cancel(&self, id: &SessionId, message: &str) -> Result<Message> {
        let cancelled = self.message(id, message).await?;
        self.with(id, |entry| {
            let data = json!({ "messageId": message, "reason": "user_requested" });
            entry.push(EventKind::MessageCancelled, Some(message), &data);
            Ok(())
        })?;
        Ok(cancelled)
    }

    async fn interrupt(&self, id: &SessionId, _: Duration) -> Result<Session> {
        self.get(id).await
    }

    async fn stop(&self, id: &SessionId, _: Duration) -> Result<Session> {
        self.get(id).await
    }

    async fn kill(&self, id: &SessionId) -> Result<Session> {
        self.get(id).await
    }

    async fn terminate(&self, id: &SessionId, reason: EndReason) -> Result<Session> {
        self.with(id, |entry| {
            (entry.session.status, entry.session.reason) = (SessionStatus::Terminated, Some(reason));
            entry.push(EventKind::SessionEnded, None, &json!({ "reason": reason }));
            Ok(entry.session.clone())
        })
    }

    async fn questions(&self, id: &SessionId) -> Result<Vec<Question>> {
        self.with(id, |entry| {
            let waits = |question: &&Question| question.state == QuestionState::Pending;
            Ok(entry.questions.iter().filter(waits).cloned().collect())
        })
    }

    async fn answer(&self, id: &SessionId, question: &str, answer: QuestionAnswer) -> Result<Question> {
        let none = || Error::NoSuch { kind: "question", name: question.to_owned() };
        self.with(id, |entry| {
            let question = entry.questions.iter_mut().find(|known| known.id == question).ok_or_else(none)?;
            if question.state != QuestionState::Pending {
                let by = question.decided_by.clone().unwrap_or_default();
                return Err(Error::Answered { id: question.id.clone(), by });
            }
            question.state = QuestionState::Answered;
            question.verdict = Some(answer.verdict);
            question.decided_by = answer.decided_by;
            Ok(question.clone())
        })
    }

    async fn events(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Arc<Event>>> {
        self.with(id, |entry| {
            let later = entry.events.iter().filter(|event| event.seq > after);
            Ok(later.take(limit).cloned().collect())
        })
    }

    async fn subscribe(&self, id: &SessionId, after: u64) -> Result<Box<dyn SubscriptionSource>> {
        self.with(id, |entry| {
            if after > entry.session.last_event {
                return Err(Error::invalid("after", "is no number of an event yet"));
            }
            let grown = entry.grown.subscribe();
            let (sessions, failures) = (Arc::clone(&self.0), Arc::clone(&self.1.failures));
            Ok(Box::new(Source { sessions, id: id.clone(), after, grown, failures }) as _)
        })
    }

    fn subscribers(&self, id: &SessionId) -> usize {
        self.lock().get(id).map_or(0, |entry| entry.grown.receiver_count())
    }

    async fn environment(&self, id: &SessionId) -> Result<(Client, SandboxId)> {
        self.get(id).await?;
        Err(Error::NoEnvironment { message: "a message brings one".to_owned() })
    }

    async fn transcripts(&self, id: &SessionId) -> Result<Vec<(String, String)>> {
        self.get(id).await?;
        Ok(vec![("/home/agent/a.jsonl".to_owned(), "{}\n".to_owned())])
    }

    async fn health(&self) -> Health {
        Health { healthy: true, problems: Vec::new(), loaded_sessions: self.lock().len(), running_turns: 0 }
    }

    async fn shutdown(&self) {
        self.1.over.store(true, Ordering::Relaxed);
    }
}

struct Source {
    sessions: Arc<Mutex<BTreeMap<SessionId, Entry>>>,
    id: SessionId,
    after: u64,
    grown: watch::Receiver<u64>,
    failures: Arc<AtomicU32>,
}

#[async_trait]
impl SubscriptionSource for Source {
    async fn next(&mut self) -> Result<Option<Delivery>> {
        let one_less = |left: u32| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Err(Error::Store { action: "reading", problem: "the disk is away".to_owned() });
        }
        loop {
            if self.grown.wait_for(|last| *last > self.after).await.is_err() {
                return Ok(None);
            }
            let sessions = self.sessions.lock().unwrap();
            let Some(entry) = sessions.get(&self.id) else { return Ok(None) };
            if let Some(event) = entry.events.iter().find(|event| event.seq == self.after + 1) {
                self.after += 1;
                return Ok(Some(Delivery::Event(Arc::clone(event))));
            }
        }
    }
}
