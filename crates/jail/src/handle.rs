//! What the daemon keeps of a jail so that it can be found again after a restart.

use crate::cell::Cell;
use crate::ids::Range;
use bytes::Bytes;
use hostel_guest_client::ProcessDefaults;
use hostel_sandbox::{Error, ResourceLimits, Result, SandboxId, TemplateId};
use serde::{Deserialize, Serialize};

/// The handle, opaque to everybody else.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Handle {
    pub(crate) sandbox: SandboxId,
    pub(crate) cell: String,
    pub(crate) range: Option<u32>,
    pub(crate) on_disk: bool,
    /// First process on the host, and when it was started (field 22 of proc_pid_stat(5)): together unique.
    pub(crate) pid: u32,
    pub(crate) started: u64,
    pub(crate) token: Vec<u8>,
    pub(crate) template: TemplateId,
    pub(crate) layers: Vec<String>,
    pub(crate) host_usr: bool,
    pub(crate) limits: ResourceLimits,
    #[serde(flatten)]
    pub(crate) defaults: ProcessDefaults,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("cell", &self.cell).field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Handle {
    /// The cell it stands on.
    pub(crate) fn cell(&self) -> Cell {
        Cell {
            name: self.cell.clone(),
            range: self.range.and_then(Range::from_number),
            on_disk: self.on_disk,
        }
    }

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

/// When a process was started, in clock ticks since boot; `None` where there is none.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets that may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
