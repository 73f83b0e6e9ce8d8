//! Sessions in this process: each that is not over has a task of its own.

mod deadlines;
mod health;
mod loaded;
mod open;
mod warm;

use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::event::{Event, EventKind, NewEvent};
use crate::host::{
    Accepted, CreateSession, Created, Health, ListSessions, SendMessage, SessionHost, SessionPage,
    SubscriptionSource, UpdateSession,
};
use crate::id::SessionId;
use crate::message::Message;
use crate::question::{Question, QuestionAnswer, QuestionState};
use crate::session::Session;
use crate::stats::Statistics;
use crate::status::EndReason;
use crate::store::Store;
use crate::worker::{Command, Halt, Reply};
use async_trait::async_trait;
use hostel_client::domain::SandboxId;
use hostel_client::{Address, Client};
use loaded::Loaded;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, oneshot};

/// How sessions are hosted.
#[derive(Debug, Clone, PartialEq)]
pub struct HostConfig {
    /// The daemon that has the sandboxes.
    pub daemon: Address,
    /// The template of sandboxes whose session says nothing.
    pub template: String,
    /// The backend of sandboxes whose session says nothing; `None` is the daemon's.
    pub backend: Option<String>,
    /// The pool of sandboxes whose session says nothing; `None` is any that fits.
    pub pool: Option<String>,
    /// How many agents to keep started in warm sandboxes, waiting for sessions. With any, a pool of the host's own is
    /// kept for that, and `pool` is for the others.
    pub warm_agents: u32,
    /// The same for sessions whose agents ask for permissions, in a pool of their own.
    pub warm_asking_agents: u32,
    /// Whether sandboxes ask models through the daemon's gateway. Without, agents need a key of their own in `env`.
    pub gateway: bool,
    /// What a sandbox may reach whose session says nothing: `none`, `open`, or hosts to allow.
    pub network: Vec<String>,
    /// `maxIdleTimeMs` where a session says nothing.
    pub max_idle_time: Option<Duration>,
    /// `maxLifetimeMs` where a session says nothing.
    pub max_lifetime: Option<Duration>,
    /// `maxBudgetUsd` where a session says nothing.
    pub max_budget: Option<crate::usd::Usd>,
    /// Bytes that the agents of one session may have kept: events, transcripts and tool results. `None` is no bound.
    pub max_session_bytes: Option<u64>,
    /// How long a question waits for its answer before it is denied.
    pub question_timeout: Duration,
    /// How long an agent that is stopped may take to end by itself.
    pub stop_grace: Duration,
    /// How long the sandbox of an ephemeral session stays after its end.
    pub ephemeral_retention: Duration,
    /// How often an agent may be started again within how long, before its session is in error. Without a turn that
    /// went well it is started again ten times at most, or as often as is said here, with waits that grow to 30 s.
    pub restarts: (u32, Duration),
    /// Messages that may wait in one session.
    pub max_queue: usize,
    /// Sessions that may be in memory.
    pub max_loaded: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            daemon: Address::default_for_user(),
            template: "claude".to_owned(),
            backend: None,
            pool: None,
            warm_agents: 0,
            warm_asking_agents: 0,
            gateway: true,
            network: vec!["none".to_owned()],
            max_idle_time: Some(Duration::from_secs(30 * 60)),
            max_lifetime: Some(Duration::from_secs(24 * 60 * 60)),
            max_budget: None,
            max_session_bytes: Some(4 << 30),
            question_timeout: Duration::from_secs(5 * 60),
            stop_grace: Duration::from_secs(5),
            ephemeral_retention: Duration::from_secs(60),
            restarts: (3, Duration::from_secs(5)),
            max_queue: 100,
            max_loaded: 10_000,
        }
    }
}

/// Files that are mirrored at a time, of all sessions. Each takes some megabytes.
const MIRRORS: usize = 8;

/// What all sessions of a host share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: BlobStore,
    /// Who mirrors files to blobs, of all sessions.
    pub(crate) mirrors: Semaphore,
    pub(crate) config: HostConfig,
    client: OnceCell<Client>,
    /// What the store last failed with.
    trouble: Mutex<Option<String>>,
    stopping: AtomicBool,
}

impl Shared {
    pub(crate) fn new(store: Arc<dyn Store>, blobs: BlobStore, config: HostConfig) -> Arc<Self> {
        Arc::new(Self {
            store,
            blobs,
            mirrors: Semaphore::new(MIRRORS),
            config,
            client: OnceCell::new(),
            trouble: Mutex::new(None),
            stopping: AtomicBool::new(false),
        })
    }

    /// The daemon's client; made at the first call that finds the daemon, and connected anew by itself from then on.
    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(self.client.get_or_try_init(|| Client::connect(&self.config.daemon)).await?.clone())
    }

    pub(crate) fn store_failed(&self, error: &Error) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_none() {
            tracing::error!(%error, "sessions cannot be written; it is tried until they can");
        }
        *trouble = Some(error.to_string());
    }

    pub(crate) fn store_works(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.take().is_some() {
            tracing::info!("sessions can be written again");
        }
    }
}

