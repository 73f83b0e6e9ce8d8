//! `NetworkService`.

use super::{Answer, Frames};
use crate::convert::{decision as convert, sandbox_id};
use crate::error::Error;
use crate::reach::Watch;
use crate::sandboxes::{Entry, Sandboxes};
use hostel_proto::v1;
use hostel_proto::v1::network_service_server::NetworkService;
use hostel_proto::v1::watch_network_response::Event;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Decisions that a watcher may be behind before it is waited for.
const BUFFER: usize = 64;

/// The service over what sandboxes reach.
pub(crate) struct Networks(pub Sandboxes);

#[tonic::async_trait]
impl NetworkService for Networks {
    async fn get_network(&self, request: Request<v1::GetNetworkRequest>) -> Answer<v1::GetNetworkResponse> {
        let id = sandbox_id(request.into_inner().sandbox_id)?;
        self.0.get(&id)?;
        let (decisions, open) = self.0.reach().decisions(&id);
        Ok(Response::new(v1::GetNetworkResponse {
            decisions: decisions.iter().map(|decision| convert::api_decision(decision)).collect(),
            open_connections: u32::try_from(open).unwrap_or(u32::MAX),
        }))
    }

    type WatchNetworkStream = Frames<v1::WatchNetworkResponse>;

    async fn watch_network(
        &self,
        request: Request<v1::WatchNetworkRequest>,
    ) -> Answer<Self::WatchNetworkStream> {
        let id = sandbox_id(request.into_inner().sandbox_id)?;
        let entry = self.0.get(&id)?;
        let Some(watch) = self.0.reach().watch(&id) else {
            let message = format!("sandbox {id} has no network: its policy is none");
            return Err(Error::from(hostel_sandbox::Error::wrong_state("NO_NETWORK", message)).into());
        };
        let (sender, receiver) = mpsc::channel(BUFFER);
        let watcher = Watcher { sandboxes: self.0.clone(), entry, sender };
        self.0.tasks().spawn(watcher.run(watch));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn verify_audit(&self, _: Request<v1::VerifyAuditRequest>) -> Answer<v1::VerifyAuditResponse> {
        let directory = self.0.reach().audit().to_owned();
        let verified = tokio::task::spawn_blocking(move || hostel_egress::audit::verify(&directory)).await;
        let verified = verified.map_err(|panic| Status::internal(panic.to_string()))?;
        Ok(Response::new(convert::api_audit(verified)?))
    }
}

/// Tells one client of decisions.
struct Watcher {
    sandboxes: Sandboxes,
    entry: Arc<Entry>,
    sender: mpsc::Sender<Result<v1::WatchNetworkResponse, Status>>,
}

impl Watcher {
    async fn run(self, (known, mut to_come): Watch) {
        for decision in &known {
            if !self.tell(Event::Decision(convert::api_decision(decision))).await {
                return;
            }
        }
        let stop = self.sandboxes.stopping().clone();
        loop {
            let next = tokio::select! {
                next = to_come.recv() => next,
                () = self.sender.closed() => return,
                () = self.entry.ended() => return,
                () = stop.cancelled() => {
                    let _ = self.sender.try_send(Err(Error::Draining.into()));
                    return;
                }
            };
            let event = match next {
                // Those that were made while we looked.
                Ok(decision) if known.iter().any(|told| Arc::ptr_eq(told, &decision)) => continue,
                Ok(decision) => Event::Decision(convert::api_decision(&decision)),
                Err(RecvError::Lagged(missed)) => Event::Missed(missed),
                Err(RecvError::Closed) => return,
            };
            if !self.tell(event).await {
                return;
            }
        }
    }

    /// Waits for a client that does not read, but not beyond the daemon's end.
    async fn tell(&self, event: Event) -> bool {
        tokio::select! {
            biased;
            sent = self.sender.send(Ok(v1::WatchNetworkResponse { event: Some(event) })) => sent.is_ok(),
            () = self.sandboxes.stopping().cancelled() => false,
        }
    }
}
