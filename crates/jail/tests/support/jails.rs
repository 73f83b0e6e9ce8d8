//! Jails to be tested.
#![allow(dead_code, reason = "not every test needs everything")]

use async_trait::async_trait;
use hostel_conformance::{Factory, Harness, Sandbox, patience};
use hostel_jail::{Config, Jail};
use hostel_sandbox::{Backend, Result, SandboxId, SandboxSpec};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A backend with directories of its own.
pub(crate) struct Jails {
    pub(crate) jail: Arc<Jail>,
    pub(crate) home: TempDir,
}

impl Jails {
    /// Starts it with so many jails ahead.
    pub(crate) async fn start(spare_jails: usize) -> Arc<Self> {
        Self::start_in(tempfile::Builder::new().prefix("hostel-jail-").tempdir().unwrap(), spare_jails).await
    }

    /// Starts it where another one has ended.
    pub(crate) async fn start_in(home: TempDir, spare_jails: usize) -> Arc<Self> {
        let directories = (home.path().join("state"), home.path().join("run"));
        let mut config = Config::new(directories.0, directories.1, hostel_guest_binary::GUEST);
        (config.spare_cells, config.spare_jails) = (2, spare_jails);
        Arc::new(Self { jail: Arc::new(Jail::open(config).await.unwrap()), home })
    }

    /// The cells in which jails wait, once there are that many and one of them is not among `others`.
    pub(crate) async fn waiting(&self, count: usize, others: &[String]) -> Vec<String> {
        let deadline = Instant::now() + patience();
        loop {
            let waiting = self.jail.waiting();
            if waiting.len() >= count && waiting.iter().any(|cell| !others.contains(cell)) {
                return waiting;
            }
            assert!(Instant::now() < deadline, "{waiting:?} wait");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[async_trait]
impl Factory for Jails {
    fn backend(&self) -> Arc<dyn Backend> {
        self.jail.clone()
    }

    async fn fresh(&self) -> Result<Arc<dyn Factory>> {
        Ok(Self::start(2).await)
    }

    async fn restart(&self) -> Result<Arc<dyn Backend>> {
        Ok(self.jail.clone())
    }

    fn probe(&self) -> &'static [u8] {
        hostel_guest_binary::PROBE
    }

    fn host_paths(&self) -> Vec<String> {
        Vec::new()
    }

    async fn leftovers(&self, _sandbox: &SandboxId) -> Vec<String> {
        Vec::new()
    }

    async fn close(&self) {
        self.jail.shutdown().await;
    }
}

/// A sandbox, with what the daemon keeps of it.
pub(crate) async fn create(harness: &Harness, change: impl FnOnce(&mut SandboxSpec)) -> (Sandbox, Value) {
    let mut spec = harness.spec();
    change(&mut spec);
    let created = harness.backend().create(&SandboxId::generate(), &spec).await.unwrap();
    let handle = serde_json::from_slice(&created.handle).unwrap();
    (harness.keep(created), handle)
}

/// Removes what was made and what was ready; nothing is left.
pub(crate) async fn end(harness: Arc<Harness>, jails: &Jails) {
    harness.clean_up().await.unwrap();
    jails.jail.shutdown().await;
    assert_eq!(jails.jail.strays(), Vec::<String>::new());
}
