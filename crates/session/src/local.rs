//! Sessions in this process.

use crate::error::Result;
use crate::store::Store;
use hostel_client::Address;
use std::sync::Arc;
use std::time::Duration;

/// How sessions are hosted.
#[derive(Debug, Clone, PartialEq)]
pub struct HostConfig {
    /// The daemon that has the sandboxes.
    pub daemon: Address,
    /// The template of sandboxes whose session says nothing.
    pub template: String,
    /// The backend of sandboxes whose session says nothing; `None` is the daemon's.
    pub backend: Option<String>,
    /// The pool of sandboxes whose session says nothing; `None` is any that fits.
    pub pool: Option<String>,
    /// Whether sandboxes ask models through the daemon's gateway. Without, agents need a key of their own in `env`.
    pub gateway: bool,
    /// What a sandbox may reach whose session says nothing: `none`, `open`, or hosts to allow.
    pub network: Vec<String>,
    /// `maxIdleTimeMs` where a session says nothing.
    pub max_idle_time: Option<Duration>,
    /// `maxLifetimeMs` where a session says nothing.
    pub max_lifetime: Option<Duration>,
    /// `maxBudgetUsd` where a session says nothing.
    pub max_budget: Option<crate::usd::Usd>,
    /// How long a question waits for its answer before it is denied.
    pub question_timeout: Duration,
    /// How long an agent that is stopped may take to end by itself.
    pub stop_grace: Duration,
    /// How long the sandbox and record's files of an ephemeral session stay after its end.
    pub ephemeral_retention: Duration,
    /// How often an agent may be started again within how long, before its session is in error.
    pub restarts: (u32, Duration),
    /// Messages that may wait in one session.
    pub max_queue: usize,
    /// Sessions that may be in memory.
    pub max_loaded: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            daemon: Address::default_for_user(),
            template: "claude".to_owned(),
            backend: None,
            pool: None,
            gateway: true,
            network: vec!["none".to_owned()],
            max_idle_time: Some(Duration::from_secs(30 * 60)),
            max_lifetime: Some(Duration::from_secs(24 * 60 * 60)),
            max_budget: None,
            question_timeout: Duration::from_secs(5 * 60),
            stop_grace: Duration::from_secs(5),
            ephemeral_retention: Duration::from_secs(60),
            restarts: (3, Duration::from_secs(5)),
            max_queue: 100,
            max_loaded: 10_000,
        }
    }
}

/// Sessions in this process: each that is not over has a task of its own.
pub struct LocalSessionHost {
    _store: Arc<dyn Store>,
    _config: HostConfig,
}

impl LocalSessionHost {
    /// Takes over what is in the store: sessions that are not over go on, turns that run are followed.
    ///
    /// # Errors
    /// Those of the store. A daemon that is not there makes sessions wait for it, not this fail.
    pub async fn open(store: Arc<dyn Store>, config: HostConfig) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { _store: store, _config: config }))
    }
}
