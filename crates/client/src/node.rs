//! The machine that runs the daemon.

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::{DoctorCheck, Node};
use hostel_proto::v1;

impl Client {
    /// Tells what the node has and what isolation it gives.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn node_info(&self) -> Result<Node> {
        let response = self.nodes().get_node_info(v1::GetNodeInfoRequest {}).await.map_err(convert::error)?;
        Ok(convert::node(convert::required(response.into_inner().node, "the node")?))
    }

    /// Stops taking new sandboxes, or begins again. Returns how many sandboxes are still there.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn drain_node(&self, resume: bool) -> Result<u32> {
        let response =
            self.nodes().drain_node(v1::DrainNodeRequest { resume }).await.map_err(convert::error)?;
        Ok(response.into_inner().sandbox_count)
    }

    /// Looks at everything that sandboxes need on the machine. Takes a few seconds.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn doctor(&self) -> Result<Vec<DoctorCheck>> {
        let response = self.nodes().doctor(v1::DoctorRequest {}).await.map_err(convert::error)?;
        response.into_inner().checks.into_iter().map(convert::doctor_check).collect()
    }
}
