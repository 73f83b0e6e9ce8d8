//! Calls with one answer.

use super::SessionClient;
use crate::convert::{self, session_error as error};
use crate::error::Result;
use crate::exec::{Backoff, ReconnectPolicy};
use crate::model::{
    EndReason, EventPage, MessageContent, SentMessage, Session, SessionEvent, SessionLimits, SessionMessage,
    SessionPage, SessionPattern, SessionQuestion, SessionStatistics, SessionStatus, Verdict,
};
use convert::Word as _;
use hostel_proto::v1;
use std::time::Duration;

/// What session to make. What is absent is the server's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateSession {
    /// Makes the call repeatable.
    pub request_id: Option<String>,
    /// The id to have.
    pub id: Option<String>,
    /// How it uses sandboxes.
    pub pattern: Option<SessionPattern>,
    /// How the agent is to be: the `config` of the REST API.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// A number of the caller's.
    pub conversation_id: Option<i64>,
    /// Bounds.
    pub limits: SessionLimits,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whose it is.
    pub user_id: Option<String>,
}

/// Which events of a session; a number is those after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WhichEvents {
    /// Those after this number.
    pub after: u64,
    /// Only these types; empty for all.
    pub types: Vec<String>,
}

impl From<u64> for WhichEvents {
    fn from(after: u64) -> Self {
        Self { after, types: Vec::new() }
    }
}

/// Which sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListSessions {
    /// Only this pattern.
    pub pattern: Option<SessionPattern>,
    /// Only this status.
    pub status: Option<SessionStatus>,
    /// Only this user's.
    pub user_id: Option<String>,
    /// Only with any of these tags. Empty: all.
    pub tags: Vec<String>,
    /// How many on a page, at most 1000; 0 is 50.
    pub page_size: u16,
    /// `next_page_token` of the page before.
    pub page_token: Option<String>,
}

/// What to change of a session; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateSession {
    /// Tags instead of those it has.
    pub tags: Option<Vec<String>>,
    /// What it is for.
    pub description: Option<String>,
    /// Whose it is.
    pub user_id: Option<String>,
    /// A number of the caller's.
    pub conversation_id: Option<i64>,
    /// New bounds.
    pub limits: SessionLimits,
    /// The model from the next turn on.
    pub model: Option<String>,
    /// What the agent may do without asking from now on, as the agent calls it: `acceptEdits`.
    pub permission_mode: Option<String>,
    /// Fields whose value is to be taken away, as the server names them: `description`, `limits.max_turns`.
    pub clear: Vec<String>,
}

/// What to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendMessage {
    /// What it says.
    pub content: Vec<MessageContent>,
    /// Makes the call repeatable; made here where absent.
    pub request_id: Option<String>,
}

impl SendMessage {
    /// A message that is text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![MessageContent::Text { text: text.into() }], request_id: None }
    }
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerQuestion {
    /// What is decided.
    pub verdict: Verdict,
    /// What the agent is told with a denial.
    pub message: Option<String>,
    /// The tool's input to use instead.
    pub input: Option<serde_json::Value>,
    /// Whether a denial ends the turn too.
    pub interrupt: bool,
    /// Who decides, for the journal.
    pub decided_by: Option<String>,
}

fn session(wire: Option<v1::Session>) -> Result<Session> {
    convert::session(convert::required(wire, "the session")?)
}

impl SessionClient {
    /// Makes a session, and says whether an earlier call with the same request id did.
    ///
    /// # Errors
    /// The server's refusal, `ALREADY_EXISTS` when the id is taken.
    pub async fn create(&self, create: CreateSession) -> Result<(Session, bool)> {
        let request = v1::CreateSessionRequest {
            request_id: create.request_id.unwrap_or_default(),
            session_id: create.id.unwrap_or_default(),
            pattern: create.pattern.map_or(0, |pattern| pattern.to_wire()),
            config_json: serde_json::Value::Object(create.config).to_string(),
            conversation_id: create.conversation_id,
            limits: Some(convert::session_limits_to_wire(&create.limits)),
            tags: create.tags,
            description: create.description.unwrap_or_default(),
            user_id: create.user_id.unwrap_or_default(),
        };
        let answer = self.calls().create_session(request).await.map_err(error)?.into_inner();
        Ok((session(answer.session)?, answer.replayed))
    }

