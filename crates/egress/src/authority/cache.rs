//! The TLS configurations of the hosts that were asked for last.

use rustls::ServerConfig;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

/// Most hosts kept.
pub(super) const MAX_HOSTS: usize = 1024;

/// A cache that forgets what was not used for longest.
#[derive(Default)]
pub(super) struct Cache {
    hosts: HashMap<String, Kept>,
    /// Counts uses; the number of an entry's last use is its age.
    uses: u64,
}

struct Kept {
    config: Arc<ServerConfig>,
    until: SystemTime,
    used: u64,
}

impl Cache {
    /// The configuration of a host, where it is here and still good.
    pub(super) fn get(&mut self, host: &str, now: SystemTime) -> Option<Arc<ServerConfig>> {
        let kept = self.hosts.get_mut(host).filter(|kept| now < kept.until)?;
        self.uses += 1;
        kept.used = self.uses;
        Some(Arc::clone(&kept.config))
    }

    /// Keeps a configuration until a time.
    pub(super) fn put(&mut self, host: String, config: Arc<ServerConfig>, until: SystemTime) {
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&host) {
            // One look over a thousand costs less than making the certificate did.
            let oldest = self.hosts.iter().min_by_key(|(_, kept)| kept.used).map(|(host, _)| host.clone());
            if let Some(oldest) = oldest {
                self.hosts.remove(&oldest);
            }
        }
        self.uses += 1;
        self.hosts.insert(host, Kept { config, until, used: self.uses });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }
}
