//! Creation with the times of its steps, which the Rust client does not show: they are in the answer of the API.

use anyhow::{Context as _, Result};
use hostel_proto::v1;
use hostel_proto::v1::sandbox_service_client::SandboxServiceClient;
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// The generated client of SandboxService.
#[derive(Clone)]
pub(crate) struct StagedClient(SandboxServiceClient<Channel>);

/// A created sandbox.
pub(crate) struct Staged {
    pub(crate) id: String,
    /// From the call to the answer.
    pub(crate) total: Duration,
    /// What the daemon says about its steps, in order.
    pub(crate) stages: Vec<(String, Duration)>,
}

impl StagedClient {
    pub(crate) async fn connect(socket: PathBuf) -> Result<Self> {
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://hosteld.invalid");
        let channel = endpoint.connect_with_connector(connect).await.context("connect to the daemon")?;
        Ok(Self(SandboxServiceClient::new(channel)))
    }

    /// Makes a sandbox with these limits on a backend; an empty name is the default one.
    pub(crate) async fn create(
        &self,
        backend: &str,
        limits: &hostel_sandbox::ResourceLimits,
    ) -> Result<Staged> {
        let limits = v1::ResourceLimits {
            memory_bytes: limits.memory_bytes,
            cpu_millis: limits.cpu_millis,
            pids: limits.pids,
            ..Default::default()
        };
        let backend = backend.to_owned();
        let request = v1::CreateSandboxRequest { backend, limits: Some(limits), ..Default::default() };
        let mut client = self.0.clone();
        let start = Instant::now();
        let answer = client.create_sandbox(request).await.context("create a sandbox")?.into_inner();
        let total = start.elapsed();
        let stages = answer.stages.into_iter().map(|stage| {
            let duration = stage.duration.and_then(|duration| Duration::try_from(duration).ok());
            (stage.name, duration.unwrap_or_default())
        });
        let id = answer.sandbox.context("an answer without a sandbox")?.id;
        Ok(Staged { id, total, stages: stages.collect() })
    }

    /// Deletes a sandbox.
    pub(crate) async fn delete(&self, id: &str) -> Result<()> {
        let request = v1::DeleteSandboxRequest { sandbox_id: id.to_owned(), ..Default::default() };
        self.0.clone().delete_sandbox(request).await.context("delete a sandbox")?;
        Ok(())
    }
}
