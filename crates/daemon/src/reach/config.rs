//! What the operator says of the network, secrets and models.

use crate::error::{Error, Result};
use crate::state_directory;
use hostel_egress::audit::{AuditSettings, Flush, OnFailure};
use hostel_egress::{Names, Settings};
use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;

/// How many full files of the audit log are kept: with the one that is written, at most some 1.1 GiB.
const AUDIT_KEEP: usize = 16;

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
    /// Blocks that sandboxes may reach like public ones although they are private, or this host's own.
    pub reachable: Vec<IpNet>,
    /// Certificates to trust besides the host's, PEM.
    pub trust: Option<PathBuf>,
    /// Sandboxes reach things also while the audit log cannot be written.
    pub unaudited: bool,
    /// How many full files of the audit log are kept, 64 MiB each, 0 for all; absent: 16.
    pub audit_keep: Option<usize>,
    /// Connections may hide a second name in their ClientHello where hosts are allowed by name.
    pub encrypted_hello: bool,
    /// When decisions in the audit log are brought to the disk; absent: within a second.
    pub audit_sync: Option<Flush>,
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
            reachable: if self.reachable.is_empty() { other.reachable } else { self.reachable },
            trust: self.trust.or(other.trust),
            unaudited: self.unaudited || other.unaudited,
            audit_keep: self.audit_keep.or(other.audit_keep),
            encrypted_hello: self.encrypted_hello || other.encrypted_hello,
            audit_sync: self.audit_sync.or(other.audit_sync),
        }
    }
}

impl ReachConfig {
    /// How the egress shall be.
    pub(super) fn settings(&self, runtimes: Vec<Handle>) -> Settings {
        let names = match self.name_servers.as_slice() {
            [] => Names::System,
            servers => Names::Servers(servers.to_vec()),
        };
        Settings {
            names,
            reachable: self.reachable.clone(),
            encrypted_hello: self.encrypted_hello,
            runtimes,
            ..Settings::default()
        }
    }

    /// Whom to believe where TLS of sandboxes is opened: whom the host believes, and who was named.
    ///
    /// # Errors
    /// [`Error::Config`] for a file that cannot be read.
    pub(super) fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = &self.trust {
            let wrong = |error: &dyn std::fmt::Display| Error::Config(format!("{}: {error}", file.display()));
            let certificates = CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
        Ok(roots)
    }

    /// How the audit log shall be.
    pub(super) fn audit(&self, path: &Path) -> AuditSettings {
        let on_failure = if self.unaudited { OnFailure::Continue } else { OnFailure::Refuse };
        AuditSettings {
            on_failure,
            flush: self.audit_sync.unwrap_or_default(),
            keep: self.audit_keep.unwrap_or(AUDIT_KEEP),
            ..AuditSettings::new(path)
        }
    }

    /// The gateway's configuration; nothing where there is no upstream.
    ///
    /// # Errors
    /// [`Error::Config`] naming file and key.
    pub(super) fn gateway(&self, state_directory: &Path) -> Result<Option<hostel_gateway::Config>> {
        let declaration = match &self.gateway_file {
            Some(file) => {
                let wrong =
                    |error: &dyn std::fmt::Display| Error::Config(format!("{}: {error}", file.display()));
                let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
                toml::from_str(&text).map_err(|error| wrong(&error))?
            }
            None if std::env::var_os("ANTHROPIC_API_KEY").is_some_and(|key| !key.is_empty()) => anthropic(),
            None => return Ok(None),
        };
        let directory = state_directory.join("gateway");
        state_directory::make(&directory, 0o700)?;
        let config =
            declaration.resolve(directory).map_err(|error| Error::Config(format!("gateway: {error}")))?;
        Ok(Some(config))
    }
}

/// Anthropic's API with the key that the daemon's environment has.
fn anthropic() -> hostel_gateway::Declaration {
    let text = "[[upstream]]\nname = \"anthropic\"\nbase_url = \"https://api.anthropic.com\"\nkey_env = \"ANTHROPIC_API_KEY\"\n";
    toml::from_str(text).unwrap_or_default()
}
