//! A host begins, and so does a session.

use super::{Event, EventKind, HostConfig, Loaded, LocalSessionHost, NewEvent, Shared};
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::host::{CreateSession, Created, SendMessage, SessionHost as _};
use crate::id::SessionId;
use crate::session::{Environment, Limits, Session};
use crate::status::{Pattern, SessionStatus};
use crate::store::{NewSession, Store, TranscriptPiece};
use crate::worker::{blobs_of, options};
use hostel_agent::Content;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Tags of a session.
const MAX_TAGS: usize = 32;
/// Characters of a tag.
const MAX_TAG: usize = 64;
/// Bytes of a description.
const MAX_DESCRIPTION: usize = 4096;
/// Bytes of a user's name.
const MAX_USER: usize = 255;
/// Bytes of a configuration as JSON.
const MAX_CONFIG: usize = 256 << 10;
/// Bytes of a message.
const MAX_MESSAGE: usize = 16 << 20;
/// Parts of a message.
const MAX_PARTS: usize = 100;
/// How long copying the blobs of a conversation may take.
const COPYING: Duration = Duration::from_secs(30);

impl LocalSessionHost {
    /// Takes over what is in the store: sessions that are not over go on, turns that run are followed. What their agents
    /// keep beside their transcripts is mirrored to blobs.
    ///
    /// # Errors
    /// Those of the store. A daemon that is not there makes sessions wait for it, not this fail.
    pub async fn open(store: Arc<dyn Store>, blobs: BlobStore, config: HostConfig) -> Result<Arc<Self>> {
        let shared = Shared::new(store, blobs, config);
        let host = Arc::new(Self { shared, loaded: Arc::new(Loaded::new()), looked: Default::default() });
        host.loaded.keep_warm(&host.shared);
        host.loaded.keep_deadlines(&host.shared);
        let unfinished = host.shared.store.unfinished().await?;
        if !unfinished.is_empty() {
            tracing::info!(sessions = unfinished.len(), "sessions of before are taken up");
        }
        for id in unfinished {
            match host.loaded.worker(&host.shared, &id).await {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => {
                    tracing::error!(session = %id, %error, "a session could not be taken up; it is tried again");
                    host.loaded.take_up_behind(&host.shared, id);
                }
            }
        }
        Ok(host)
    }

    /// Makes a session.
    pub(super) async fn make(&self, create: CreateSession) -> Result<Created> {
        check_words(Some(&create.tags), create.description.as_deref(), create.user_id.as_deref())?;
        check_key(create.idempotency_key.as_deref())?;
        let hash = hash(&create)?;
        let key = create.idempotency_key.clone();
        let mut session = self.fresh(&create)?;
        options::check(&self.shared.config, &session)?;
        // One that nobody could look after would have no limits, and its messages nowhere to go.
        self.loaded.check_room(&self.shared)?;
        let (earlier, transcript) = self.history(&mut session).await?.unzip();
        let transcript = transcript.unwrap_or_default();
        session.last_event = 1;
        let data = crate::worker::event_data(EventKind::SessionCreated, &json!({ "session": session }));
        let created = NewEvent { kind: EventKind::SessionCreated, message_id: None, data };
        let events = vec![Arc::new(Event::new(1, session.created_at, created))];
        let new =
            NewSession { session: session.clone(), events, transcript, key: key.map(|key| (key, hash)) };
        let known = self.shared.store.create(new).await?;
        if let Some(earlier) = earlier.filter(|_| known.is_none()) {
            self.copy_blobs(&earlier, &session.id).await;
        }
        let replayed = known.is_some();
        let session = known.unwrap_or(session);
        // Its limits hold from now on. It is there in any case, and is taken up when somebody wants something of it.
        // Whoever made it before may not have come to that.
        if !session.status.is_final()
            && let Err(error) = self.loaded.worker(&self.shared, &session.id).await
        {
            tracing::warn!(session = %session.id, %error, "a new session is not looked after yet");
            self.loaded.take_up_behind(&self.shared, session.id.clone());
        }
        Ok(Created { session, replayed })
    }

    fn fresh(&self, create: &CreateSession) -> Result<Session> {
        let config = &self.shared.config;
        let pattern = create.pattern.unwrap_or(Pattern::Ephemeral);
        if matches!(pattern, Pattern::Hybrid | Pattern::SingleContainer) {
            let instead = "ephemeral and long-running are";
            return Err(Error::Unsupported { field: "pattern", what: pattern.to_string(), instead });
        }
        let milliseconds =
            |time: Option<Duration>| time.and_then(|time| u64::try_from(time.as_millis()).ok());
        let given = create.limits();
        let limits = Limits {
            max_idle_time_ms: given.max_idle_time_ms.or(milliseconds(config.max_idle_time)),
            max_lifetime_ms: given.max_lifetime_ms.or(milliseconds(config.max_lifetime)),
            max_budget_usd: given.max_budget_usd.or(config.max_budget),
            ..given
        };
        check_bounds(limits.max_idle_time_ms, limits.max_lifetime_ms, limits.max_turns)?;
        Ok(Session {
            id: create.id.clone().unwrap_or_else(SessionId::generate),
            session_id: String::new(),
            pattern,
            status: SessionStatus::Initializing,
            reason: None,
            reason_message: None,
            environment: Environment::default(),
            active_turn: None,
            conversation_id: create.conversation_id,
            config: create.config.clone(),
            created_at: crate::clock::now(),
            started_at: None,
            last_activity_at: None,
            completed_at: None,
            terminated_at: None,
            total_cost: Default::default(),
            agent_cost: Default::default(),
            total_tokens: 0,
            input_tokens: 0,
            output_tokens: 0,
            cached_tokens: 0,
            num_turns: 0,
            tools_used: Vec::new(),
            limits,
            tags: create.tags.clone(),
            description: create.description.clone(),
            user_id: create.user_id.clone(),
            last_event: 0,
        })
    }

