//! Sessions: the client of a session server.

mod call;
mod watch;

pub use call::{AnswerQuestion, CreateSession, ListSessions, SendMessage, UpdateSession, WhichEvents};
pub use watch::{EventWatch, SessionExport};

use crate::address::Address;
use crate::client::open;
use crate::error::{Error, Result};
use hostel_proto::v1::session_service_client::SessionServiceClient;
use std::fmt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The environment variable that names the session server for clients.
pub const SESSIOND_ADDRESS_VARIABLE: &str = "HOSTEL_SESSIOND_ADDR";
/// The environment variable with the token for it.
pub const SESSIOND_TOKEN_VARIABLE: &str = "HOSTEL_SESSIOND_TOKEN";

/// Largest answer that is taken, in bytes. A line of an agent has up to 64 MiB; the end of a turn has the last one, and
/// its text again; a page has 16 MiB before the last event on it.
const LARGEST: usize = 256 << 20;

/// A client of one session server. Cheap to clone; all clones share one connection, which is made again when it breaks.
#[derive(Clone)]
pub struct SessionClient {
    channel: Channel,
    address: Address,
    bearer: Bearer,
}

impl fmt::Debug for SessionClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SessionClient").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Says who we are with each call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl SessionClient {
    /// Where a session server listens when nobody said otherwise: `http://127.0.0.1:3333`.
    #[must_use]
    pub fn default_address() -> Address {
        Address::Http("127.0.0.1:3333".to_owned())
    }

    /// Connects to the server that `HOSTEL_SESSIOND_ADDR` names, or to the one of this machine, with the token in
    /// `HOSTEL_SESSIOND_TOKEN` if there is one.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect), and [`Error::Address`] where the variable has none.
    pub async fn connect_default() -> Result<Self> {
        let address = match std::env::var(SESSIOND_ADDRESS_VARIABLE) {
            Ok(text) if !text.is_empty() => text.parse()?,
            _ => Self::default_address(),
        };
        let token = std::env::var(SESSIOND_TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        Self::connect(&address, token.as_deref()).await
    }

    /// Connects to a session server, with a token where it wants one. The token is sent with each call and never shown.
    ///
    /// # Errors
    /// [`Error::SessionServerUnreachable`] when nobody answers, [`Error::Unsupported`] for a token that no header can
    /// carry.
    pub async fn connect(address: &Address, token: Option<&str>) -> Result<Self> {
        let bearer = |token: &str| {
            let mut value: MetadataValue<Ascii> =
                format!("Bearer {}", token.trim()).parse().map_err(|_| {
                    Error::Unsupported(
                        "the token for the session server has characters that no header takes".to_owned(),
                    )
                })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let bearer = Bearer(token.map(bearer).transpose()?);
        let channel = open(address)
            .await
            .map_err(|detail| Error::SessionServerUnreachable { address: address.clone(), detail })?;
        Ok(Self { channel, address: address.clone(), bearer })
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn calls(&self) -> SessionServiceClient<InterceptedService<Channel, Bearer>> {
        SessionServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(LARGEST)
    }
}
