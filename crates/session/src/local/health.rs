//! How the host is.

use super::LocalSessionHost;
use crate::host::Health;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How long what was seen holds.
const FRESH: Duration = Duration::from_secs(1);
/// How long the store, the daemon and the blob store may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

impl LocalSessionHost {
    /// Asks everything that is needed whether it is there.
    pub(super) async fn look_after(&self) -> Health {
        // Anybody may ask, as often as they like: it is looked at once a second.
        let mut looked = self.looked.lock().await;
        if let Some((at, health)) = looked.as_ref()
            && at.elapsed() < FRESH
        {
            return health.clone();
        }
        let health = self.look().await;
        *looked = Some((Instant::now(), health.clone()));
        health
    }

    async fn look(&self) -> Health {
        self.loaded.let_go();
        let mut problems = Vec::new();
        match tokio::time::timeout(ANSWER, self.shared.store.check()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => problems.push(error.to_string()),
            Err(_) => problems.push("the session store does not answer".to_owned()),
        }
        let daemon = async { self.shared.client().await?.node_info().await.map_err(crate::Error::from) };
        let blobs = tokio::time::timeout(ANSWER, self.shared.blobs.check());
        let (daemon, blobs) = tokio::join!(tokio::time::timeout(ANSWER, daemon), blobs);
        match daemon {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => problems.push(format!("the daemon: {error}")),
            Err(_) => problems.push("the daemon does not answer".to_owned()),
        }
        let trouble = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        problems.extend(trouble);
        problems.dedup();
        let healthy = problems.is_empty();
        // Sessions work without, but for what is to be kept there.
        match blobs {
            Ok(Ok(())) => {}
            Ok(Err(error)) => problems.push(error.to_string()),
            Err(_) => problems.push("the blob store does not answer".to_owned()),
        }
        let (loaded_sessions, running_turns) = self.loaded.count();
        Health { healthy, problems, loaded_sessions, running_turns }
    }
}
