//! What the server sends piece by piece.

use super::{SessionClient, WhichEvents};
use crate::convert::{self, session_error as error};
use crate::error::Result;
use crate::exec::{Backoff, ReconnectPolicy};
use crate::model::{ExportPart, SessionDelivery};
use hostel_proto::v1;
use tonic::Streaming;

impl SessionClient {
    /// Events of a session, and then those that come. A connection that breaks is made again, and
    /// the watch goes on after the last number it had, for as long as the policy says.
    ///
    /// # Errors
    /// The server's refusal, `NOT_FOUND` when there is no such session.
    pub async fn watch_events(
        &self,
        id: &str,
        which: impl Into<WhichEvents>,
        policy: ReconnectPolicy,
    ) -> Result<EventWatch> {
        let (mut backoff, which) = (Backoff::new(policy), which.into());
        let stream = subscribe(self, id, &which).await?;
        backoff.attached();
        Ok(EventWatch { client: self.clone(), id: id.to_owned(), which, stream: Some(stream), backoff })
    }

    /// All that is kept of a session.
    ///
    /// # Errors
    /// The server's refusal, `NOT_FOUND` when there is no such session.
    pub async fn export(&self, id: &str) -> Result<SessionExport> {
        let request = v1::ExportSessionRequest { session_id: id.to_owned() };
        Ok(SessionExport(self.calls().export_session(request).await.map_err(error)?.into_inner()))
    }
}

async fn subscribe(
    client: &SessionClient,
    id: &str,
    which: &WhichEvents,
) -> Result<Streaming<v1::WatchEventsResponse>> {
    let WhichEvents { after, types } = which.clone();
    let request = v1::WatchEventsRequest { session_id: id.to_owned(), after_seq: after, types };
    Ok(client.calls().watch_events(request).await.map_err(error)?.into_inner())
}

/// Events as they come. Dropping it ends the watch; the session goes on.
#[derive(Debug)]
pub struct EventWatch {
    client: SessionClient,
    id: String,
    /// Those after the last one that was delivered.
    which: WhichEvents,
    stream: Option<Streaming<v1::WatchEventsResponse>>,
    backoff: Backoff,
}

impl EventWatch {
    /// The next delivery; `None` when the session was deleted. Cancel safe.
    ///
    /// # Errors
    /// The server's refusal, and the last failure of the connection when it could not be made again in time.
    pub async fn next(&mut self) -> Result<Option<SessionDelivery>> {
        loop {
            let Some(stream) = &mut self.stream else {
                match subscribe(&self.client, &self.id, &self.which).await {
                    Ok(stream) => {
                        self.backoff.attached();
                        self.stream = Some(stream);
                        return Ok(Some(SessionDelivery::Reconnected));
                    }
                    Err(lost) if lost.is_connection() => self.wait(lost).await?,
                    Err(refusal) => return Err(refusal),
                }
                continue;
            };
            match stream.message().await.map_err(error) {
                Ok(None) => return Ok(None),
                Ok(Some(message)) => {
                    self.backoff.progress();
                    let Some(delivery) = convert::session_delivery(message)? else { continue };
                    match &delivery {
                        SessionDelivery::Event(event) => self.which.after = event.seq,
                        SessionDelivery::Compacted { to, .. } => self.which.after = *to,
                        SessionDelivery::Disconnected | SessionDelivery::Reconnected => {}
                    }
                    return Ok(Some(delivery));
                }
                Err(lost) if lost.is_connection() => {
                    self.stream = None;
                    self.wait(lost).await?;
                    return Ok(Some(SessionDelivery::Disconnected));
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// The last number that was delivered: to go on from with another watch.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.which.after
    }

    async fn wait(&mut self, lost: crate::error::Error) -> Result<()> {
        let delay = self.backoff.broke().map_err(|_| lost)?;
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// What is kept of a session, part by part: its record, its events, its transcripts.
#[derive(Debug)]
pub struct SessionExport(Streaming<v1::ExportSessionResponse>);

impl SessionExport {
    /// The next part; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// What ended the export too early.
    pub async fn next(&mut self) -> Result<Option<ExportPart>> {
        loop {
            let Some(message) = self.0.message().await.map_err(error)? else { return Ok(None) };
            if let Some(part) = convert::export_part(message)? {
                return Ok(Some(part));
            }
        }
    }
}
