//! `SessionService`: the sessions of a host over gRPC. Who may call is decided before a call comes here.

mod convert;
mod delivery;
mod status;
#[cfg(test)]
mod tests;

use axum::Router;
use convert::{bounded, page, session_id, types};
use delivery::{Frames, export, watch};
use hostel_proto::v1;
use hostel_proto::v1::session_service_server::{SERVICE_NAME, SessionService, SessionServiceServer};
use hostel_session::{ClientHub, Session, SessionHost};
use status::{invalid, status};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Largest message taken, in bytes: the pictures of a message and what is around them.
const MAX_MESSAGE: usize = 20 << 20;
/// How long an interrupt waits, and what a stop gives, where nobody says: the same as over REST.
const INTERRUPT_WAIT: Duration = Duration::from_millis(crate::rest::GRACE_MS);
const STOP_GRACE: Duration = INTERRUPT_WAIT;
/// Events of a page: where nobody says, and the most.
const EVENTS: usize = 1000;
const MOST_EVENTS: usize = 10_000;

/// The service as routes. It takes no notice of tokens: that is for the router around it.
pub(crate) fn routes(host: Arc<dyn SessionHost>, hub: ClientHub) -> Router {
    let service =
        SessionServiceServer::new(SessionCalls { host, hub }).max_decoding_message_size(MAX_MESSAGE);
    Router::new().route_service(&format!("/{SERVICE_NAME}/{{*call}}"), service)
}

type Answer<T> = Result<Response<T>, Status>;

/// The calls of the service.
pub(crate) struct SessionCalls {
    host: Arc<dyn SessionHost>,
    hub: ClientHub,
}

impl SessionCalls {
    /// A session as it goes out.
    #[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
    fn shown(&self, session: &Session) -> Result<Option<v1::Session>, Status> {
        convert::session(session, self.host.is_loaded(&session.id)).map(Some)
    }
}

