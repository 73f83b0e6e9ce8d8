//! What every handler has.

use hostel_session::{ClientHub, SessionHost, SessionId};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What every handler has.
#[derive(Clone)]
pub(crate) struct App {
    /// The sessions.
    pub(super) host: Arc<dyn SessionHost>,
    /// Who listens to them.
    pub(super) hub: ClientHub,
    /// Cancelled when the server is going away: streams end then.
    pub(super) stop: CancellationToken,
}

impl App {
    pub(crate) fn new(host: Arc<dyn SessionHost>, hub: ClientHub, stop: CancellationToken) -> Self {
        Self { host, hub, stop }
    }

    /// Where relative paths of a session begin, inside its sandbox.
    ///
    /// # Errors
    /// Those of [`SessionHost::get`].
    pub(super) async fn working_directory(&self, id: &SessionId) -> hostel_session::Result<String> {
        let session = self.host.get(id).await?;
        Ok(session.config.working_directory.unwrap_or_else(|| "/workspace".to_owned()))
    }
}
