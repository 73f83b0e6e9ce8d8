//! Secrets that are put in on the way out.

use hostel_sandbox::network::HostPattern;

/// The secrets of a sandbox.
#[derive(Debug, Default)]
pub struct SecretSet {
    hosts: Vec<HostPattern>,
}

impl SecretSet {
    /// Whether a secret is bound to a host.
    #[must_use]
    pub fn binds(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches_name(host))
    }
}
