//! Serves HTTP on a byte stream.

use crate::error::Result;
use crate::secret::SecretSet;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whom a connection is for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

/// A request or a secret that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Decides for the requests of one connection.
#[async_trait]
pub(crate) trait Gate: Send + Sync + 'static {
    async fn admit(&self, method: &str, path: &str, host: &str) -> Result<(), Refusal>;
    async fn dial(&self) -> Result<TcpStream>;
    async fn secret_used(&self, secret: &str) -> Result<(), Refusal>;
}

/// Opens TLS.
#[derive(Debug, Default)]
pub struct Opener;

impl Opener {
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        mut client: S,
        target: Target,
        gate: Arc<dyn Gate>,
        _secrets: Arc<SecretSet>,
    ) -> Result<()> {
        tracing::debug!(?target, "not served yet");
        let (status, word) = match gate.admit("GET", "/", &target.host).await {
            Ok(()) => match gate.dial().await {
                Ok(_) => (501, String::from("none")),
                Err(error) => (502, error.to_string()),
            },
            Err(refusal) => (403, format!("{}\r\nx-message: {}", refusal.reason, refusal.message)),
        };
        let _ = gate.secret_used("none");
        let answer = format!("HTTP/1.1 {status} No\r\nx-hostel-denied: {word}\r\ncontent-length: 0\r\n\r\n");
        client.write_all(answer.as_bytes()).await.map_err(|error| crate::Error::io("cannot answer", error))?;
        client.shutdown().await.map_err(|error| crate::Error::io("cannot answer", error))
    }
}