/// Sessions in this process: each that is not over has a task of its own.
#[derive(Clone)]
pub struct LocalSessionHost {
    shared: Arc<Shared>,
    loaded: Arc<Loaded>,
    /// How it was when somebody last asked.
    looked: Arc<tokio::sync::Mutex<Option<(std::time::Instant, Health)>>>,
}

impl LocalSessionHost {
    fn check_open(&self) -> Result<()> {
        if self.shared.stopping.load(Ordering::Acquire) { Err(Error::Stopping) } else { Ok(()) }
    }

    /// Has a session's worker do something and waits for its answer.
    async fn ask<T>(&self, id: &SessionId, command: impl FnOnce(Reply<T>) -> Command + Send) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let mut command = command(reply);
        // One that has just let go is loaded again.
        for _ in 0..3 {
            let worker = self.loaded.worker(&self.shared, id).await?;
            match worker.send(command).await {
                Ok(()) => return answer.await.unwrap_or(Err(Error::Stopping)),
                Err(refused) => command = refused.0,
            }
            self.check_open()?;
        }
        Err(Error::Stopping)
    }

    async fn subscribe_to(&self, id: &SessionId, after: u64) -> Result<Box<dyn SubscriptionSource>> {
        let session = self.get(id).await?;
        if after > session.last_event {
            let problem = format!("{after} is not yet: the last event is {}", session.last_event);
            return Err(Error::invalid("after", problem));
        }
        let subscription = self.loaded.subscribe(&session, Arc::clone(&self.shared.store), after);
        // Whoever deletes it from now on closes what is listened to; who did before left nothing to listen to.
        self.get(id).await?;
        Ok(Box::new(subscription))
    }

    /// Ends a session and forgets it. Its blobs go first: while there is a record it can be deleted again.
    async fn remove(&self, id: &SessionId) -> Result<()> {
        if self.ended(id).await?.is_none() {
            self.ask(id, |reply| Command::End(EndReason::UserRequested, reply)).await?;
        }
        self.loaded.let_leave(id).await;
        let blobs = crate::worker::blobs_of(id);
        self.shared.blobs.delete(&blobs).await?;
        let deleted = self.shared.store.delete(id).await?;
        self.loaded.forget(id);
        // Whoever was copying to there, or thought that the session was its own, may have done so since.
        if let Err(error) = self.shared.blobs.delete(&blobs).await {
            tracing::warn!(session = %id, %error, "blobs of a deleted session may be left");
        }
        if deleted { Ok(()) } else { Err(Error::NotFound { id: id.clone() }) }
    }

    /// A session that ended stays; commands that change nothing of it are answered from the store.
    async fn ended(&self, id: &SessionId) -> Result<Option<Session>> {
        let session = self.get(id).await?;
        use crate::status::EnvironmentStatus::{Inactive, Terminated};
        let nothing_left = matches!(session.environment.status, Inactive | Terminated);
        Ok((session.status.is_final() && nothing_left).then_some(session))
    }
}

#[async_trait]
impl SessionHost for LocalSessionHost {
    async fn create(&self, create: CreateSession) -> Result<Created> {
        self.check_open()?;
        let host = self.clone();
        self.loaded.to_the_end(async move { host.make(create).await }).await
    }

    async fn get(&self, id: &SessionId) -> Result<Session> {
        match self.loaded.view(id) {
            Some(session) => Ok(session),
            None => self.shared.store.get(id).await,
        }
    }

    async fn list(&self, list: &ListSessions) -> Result<SessionPage> {
        self.shared.store.list(list).await
    }

    async fn statistics(&self) -> Result<Statistics> {
        self.shared.store.statistics().await
    }

    async fn update(&self, id: &SessionId, update: UpdateSession) -> Result<Session> {
        let (description, user) = (update.description.value(), update.user_id.value());
        open::check_words(update.tags.as_deref(), description.map(String::as_str), user.map(String::as_str))?;
        open::check_bounds(
            update.max_idle_time_ms.value().copied(),
            update.max_lifetime_ms.value().copied(),
            update.max_turns.value().copied(),
        )?;
        self.ask(id, |reply| Command::Update(update, reply)).await
    }

    async fn delete(&self, id: &SessionId) -> Result<()> {
        let (host, id) = (self.clone(), id.clone());
        self.loaded.to_the_end(async move { host.remove(&id).await }).await
    }

    async fn load(&self, id: &SessionId) -> Result<Session> {
        self.loaded.worker(&self.shared, id).await?;
        self.get(id).await
    }

    async fn unload(&self, id: &SessionId) -> Result<()> {
        self.ask(id, Command::Unload).await.map(|_| ())
    }

