//! The contract of `ExecutionEnvironment`, on jails.

use async_trait::async_trait;
use hostel_conformance::Factory;
use hostel_jail::{Config, Jail};
use hostel_sandbox::{Backend, Error, Result, SandboxId};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Jails with directories of their own.
struct JailFactory {
    home: TempDir,
    jail: Mutex<Arc<Jail>>,
}

impl JailFactory {
    async fn start() -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("hostel-jail-")
            .tempdir()
            .map_err(|error| Error::internal("make a directory for a test", error))?;
        let jail = open(home.path()).await?;
        Ok(Self { home, jail: Mutex::new(Arc::new(jail)) })
    }

    fn jail(&self) -> Arc<Jail> {
        self.jail.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

async fn open(home: &Path) -> Result<Jail> {
    let mut config = Config::new(home.join("state"), home.join("run"), hostel_guest_binary::GUEST);
    (config.spare_cells, config.spare_jails) = (2, 2);
    Jail::open(config).await
}

#[async_trait]
impl Factory for JailFactory {
    fn backend(&self) -> Arc<dyn Backend> {
        self.jail()
    }

    async fn fresh(&self) -> Result<Arc<dyn Factory>> {
        Ok(Arc::new(Self::start().await?))
    }

    async fn restart(&self) -> Result<Arc<dyn Backend>> {
        // Within one process the old side must let go of the zygote; tests/recovery.rs kills whole daemons.
        self.jail().shutdown().await;
        let jail = Arc::new(open(self.home.path()).await?);
        *self.jail.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = jail.clone();
        Ok(jail)
    }

    fn probe(&self) -> &'static [u8] {
        hostel_guest_binary::PROBE
    }

    fn host_paths(&self) -> Vec<String> {
        vec![self.home.path().display().to_string()]
    }

    async fn leftovers(&self, sandbox: &SandboxId) -> Vec<String> {
        if self.jail().stands(sandbox) {
            return vec![format!("the jail of {sandbox}")];
        }
        // Removal goes on behind a deletion, and other cases come and go: what was there at first and never
        // goes is left.
        let mut left = self.jail().strays();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !left.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = self.jail().strays();
            left.retain(|cell| now.contains(cell));
        }
        left
    }

    async fn close(&self) {
        self.jail().shutdown().await;
    }
}

fn main() -> ExitCode {
    hostel_conformance::main(async || Ok(Arc::new(JailFactory::start().await?) as _))
}
