//! What the daemon keeps of a container so that it can be found again after a restart.

use crate::disk::Kind;
use bytes::Bytes;
use hostel_guest_client::ProcessDefaults;
use hostel_sandbox::{Error, ResourceLimits, Result, SandboxId, TemplateId};
use serde::{Deserialize, Serialize};

/// The handle, opaque to everybody else.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Handle {
    pub(crate) sandbox: SandboxId,
    /// The engine's id of the container, which no other will ever have.
    pub(crate) container: String,
    /// The image it stands on.
    pub(crate) image: String,
    /// The image was made for this sandbox alone and goes with it.
    pub(crate) own_image: bool,
    pub(crate) disk: Kind,
    pub(crate) token: Vec<u8>,
    /// The guest is reached through the engine.
    #[serde(default)]
    pub(crate) remote: bool,
    pub(crate) template: TemplateId,
    pub(crate) limits: ResourceLimits,
    #[serde(flatten)]
    pub(crate) defaults: ProcessDefaults,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("container", &self.container).finish_non_exhaustive()
    }
}

impl Handle {
    /// For the daemon's records.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn encode(&self) -> Result<Bytes> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|error| Error::internal("write a handle", error))
    }

    /// From the daemon's records.
    ///
    /// # Errors
    /// `Internal` where they are damaged.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| Error::internal("read a handle", error))
    }
}