    /// The conversation that a new session goes on with, which must be there.
    async fn history(&self, session: &mut Session) -> Result<Option<(SessionId, Vec<TranscriptPiece>)>> {
        let Some(before) = session.config.resume_session_id.clone() else { return Ok(None) };
        let unknown = || {
            let problem = format!("there is no conversation of a session {before:.128?} to go on with");
            Error::invalid("config.resumeSessionId", problem)
        };
        let id = self.shared.store.find(&before).await?.ok_or_else(unknown)?;
        let earlier = self.get(&id).await?;
        let files = self.shared.store.transcripts(&id).await?;
        if files.is_empty() || earlier.session_id.is_empty() {
            return Err(unknown());
        }
        session.session_id = earlier.session_id;
        let pieces = files.into_iter().map(|file| TranscriptPiece { path: file.path, lines: file.content });
        Ok(Some((id, pieces.collect())))
    }

    /// Copies what another session keeps in blobs to one that goes on with its conversation, which can do without.
    async fn copy_blobs(&self, earlier: &SessionId, session: &SessionId) {
        let (from, to) = (blobs_of(earlier), blobs_of(session));
        let copied = tokio::time::timeout(COPYING, self.shared.blobs.copy(&from, &to)).await;
        if !matches!(copied, Ok(Ok(_))) {
            let error = copied.ok().and_then(Result::err).map(|error| error.to_string());
            tracing::warn!(%session, %earlier, error, "the tool results of a conversation are not copied");
        }
        // Somebody may have deleted it meanwhile.
        if matches!(self.shared.store.get(session).await, Err(Error::NotFound { .. }))
            && let Err(error) = self.shared.blobs.delete(&to).await
        {
            tracing::warn!(%session, %error, "blobs of a deleted session are left");
        }
    }
}

/// What makes two creations the same.
fn hash(create: &CreateSession) -> Result<[u8; 32]> {
    let text = serde_json::to_vec(create).map_err(|error| Error::invalid("body", error.to_string()))?;
    if text.len() > MAX_CONFIG {
        let problem = format!("{} bytes, at most {MAX_CONFIG}", text.len());
        return Err(Error::invalid("config", problem));
    }
    Ok(Sha256::digest(&text).into())
}

/// Checks that limits leave room for anything.
pub(super) fn check_bounds(idle: Option<u64>, lifetime: Option<u64>, turns: Option<u64>) -> Result<()> {
    for (field, value) in [("maxIdleTimeMs", idle), ("maxLifetimeMs", lifetime), ("maxTurns", turns)] {
        if value == Some(0) {
            return Err(Error::invalid(field, "must be more than 0"));
        }
    }
    Ok(())
}

/// Checks what people call a session.
pub(super) fn check_words(
    tags: Option<&[String]>,
    description: Option<&str>,
    user: Option<&str>,
) -> Result<()> {
    let tags = tags.unwrap_or_default();
    if tags.len() > MAX_TAGS || tags.iter().any(|tag| tag.is_empty() || tag.chars().count() > MAX_TAG) {
        let problem = format!("at most {MAX_TAGS} tags of 1 to {MAX_TAG} characters");
        return Err(Error::invalid("tags", problem));
    }
    if description.is_some_and(|text| text.len() > MAX_DESCRIPTION) {
        return Err(Error::invalid("description", format!("at most {MAX_DESCRIPTION} bytes")));
    }
    if user.is_some_and(|text| text.len() > MAX_USER) {
        return Err(Error::invalid("userId", format!("at most {MAX_USER} bytes")));
    }
    let all = tags.iter().map(String::as_str).chain(description).chain(user);
    if all.into_iter().any(|text| text.contains('\0')) {
        return Err(Error::invalid("body", "text has no NUL"));
    }
    Ok(())
}

/// Checks the size of a message and of its key.
pub(super) fn check_message(message: &SendMessage) -> Result<()> {
    if message.content.is_empty() || message.content.len() > MAX_PARTS {
        return Err(Error::invalid("content", format!("1 to {MAX_PARTS} parts")));
    }
    if message.content.iter().all(|part| part.size() == 0) {
        return Err(Error::invalid("prompt", "it says nothing"));
    }
    let bytes: usize = message.content.iter().map(Content::size).sum();
    if bytes > MAX_MESSAGE {
        return Err(Error::invalid("content", format!("{bytes} bytes, at most {MAX_MESSAGE}")));
    }
    check_key(message.idempotency_key.as_deref())
}

/// Checks what makes a call repeatable.
fn check_key(key: Option<&str>) -> Result<()> {
    let plain =
        |key: &str| (1..=255).contains(&key.len()) && key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if key.is_some_and(|key| !plain(key)) {
        return Err(Error::invalid("idempotencyKey", "1 to 255 printable ASCII characters"));
    }
    Ok(())
}
