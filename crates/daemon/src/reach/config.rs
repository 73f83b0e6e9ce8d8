//! What the operator says of the network, secrets and models.

use crate::error::{Error, Result};
use hostel_egress::Settings;
use hostel_egress::audit::OnFailure;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What sandboxes may reach, and through what.
#[derive(Debug, Clone, Default)]
pub struct ReachConfig {
    /// Where lists of rules are: `DIRECTORY/NAME.toml`.
    pub preset_directories: Vec<PathBuf>,
    /// Where values of secrets are, a file each.
    pub secret_directories: Vec<PathBuf>,
    /// The gateway's upstreams and prices; absent: Anthropic's API where `ANTHROPIC_API_KEY` is set, else no gateway.
    pub gateway_file: Option<PathBuf>,
    /// Who resolves names for sandboxes; empty: whom the host asks.
    pub name_servers: Vec<SocketAddr>,
    /// Certificates to trust besides the host's, PEM.
    pub trust: Option<PathBuf>,
    /// Sandboxes reach things also while the audit log cannot be written.
    pub unaudited: bool,
}

impl ReachConfig {
    /// This, and the other where this says nothing.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        let rather = |these: Vec<_>, those| if these.is_empty() { those } else { these };
        Self {
            preset_directories: rather(self.preset_directories, other.preset_directories),
            secret_directories: rather(self.secret_directories, other.secret_directories),
            gateway_file: self.gateway_file.or(other.gateway_file),
            name_servers: if self.name_servers.is_empty() { other.name_servers } else { self.name_servers },
            trust: self.trust.or(other.trust),
            unaudited: self.unaudited || other.unaudited,
        }
    }
}
