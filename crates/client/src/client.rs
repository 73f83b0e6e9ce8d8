//! The connection to a daemon.

use crate::address::Address;
use crate::error::{Error, Result};
use hostel_proto::v1::file_service_client::FileServiceClient;
use hostel_proto::v1::network_service_client::NetworkServiceClient;
use hostel_proto::v1::node_service_client::NodeServiceClient;
use hostel_proto::v1::pool_service_client::PoolServiceClient;
use hostel_proto::v1::process_service_client::ProcessServiceClient;
use hostel_proto::v1::sandbox_service_client::SandboxServiceClient;
use hostel_proto::v1::secret_service_client::SecretServiceClient;
use hostel_proto::v1::template_service_client::TemplateServiceClient;
use hostel_proto::v1::usage_service_client::UsageServiceClient;
use hyper_util::rt::TokioIo;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Window of one HTTP/2 stream, in bytes: what the daemon may send of one output before we read it.
const STREAM_WINDOW: u32 = 8 << 20;
/// Window of the connection, in bytes.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest HTTP/2 frame taken, in bytes: a whole message of output with its header.
const FRAME_SIZE: u32 = (256 << 10) + 1024;
/// Largest list of headers taken, in bytes: an error with its details is one.
const HEADERS: u32 = 64 << 10;
/// Bytes that may wait in a unix socket to the daemon.
const SEND_BUFFER: usize = 1 << 20;
/// Largest message taken, in bytes. Streams stay far below; a page of a thousand sandboxes may not.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a quiet connection is looked after, and how long an answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A client of one daemon. Cheap to clone; all clones share one connection, which is made again when it breaks.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    address: Address,
}

impl Client {
    /// Connects to the daemon that `HOSTEL_ADDR` names, or to this user's own.
    ///
    /// # Errors
    /// [`Error::Address`] when `HOSTEL_ADDR` is wrong, [`Error::Unreachable`] when nobody answers.
    pub async fn connect_default() -> Result<Self> {
        Self::connect(&Address::from_environment()?).await
    }

    /// Connects to a daemon.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when nobody answers.
    pub async fn connect(address: &Address) -> Result<Self> {
        let channel =
            open(address).await.map_err(|detail| Error::Unreachable { address: address.clone(), detail })?;
        Ok(Self { channel, address: address.clone() })
    }

    /// Where the daemon is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn sandboxes(&self) -> SandboxServiceClient<Channel> {
        SandboxServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn processes(&self) -> ProcessServiceClient<Channel> {
        ProcessServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn files(&self) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn templates(&self) -> TemplateServiceClient<Channel> {
        TemplateServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn pools(&self) -> PoolServiceClient<Channel> {
        PoolServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn networks(&self) -> NetworkServiceClient<Channel> {
        NetworkServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn usages(&self) -> UsageServiceClient<Channel> {
        UsageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn secrets(&self) -> SecretServiceClient<Channel> {
        SecretServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// Connects; `Err` with what the system says.
pub(crate) async fn open(address: &Address) -> std::result::Result<Channel, String> {
    let channel = match address {
        Address::Unix(path) => {
            let endpoint = tuned(Endpoint::from_static("http://hosteld.invalid"));
            let path = path.clone();
            endpoint.connect_with_connector(service_fn(move |_| connect_unix(path.clone()))).await
        }
        Address::Http(authority) => match Endpoint::from_shared(format!("http://{authority}")) {
            Ok(endpoint) => tuned(endpoint).connect().await,
            Err(error) => Err(error),
        },
    };
    channel.map_err(|error| innermost(&error))
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .http2_max_header_list_size(HEADERS)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
}

async fn connect_unix(path: PathBuf) -> std::io::Result<TokioIo<UnixStream>> {
    let stream = UnixStream::connect(path).await?;
    // Room for some frames of what we send, so that contents of files need fewer turns. A refusal costs speed only.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
    Ok(TokioIo::new(stream))
}

/// The cause at the bottom, which is the one that people understand: "Connection refused", not "transport error".
fn innermost(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