    /// Tells about a session.
    ///
    /// # Errors
    /// The server's refusal, `NOT_FOUND` when there is none such.
    pub async fn get(&self, id: &str) -> Result<Session> {
        let request = v1::GetSessionRequest { session_id: id.to_owned() };
        session(self.calls().get_session(request).await.map_err(error)?.into_inner().session)
    }

    /// Lists a page of sessions, newest first.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn list(&self, list: ListSessions) -> Result<SessionPage> {
        let request = v1::ListSessionsRequest {
            pattern: list.pattern.map_or(0, |pattern| pattern.to_wire()),
            status: list.status.map_or(0, |status| status.to_wire()),
            user_id: list.user_id.unwrap_or_default(),
            tags: list.tags,
            page_size: list.page_size.into(),
            page_token: list.page_token.unwrap_or_default(),
        };
        let answer = self.calls().list_sessions(request).await.map_err(error)?.into_inner();
        Ok(SessionPage {
            sessions: answer.sessions.into_iter().map(convert::session).collect::<Result<_>>()?,
            next_page_token: convert::optional(answer.next_page_token),
            total_size: answer.total_size,
        })
    }

    /// Changes what may be changed.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn update(&self, id: &str, update: UpdateSession) -> Result<Session> {
        let request = v1::UpdateSessionRequest {
            session_id: id.to_owned(),
            tags: update.tags.map(|values| v1::SessionTags { values }),
            description: update.description,
            user_id: update.user_id,
            conversation_id: update.conversation_id,
            limits: Some(convert::session_limits_to_wire(&update.limits)),
            model: update.model,
            permission_mode: update.permission_mode,
            clear: update.clear,
        };
        session(self.calls().update_session(request).await.map_err(error)?.into_inner().session)
    }

    /// Ends a session where it has not ended, and forgets it with its journal.
    ///
    /// # Errors
    /// The server's refusal, `NOT_FOUND` when there is none such and that is not allowed.
    pub async fn delete(&self, id: &str, allow_missing: bool) -> Result<()> {
        let request = v1::DeleteSessionRequest { session_id: id.to_owned(), allow_missing };
        self.calls().delete_session(request).await.map_err(error)?;
        Ok(())
    }

    /// Sends a message. A connection that breaks is made again for up to half a minute; the message is sent once.
    ///
    /// # Errors
    /// The server's refusal: `SESSION_NOT_ACTIVE`, `LIMIT_REACHED`, `BUSY` and others.
    pub async fn send(&self, id: &str, message: SendMessage) -> Result<SentMessage> {
        let request = v1::SendMessageRequest {
            request_id: message.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            session_id: id.to_owned(),
            content: message.content.into_iter().map(convert::content_to_wire).collect(),
        };
        let mut backoff = Backoff::new(ReconnectPolicy::default());
        let answer = loop {
            match self.calls().send_message(request.clone()).await.map_err(error) {
                Ok(answer) => break answer.into_inner(),
                Err(lost) if lost.is_connection() => match backoff.broke() {
                    Ok(delay) => tokio::time::sleep(delay).await,
                    Err(_) => return Err(lost),
                },
                Err(refusal) => return Err(refusal),
            }
        };
        Ok(SentMessage {
            message: convert::session_message(convert::required(answer.message, "the message")?)?,
            position: answer.position,
            replayed: answer.replayed,
        })
    }

    /// The messages that wait or run, in order.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn queue(&self, id: &str) -> Result<Vec<SessionMessage>> {
        let request = v1::ListMessagesRequest { session_id: id.to_owned() };
        let answer = self.calls().list_messages(request).await.map_err(error)?.into_inner();
        answer.messages.into_iter().map(convert::session_message).collect()
    }

    /// One message, also when it is done.
    ///
    /// # Errors
    /// The server's refusal, `NOT_FOUND` when there is none such.
    pub async fn message(&self, id: &str, message: &str) -> Result<SessionMessage> {
        let request = v1::GetMessageRequest { session_id: id.to_owned(), message_id: message.to_owned() };
        let answer = self.calls().get_message(request).await.map_err(error)?.into_inner();
        convert::session_message(convert::required(answer.message, "the message")?)
    }

    /// Takes a waiting message back.
    ///
    /// # Errors
    /// The server's refusal, `NOT_FOUND` where it does not wait any more.
    pub async fn cancel(&self, id: &str, message: &str) -> Result<SessionMessage> {
        let request = v1::CancelMessageRequest { session_id: id.to_owned(), message_id: message.to_owned() };
        let answer = self.calls().cancel_message(request).await.map_err(error)?.into_inner();
        convert::session_message(convert::required(answer.message, "the message")?)
    }

    /// Asks the agent to stop the turn that runs, and waits so long until it has.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn interrupt(&self, id: &str, wait: Option<Duration>) -> Result<Session> {
        let wait = wait.map(convert::duration_to_wire);
        let request = v1::InterruptSessionRequest { session_id: id.to_owned(), wait };
        session(self.calls().interrupt_session(request).await.map_err(error)?.into_inner().session)
    }

    /// Stops the turn: asks, and ends the agent's process where it has not stopped after `grace`.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn stop(&self, id: &str, grace: Option<Duration>) -> Result<Session> {
        let grace = grace.map(convert::duration_to_wire);
        let request = v1::StopSessionRequest { session_id: id.to_owned(), grace };
        session(self.calls().stop_session(request).await.map_err(error)?.into_inner().session)
    }

    /// Ends the agent's process with everything it started, at once.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn kill(&self, id: &str) -> Result<Session> {
        let request = v1::KillSessionRequest { session_id: id.to_owned() };
        session(self.calls().kill_session(request).await.map_err(error)?.into_inner().session)
    }

    /// Ends a session. Its record stays.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn terminate(&self, id: &str, reason: Option<EndReason>) -> Result<Session> {
        let reason = reason.map_or(0, |reason| reason.to_wire());
        let request = v1::TerminateSessionRequest { session_id: id.to_owned(), reason };
        session(self.calls().terminate_session(request).await.map_err(error)?.into_inner().session)
    }

    /// The questions that wait for an answer, oldest first.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn questions(&self, id: &str) -> Result<Vec<SessionQuestion>> {
        let request = v1::ListQuestionsRequest { session_id: id.to_owned() };
        let answer = self.calls().list_questions(request).await.map_err(error)?.into_inner();
        answer.questions.into_iter().map(convert::session_question).collect()
    }

    /// Answers a question; the first answer counts.
    ///
    /// # Errors
    /// The server's refusal, `ANSWERED` when it has one.
    pub async fn answer(&self, id: &str, question: &str, answer: AnswerQuestion) -> Result<SessionQuestion> {
        let request = v1::AnswerQuestionRequest {
            session_id: id.to_owned(),
            question_id: question.to_owned(),
            verdict: answer.verdict.to_wire(),
            message: answer.message.unwrap_or_default(),
            input_json: answer.input.map(|input| input.to_string()).unwrap_or_default(),
            interrupt: answer.interrupt,
            decided_by: answer.decided_by.unwrap_or_default(),
        };
        let answer = self.calls().answer_question(request).await.map_err(error)?.into_inner();
        convert::session_question(convert::required(answer.question, "the question")?)
    }

    /// Events after a number, oldest first, out of the next `limit`, at most 10,000; 0 is 1000.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn events(&self, id: &str, which: impl Into<WhichEvents>, limit: u16) -> Result<EventPage> {
        let WhichEvents { after, types } = which.into();
        let request = v1::ListEventsRequest {
            session_id: id.to_owned(),
            after_seq: after,
            page_size: limit.into(),
            types,
        };
        let answer = self.calls().list_events(request).await.map_err(error)?.into_inner();
        let events = answer.events.into_iter().map(convert::session_event);
        let events = events.collect::<Result<Vec<SessionEvent>>>()?;
        let last = events.iter().map(|event| event.seq).max().unwrap_or(after);
        Ok(EventPage { events, next: answer.next_seq.max(last) })
    }

    /// Figures of all sessions.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn statistics(&self) -> Result<SessionStatistics> {
        let request = v1::GetStatisticsRequest {};
        let answer = self.calls().get_statistics(request).await.map_err(error)?.into_inner();
        Ok(convert::session_statistics(convert::required(answer.statistics, "the figures")?))
    }

    /// Has the server take a session into memory.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn load(&self, id: &str) -> Result<Session> {
        let request = v1::LoadSessionRequest { session_id: id.to_owned() };
        session(self.calls().load_session(request).await.map_err(error)?.into_inner().session)
    }

    /// Has the server let a session out of memory. Its sandbox is taken away.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn unload(&self, id: &str) -> Result<()> {
        let request = v1::UnloadSessionRequest { session_id: id.to_owned() };
        self.calls().unload_session(request).await.map_err(error)?;
        Ok(())
    }
}
