//! Plain gRPC clients, for requests that no client of ours would send.

use crate::TestDaemon;
use hostel_proto::v1::file_service_client::FileServiceClient;
use hostel_proto::v1::pool_service_client::PoolServiceClient;
use hostel_proto::v1::process_service_client::ProcessServiceClient;
use hostel_proto::v1::sandbox_service_client::SandboxServiceClient;
use hostel_proto::v1::template_service_client::TemplateServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::service_fn;

/// One connection to a daemon.
#[derive(Debug, Clone)]
pub struct Api {
    /// The connection.
    pub channel: Channel,
}

impl Api {
    /// Connects to the daemon's socket.
    ///
    /// # Panics
    /// Where nobody answers.
    pub async fn connect(daemon: &TestDaemon) -> Self {
        let socket = daemon.socket();
        let connect = service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://hosteld.invalid");
        Self { channel: endpoint.connect_with_connector(connect).await.expect("a connection") }
    }

    /// `SandboxService`.
    #[must_use]
    pub fn sandboxes(&self) -> SandboxServiceClient<Channel> {
        SandboxServiceClient::new(self.channel.clone())
    }

    /// `ProcessService`.
    #[must_use]
    pub fn processes(&self) -> ProcessServiceClient<Channel> {
        ProcessServiceClient::new(self.channel.clone())
    }

    /// `FileService`.
    #[must_use]
    pub fn files(&self) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel.clone())
    }

    /// `PoolService`.
    #[must_use]
    pub fn pools(&self) -> PoolServiceClient<Channel> {
        PoolServiceClient::new(self.channel.clone())
    }

    /// `TemplateService`.
    #[must_use]
    pub fn templates(&self) -> TemplateServiceClient<Channel> {
        TemplateServiceClient::new(self.channel.clone())
    }
}

/// Why a call was refused, as a program sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// `ErrorInfo.reason`.
    pub reason: String,
    /// The field that `BadRequest` names; empty where there is none.
    pub field: String,
}

/// Reads a refusal, which has the details that every error of ours has.
///
/// # Panics
/// Where they are missing.
#[must_use]
pub fn refusal(status: &Status) -> Refusal {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "hostel", "{status:?}");
    assert!(!status.message().is_empty() && status.message().len() < 4096, "{status:?}");
    let field = details.bad_request().and_then(|request| request.field_violations.first());
    if status.code() == Code::InvalidArgument {
        assert!(field.is_some_and(|violation| !violation.description.is_empty()), "no field in {status:?}");
    }
    let field = field.map(|violation| violation.field.clone()).unwrap_or_default();
    Refusal { code: status.code(), reason: info.reason.clone(), field }
}
