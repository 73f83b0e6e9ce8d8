//! A daemon under test: on a real unix socket, in directories of its own, over a fake backend.

use crate::fake::{Fake, Host};
use hostel_proto::v1::file_service_client::FileServiceClient;
use hostel_proto::v1::node_service_client::NodeServiceClient;
use hostel_proto::v1::pool_service_client::PoolServiceClient;
use hostel_proto::v1::process_service_client::ProcessServiceClient;
use hostel_proto::v1::sandbox_service_client::SandboxServiceClient;
use hostel_proto::v1::template_service_client::TemplateServiceClient;
use hostel_proto::v1::{self, CreateSandboxRequest, Sandbox};
use hostel_sandbox::Backend;
use hosteld::{Backends, Config, build_with};
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

/// Directories and sandboxes that outlive daemons.
pub(crate) struct Node {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) host: Arc<Host>,
}

/// A running daemon.
pub(crate) struct Running {
    pub(crate) backend: Arc<Fake>,
    channel: Channel,
    stop: oneshot::Sender<()>,
    task: JoinHandle<hosteld::Result<()>>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), host: Host::new() }
    }

    pub(crate) fn config(&self) -> Config {
        let path = self.directory.path();
        Config::in_directories(&path.join("state"), &path.join("run"))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/hosteld.sock")
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(self.config()).await
    }

    pub(crate) async fn start_with(&self, config: Config) -> Running {
        self.start_beside(config, Vec::new()).await
    }

    /// With further backends.
    pub(crate) async fn start_beside(&self, config: Config, others: Vec<Arc<Fake>>) -> Running {
        let backend = Fake::new(&self.host);
        let mut backends: Vec<Arc<dyn Backend>> = vec![backend.clone()];
        backends.extend(others.into_iter().map(|other| other as Arc<dyn Backend>));
        let daemon = build_with(config, Backends::of(backends)).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let task = tokio::spawn(async move { daemon.run(async move { drop(stopped.await) }).await });
        Running { backend, channel: connect(&self.socket()).await, stop, task }
    }
}

async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

impl Running {
    pub(crate) fn sandboxes(&self) -> SandboxServiceClient<Channel> {
        SandboxServiceClient::new(self.channel.clone())
    }

    pub(crate) fn processes(&self) -> ProcessServiceClient<Channel> {
        ProcessServiceClient::new(self.channel.clone())
    }

    pub(crate) fn files(&self) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel.clone())
    }

    pub(crate) fn templates(&self) -> TemplateServiceClient<Channel> {
        TemplateServiceClient::new(self.channel.clone())
    }

    pub(crate) fn pools(&self) -> PoolServiceClient<Channel> {
        PoolServiceClient::new(self.channel.clone())
    }

    pub(crate) fn node(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) async fn create(&self, request: CreateSandboxRequest) -> Result<Sandbox, Status> {
        let created = self.sandboxes().create_sandbox(request).await?;
        Ok(created.into_inner().sandbox.unwrap())
    }

    pub(crate) async fn get(&self, id: &str) -> Result<Sandbox, Status> {
        let request = v1::GetSandboxRequest { sandbox_id: id.to_owned() };
        Ok(self.sandboxes().get_sandbox(request).await?.into_inner().sandbox.unwrap())
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = v1::DeleteSandboxRequest { sandbox_id: id.to_owned(), ..Default::default() };
        self.sandboxes().delete_sandbox(request).await.map(|_| ())
    }

    /// Waits until nothing else has a sandbox in hand.
    pub(crate) async fn pause_and_resume(&self, id: &str) {
        let (pause, resume) = (
            v1::PauseSandboxRequest { sandbox_id: id.to_owned() },
            v1::ResumeSandboxRequest { sandbox_id: id.to_owned() },
        );
        self.sandboxes().pause_sandbox(pause).await.unwrap();
        self.sandboxes().resume_sandbox(resume).await.unwrap();
    }

    pub(crate) async fn start_process(
        &self,
        sandbox: &str,
        command: &[&str],
        request_id: &str,
    ) -> Result<v1::Process, Status> {
        let spec = v1::ProcessSpec { command: words(command), stdin: true, ..Default::default() };
        let request = v1::StartProcessRequest {
            sandbox_id: sandbox.to_owned(),
            request_id: request_id.to_owned(),
            process_id: String::new(),
            spec: Some(spec),
        };
        Ok(self.processes().start_process(request).await?.into_inner().process.unwrap())
    }

    /// Stops as SIGTERM does.
    pub(crate) async fn stop(self) -> hosteld::Result<()> {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }

    /// Ends at once, as near to kill -9 as one process can.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Asks again until it is true, for half a minute at most.
pub(crate) async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"));
}

pub(crate) fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(ToString::to_string).collect()
}

/// The reason of an error, as programs see it.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}
