//! `NodeService`.

use super::{Answer, peer};
use crate::convert::node::{api_backend, api_check, api_fact};
use crate::convert::{api_duration, timestamp};
use crate::host::{Machine, checks};
use crate::sandboxes::Sandboxes;
use hostel_proto::v1;
use hostel_proto::v1::node_service_server::NodeService;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tonic::{Request, Response, Status};

/// The service over this machine.
pub(crate) struct NodeInfo {
    pub sandboxes: Sandboxes,
    pub state_directory: PathBuf,
    pub started: SystemTime,
}

#[tonic::async_trait]
impl NodeService for NodeInfo {
    async fn get_node_info(&self, _: Request<v1::GetNodeInfoRequest>) -> Answer<v1::GetNodeInfoResponse> {
        let directory = self.state_directory.clone();
        let look = move || (Machine::look(&directory), checks(&directory));
        let (machine, checks) = blocking(look).await?;
        let default = self.sandboxes.backends().default();
        let is_default = |backend| default.as_ref().is_some_and(|default| Arc::ptr_eq(default, backend));
        let backends = self.sandboxes.backends().all();
        let backends = backends.map(|backend| api_backend(&self.sandboxes, backend, is_default(backend)));
        let node = v1::Node {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(timestamp(self.started)),
            uptime: Some(api_duration(self.started.elapsed().unwrap_or_default())),
            state: self.state().into(),
            kernel_version: machine.kernel.clone(),
            architecture: std::env::consts::ARCH.to_owned(),
            capacity: Some(self.capacity(&machine)),
            isolation: checks.iter().filter(|check| check.name != "disk_space").map(api_fact).collect(),
            backends: backends.collect(),
            name: machine.name,
        };
        Ok(Response::new(v1::GetNodeInfoResponse { node: Some(node) }))
    }

    async fn drain_node(&self, request: Request<v1::DrainNodeRequest>) -> Answer<v1::DrainNodeResponse> {
        if !peer(&request)?.is_operator() {
            let why =
                "only root or the daemon's own user, on the unix socket, may take the node out of service";
            let refused = hostel_sandbox::Error::PermissionDenied(why.to_owned());
            return Err(crate::Error::from(refused).into());
        }
        self.sandboxes.set_draining(!request.into_inner().resume).await?;
        Ok(Response::new(v1::DrainNodeResponse { state: self.state().into(), sandbox_count: self.live().1 }))
    }

    async fn doctor(&self, _: Request<v1::DoctorRequest>) -> Answer<v1::DoctorResponse> {
        let directory = self.state_directory.clone();
        let mut checks = blocking(move || checks(&directory)).await?;
        let (declared, problems) = self.sandboxes.declarations();
        checks.extend(crate::host::of_templates(declared, &problems));
        let reach = self.sandboxes.reach();
        checks.extend(crate::host::of_reach(reach.unenforceable(), reach.gateway().is_ok()));
        checks.extend(self.sandboxes.backends().all().flat_map(crate::host::of_backend));
        Ok(Response::new(v1::DoctorResponse { checks: checks.iter().map(api_check).collect() }))
    }
}

impl NodeInfo {
    fn state(&self) -> v1::NodeState {
        if self.sandboxes.is_draining() { v1::NodeState::Draining } else { v1::NodeState::Active }
    }

    /// What live sandboxes may use together, and how many they are.
    fn live(&self) -> (v1::NodeCapacity, u32) {
        let mut taken = v1::NodeCapacity::default();
        let entries = self.sandboxes.all();
        let records = entries.iter().map(|entry| entry.record());
        let live = records.filter(|record| !record.state().is_final()).map(|record| record.limits.clone());
        for limits in live.chain(self.sandboxes.pools().warm_limits()) {
            let add = |taken: &mut u64, more: Option<u64>| *taken = taken.saturating_add(more.unwrap_or(0));
            add(&mut taken.cpu_millis_taken, limits.cpu_millis.map(u64::from));
            add(&mut taken.memory_bytes_taken, limits.memory_bytes);
            add(&mut taken.disk_bytes_taken, limits.disk_bytes);
            taken.sandboxes_taken += 1;
        }
        let count = taken.sandboxes_taken;
        (taken, count)
    }

    fn capacity(&self, machine: &Machine) -> v1::NodeCapacity {
        let (taken, _) = self.live();
        v1::NodeCapacity {
            cpu_millis: machine.cpus.saturating_mul(1000),
            memory_bytes: machine.memory_bytes,
            disk_bytes: machine.disk_bytes,
            sandboxes: u32::try_from(self.sandboxes.settings().max_sandboxes).unwrap_or(u32::MAX),
            ..taken
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        crate::Error::from(hostel_sandbox::Error::internal("look at the host", error)).into()
    })
}
