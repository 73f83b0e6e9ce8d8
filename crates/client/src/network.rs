//! What sandboxes tried to reach: looked at, watched, and checked.

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::{Audit, Network, NetworkEvent};
use hostel_proto::v1;
use hostel_sandbox::SandboxId;
use tonic::Streaming;

/// Decisions about one sandbox as they are made.
pub struct NetworkWatch(Streaming<v1::WatchNetworkResponse>);

impl NetworkWatch {
    /// The next one; nothing once the sandbox is gone.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<NetworkEvent>> {
        match self.0.message().await.map_err(convert::error)? {
            Some(response) => convert::network_event(response).map(Some),
            None => Ok(None),
        }
    }
}

impl Client {
    /// What was decided about a sandbox's network lately.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn get_network(&self, id: &SandboxId) -> Result<Network> {
        let request = v1::GetNetworkRequest { sandbox_id: id.to_string() };
        let response = self.networks().get_network(request).await.map_err(convert::error)?;
        convert::network_state(response.into_inner())
    }

    /// Decisions as they are made, after the newest known ones.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn watch_network(&self, id: &SandboxId) -> Result<NetworkWatch> {
        let request = v1::WatchNetworkRequest { sandbox_id: id.to_string() };
        let response = self.networks().watch_network(request).await.map_err(convert::error)?;
        Ok(NetworkWatch(response.into_inner()))
    }

    /// Checks the chain of the node's audit log.
    ///
    /// # Errors
    /// The daemon's refusal where the log cannot be read.
    pub async fn verify_audit(&self) -> Result<Audit> {
        let response =
            self.networks().verify_audit(v1::VerifyAuditRequest {}).await.map_err(convert::error)?;
        Ok(convert::audit(response.into_inner()))
    }
}