#[tonic::async_trait]
impl SessionService for SessionCalls {
    async fn create_session(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Answer<v1::CreateSessionResponse> {
        let created = self.host.create(convert::create(request.into_inner())?).await.map_err(status)?;
        let session = self.shown(&created.session)?;
        Ok(Response::new(v1::CreateSessionResponse { session, replayed: created.replayed }))
    }

    async fn get_session(&self, request: Request<v1::GetSessionRequest>) -> Answer<v1::GetSessionResponse> {
        let session = self.host.get(&session_id(request.into_inner().session_id)?).await.map_err(status)?;
        Ok(Response::new(v1::GetSessionResponse { session: self.shown(&session)? }))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Answer<v1::ListSessionsResponse> {
        let list = convert::list(request.into_inner())?;
        let found = self.host.list(&list).await.map_err(status)?;
        let show = |session: &Session| convert::session(session, self.host.is_loaded(&session.id));
        Ok(Response::new(v1::ListSessionsResponse {
            sessions: found.sessions.iter().map(show).collect::<Result<_, _>>()?,
            next_page_token: found.next.as_ref().map(page::token).unwrap_or_default(),
            total_size: found.total,
        }))
    }

    async fn update_session(
        &self,
        request: Request<v1::UpdateSessionRequest>,
    ) -> Answer<v1::UpdateSessionResponse> {
        let (id, update) = convert::update(request.into_inner())?;
        let session = self.host.update(&id, update).await.map_err(status)?;
        Ok(Response::new(v1::UpdateSessionResponse { session: self.shown(&session)? }))
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Answer<v1::DeleteSessionResponse> {
        let request = request.into_inner();
        match self.host.delete(&session_id(request.session_id)?).await {
            Err(hostel_session::Error::NotFound { .. }) if request.allow_missing => {}
            other => other.map_err(status)?,
        }
        Ok(Response::new(v1::DeleteSessionResponse {}))
    }

    async fn send_message(
        &self,
        request: Request<v1::SendMessageRequest>,
    ) -> Answer<v1::SendMessageResponse> {
        let (id, message) = convert::send(request.into_inner())?;
        let accepted = self.host.send(&id, message).await.map_err(status)?;
        Ok(Response::new(v1::SendMessageResponse {
            message: Some(convert::message(&accepted.message)?),
            position: u32::try_from(accepted.position).unwrap_or(u32::MAX),
            replayed: accepted.replayed,
        }))
    }

    async fn list_messages(
        &self,
        request: Request<v1::ListMessagesRequest>,
    ) -> Answer<v1::ListMessagesResponse> {
        let queue = self.host.queue(&session_id(request.into_inner().session_id)?).await.map_err(status)?;
        let messages = queue.iter().map(convert::message).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListMessagesResponse { messages }))
    }

    async fn get_message(&self, request: Request<v1::GetMessageRequest>) -> Answer<v1::GetMessageResponse> {
        let request = request.into_inner();
        let id = session_id(request.session_id)?;
        let message = self.host.message(&id, &request.message_id).await.map_err(status)?;
        Ok(Response::new(v1::GetMessageResponse { message: Some(convert::message(&message)?) }))
    }

    async fn cancel_message(
        &self,
        request: Request<v1::CancelMessageRequest>,
    ) -> Answer<v1::CancelMessageResponse> {
        let request = request.into_inner();
        let id = session_id(request.session_id)?;
        let message = self.host.cancel(&id, &request.message_id).await.map_err(status)?;
        Ok(Response::new(v1::CancelMessageResponse { message: Some(convert::message(&message)?) }))
    }

    async fn interrupt_session(
        &self,
        request: Request<v1::InterruptSessionRequest>,
    ) -> Answer<v1::InterruptSessionResponse> {
        let request = request.into_inner();
        let wait = bounded("wait", request.wait)?.unwrap_or(INTERRUPT_WAIT);
        let session = self.host.interrupt(&session_id(request.session_id)?, wait).await.map_err(status)?;
        Ok(Response::new(v1::InterruptSessionResponse { session: self.shown(&session)? }))
    }

    async fn stop_session(
        &self,
        request: Request<v1::StopSessionRequest>,
    ) -> Answer<v1::StopSessionResponse> {
        let request = request.into_inner();
        let grace = bounded("grace", request.grace)?.unwrap_or(STOP_GRACE);
        let session = self.host.stop(&session_id(request.session_id)?, grace).await.map_err(status)?;
        Ok(Response::new(v1::StopSessionResponse { session: self.shown(&session)? }))
    }

    async fn kill_session(
        &self,
        request: Request<v1::KillSessionRequest>,
    ) -> Answer<v1::KillSessionResponse> {
        let session = self.host.kill(&session_id(request.into_inner().session_id)?).await.map_err(status)?;
        Ok(Response::new(v1::KillSessionResponse { session: self.shown(&session)? }))
    }

    async fn terminate_session(
        &self,
        request: Request<v1::TerminateSessionRequest>,
    ) -> Answer<v1::TerminateSessionResponse> {
        let request = request.into_inner();
        let reason = convert::reason(request.reason)?;
        let session = self.host.terminate(&session_id(request.session_id)?, reason).await.map_err(status)?;
        Ok(Response::new(v1::TerminateSessionResponse { session: self.shown(&session)? }))
    }

    async fn list_questions(
        &self,
        request: Request<v1::ListQuestionsRequest>,
    ) -> Answer<v1::ListQuestionsResponse> {
        let id = session_id(request.into_inner().session_id)?;
        let questions = self.host.questions(&id).await.map_err(status)?;
        Ok(Response::new(v1::ListQuestionsResponse {
            questions: questions.iter().map(convert::question).collect(),
        }))
    }

    async fn answer_question(
        &self,
        request: Request<v1::AnswerQuestionRequest>,
    ) -> Answer<v1::AnswerQuestionResponse> {
        let (id, question, answer) = convert::answer(request.into_inner())?;
        let question = self.host.answer(&id, &question, answer).await.map_err(status)?;
        Ok(Response::new(v1::AnswerQuestionResponse { question: Some(convert::question(&question)) }))
    }

    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Answer<v1::ListEventsResponse> {
        let request = request.into_inner();
        let limit = match usize::try_from(request.page_size) {
            Ok(0) => EVENTS,
            Ok(size) => size.min(MOST_EVENTS),
            Err(_) => return Err(invalid("page_size", "must not be negative")),
        };
        let (id, types) = (session_id(request.session_id)?, types(&request.types)?);
        let events = self.host.events(&id, request.after_seq, limit).await.map_err(status)?;
        let wanted = events.iter().filter(|event| types.want(event.kind));
        Ok(Response::new(v1::ListEventsResponse {
            events: wanted.map(|event| convert::event(event)).collect(),
            next_seq: events.last().map_or(request.after_seq, |event| event.seq),
        }))
    }

    type WatchEventsStream = Frames<v1::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let request = request.into_inner();
        let (id, types) = (session_id(request.session_id)?, types(&request.types)?);
        let client = self.hub.connect(&id, request.after_seq, types).await.map_err(status)?;
        Ok(Response::new(watch(client)))
    }

    async fn get_statistics(
        &self,
        _request: Request<v1::GetStatisticsRequest>,
    ) -> Answer<v1::GetStatisticsResponse> {
        let statistics = self.host.statistics().await.map_err(status)?;
        Ok(Response::new(v1::GetStatisticsResponse { statistics: Some(convert::statistics(statistics)) }))
    }

    async fn load_session(
        &self,
        request: Request<v1::LoadSessionRequest>,
    ) -> Answer<v1::LoadSessionResponse> {
        let session = self.host.load(&session_id(request.into_inner().session_id)?).await.map_err(status)?;
        Ok(Response::new(v1::LoadSessionResponse { session: self.shown(&session)? }))
    }

    async fn unload_session(
        &self,
        request: Request<v1::UnloadSessionRequest>,
    ) -> Answer<v1::UnloadSessionResponse> {
        self.host.unload(&session_id(request.into_inner().session_id)?).await.map_err(status)?;
        Ok(Response::new(v1::UnloadSessionResponse {}))
    }

    type ExportSessionStream = Frames<v1::ExportSessionResponse>;

    async fn export_session(
        &self,
        request: Request<v1::ExportSessionRequest>,
    ) -> Answer<Self::ExportSessionStream> {
        let id = session_id(request.into_inner().session_id)?;
        let session = self.host.get(&id).await.map_err(status)?;
        let record = convert::session(&session, self.host.is_loaded(&id))?;
        Ok(Response::new(export(Arc::clone(&self.host), id, record, session.last_event)))
    }
}