    fn is_loaded(&self, id: &SessionId) -> bool {
        self.loaded.is_loaded(id)
    }

    fn loaded(&self) -> Vec<SessionId> {
        self.loaded.ids()
    }

    async fn send(&self, id: &SessionId, message: SendMessage) -> Result<Accepted> {
        open::check_message(&message)?;
        if let Some(key) = &message.idempotency_key
            && let Some(known) = self.shared.store.message_by_key(id, key).await?
        {
            return crate::worker::replay(&known, &message);
        }
        self.ask(id, |reply| Command::Send(message, reply)).await
    }

    async fn queue(&self, id: &SessionId) -> Result<Vec<Message>> {
        match self.ended(id).await? {
            Some(_) => Ok(Vec::new()),
            None if self.is_loaded(id) => self.ask(id, Command::Queue).await,
            // Who only looks loads nothing.
            None => self.shared.store.queue(id).await,
        }
    }

    async fn message(&self, id: &SessionId, message: &str) -> Result<Message> {
        self.get(id).await?;
        self.shared.store.message(id, message).await
    }

    async fn cancel(&self, id: &SessionId, message: &str) -> Result<Message> {
        self.ask(id, |reply| Command::Cancel(message.to_owned(), reply)).await
    }

    async fn interrupt(&self, id: &SessionId, wait: Duration) -> Result<Session> {
        if let Some(session) = self.ended(id).await? {
            return Ok(session);
        }
        let interrupted = self.ask(id, |reply| Command::Halt(Halt::Interrupt, reply));
        match tokio::time::timeout(wait, interrupted).await {
            Ok(session) => session,
            Err(_) => self.get(id).await,
        }
    }

    async fn stop(&self, id: &SessionId, grace: Duration) -> Result<Session> {
        match self.ended(id).await? {
            Some(session) => Ok(session),
            None => self.ask(id, |reply| Command::Halt(Halt::Stop(grace), reply)).await,
        }
    }

    async fn kill(&self, id: &SessionId) -> Result<Session> {
        match self.ended(id).await? {
            Some(session) => Ok(session),
            None => self.ask(id, |reply| Command::Halt(Halt::Kill, reply)).await,
        }
    }

    async fn terminate(&self, id: &SessionId, reason: EndReason) -> Result<Session> {
        if reason == EndReason::Completed {
            let problem = "a session that did what it was for says so by itself; who ends one says why";
            return Err(Error::invalid("reason", problem));
        }
        match self.ended(id).await? {
            Some(session) => Ok(session),
            None => self.ask(id, |reply| Command::End(reason, reply)).await,
        }
    }

    async fn questions(&self, id: &SessionId) -> Result<Vec<Question>> {
        match self.ended(id).await? {
            Some(_) => Ok(Vec::new()),
            None if self.is_loaded(id) => self.ask(id, Command::Questions).await,
            None => self.shared.store.pending_questions(id).await,
        }
    }

    async fn answer(&self, id: &SessionId, question: &str, answer: QuestionAnswer) -> Result<Question> {
        let decided = self.ask(id, |reply| Command::Answer(question.to_owned(), answer, reply)).await;
        let Err(Error::NoSuch { .. }) = &decided else { return decided };
        match self.shared.store.question(id, question).await? {
            known if known.state == QuestionState::Pending => decided,
            known => Err(Error::Answered {
                id: known.id,
                by: known.decided_by.unwrap_or_else(|| "somebody".to_owned()),
            }),
        }
    }

    async fn events(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Arc<Event>>> {
        self.get(id).await?;
        self.shared.store.events(id, after, limit.clamp(1, 10_000)).await
    }

    async fn subscribe(&self, id: &SessionId, after: u64) -> Result<Box<dyn SubscriptionSource>> {
        self.check_open()?;
        self.subscribe_to(id, after).await
    }

    fn subscribers(&self, id: &SessionId) -> usize {
        self.loaded.listeners(id)
    }

    async fn environment(&self, id: &SessionId) -> Result<(Client, SandboxId)> {
        let session = self.get(id).await?;
        let Some(sandbox) = &session.environment.sandbox_id else {
            let message = match session.environment.message {
                Some(message) => format!("it is {}: {message}", session.environment.status),
                None => format!("it is {}; a message brings one", session.environment.status),
            };
            return Err(Error::NoEnvironment { message });
        };
        let sandbox = SandboxId::parse(sandbox.as_str()).map_err(|error| Error::Daemon(error.into()))?;
        Ok((self.shared.client().await?, sandbox))
    }

    async fn transcripts(&self, id: &SessionId) -> Result<Vec<(String, String)>> {
        self.get(id).await?;
        let files = self.shared.store.transcripts(id).await?;
        Ok(files.into_iter().map(|file| (file.path, file.content)).collect())
    }

    async fn health(&self) -> Health {
        self.look_after().await
    }

    async fn shutdown(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.loaded.shutdown().await;
        self.shared.store.close().await;
    }
}
