//! Containers for the conformance suite.

use async_trait::async_trait;
use hostel_conformance::Factory;
use hostel_docker::{Config, Docker};
use hostel_sandbox::{Backend, Error, Result, SandboxId};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Containers with directories of their own, on an engine.
pub(crate) struct DockerFactory {
    host: String,
    home: TempDir,
    docker: Mutex<Arc<Docker>>,
}

impl DockerFactory {
    pub(crate) async fn start(host: String) -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("hostel-docker-")
            .tempdir()
            .map_err(|error| Error::internal("make a directory for a test", error))?;
        let docker = open(home.path(), &host).await?;
        Ok(Self { host, home, docker: Mutex::new(Arc::new(docker)) })
    }

    fn docker(&self) -> Arc<Docker> {
        self.docker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn open(home: &Path, host: &str) -> Result<Docker> {
    let mut config = Config::new(home.join("state"), home.join("run"), hostel_guest_binary::GUEST);
    config.host = host.to_owned();
    if let Ok(image) = std::env::var("HOSTEL_DOCKER_IMAGE") {
        config.default_image = image;
    }
    Docker::open(config).await
}

#[async_trait]
impl Factory for DockerFactory {
    fn backend(&self) -> Arc<dyn Backend> {
        self.docker()
    }

    async fn fresh(&self) -> Result<Arc<dyn Factory>> {
        Ok(Arc::new(Self::start(self.host.clone()).await?))
    }

    async fn restart(&self) -> Result<Arc<dyn Backend>> {
        // Within one process the old side must let go of what it makes; tests/ kills whole daemons.
        self.docker().shutdown().await;
        let docker = Arc::new(open(self.home.path(), &self.host).await?);
        *self.docker.lock().unwrap_or_else(PoisonError::into_inner) = docker.clone();
        Ok(docker)
    }

    fn probe(&self) -> &'static [u8] {
        hostel_guest_binary::PROBE
    }

    fn host_paths(&self) -> Vec<String> {
        vec![self.home.path().display().to_string()]
    }

    async fn leftovers(&self, sandbox: &SandboxId) -> Vec<String> {
        // Removal of half-made ones goes on behind, and other cases come and go.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut left = match self.docker().strays().await {
                Ok(left) => left,
                Err(error) => vec![error.to_string()],
            };
            left.retain(|name| name == sandbox.as_str());
            // What stands is no stray.
            if self.docker().stands(sandbox) {
                left.push(format!("the sandbox {sandbox}"));
            }
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn close(&self) {
        self.docker().shutdown().await;
    }
}
