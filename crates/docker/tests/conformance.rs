//! The contract of `ExecutionEnvironment`, on containers of the engine that `DOCKER_HOST` names.
//!
//! `scripts/with-docker.sh` sets it, with an engine of its own where none runs. Without an engine nothing is tested,
//! and it is said.

use async_trait::async_trait;
use hostel_conformance::Factory;
use hostel_docker::{Config, Docker};
use hostel_sandbox::{Backend, Error, Result, SandboxId};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Containers with directories of their own.
struct DockerFactory {
    home: TempDir,
    docker: Mutex<Arc<Docker>>,
}

impl DockerFactory {
    async fn start() -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("hostel-docker-")
            .tempdir()
            .map_err(|error| Error::internal("make a directory for a test", error))?;
        let docker = open(home.path()).await?;
        Ok(Self { home, docker: Mutex::new(Arc::new(docker)) })
    }

    fn docker(&self) -> Arc<Docker> {
        self.docker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn open(home: &Path) -> Result<Docker> {
    let mut config = Config::new(home.join("state"), home.join("run"), hostel_guest_binary::GUEST);
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        config.host = host;
    }
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
        Ok(Arc::new(Self::start().await?))
    }

    async fn restart(&self) -> Result<Arc<dyn Backend>> {
        // Within one process the old side must let go of what it makes; tests/ kills whole daemons.
        self.docker().shutdown().await;
        let docker = Arc::new(open(self.home.path()).await?);
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
            let left = match self.docker().strays().await {
                Ok(left) => left,
                Err(error) => vec![error.to_string()],
            };
            let left: Vec<String> = left.into_iter().filter(|name| name == sandbox.as_str()).collect();
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

fn main() -> ExitCode {
    if std::env::var_os("DOCKER_HOST").is_none() {
        eprintln!("SKIPPED: no case of the Docker backend was run, for DOCKER_HOST names no engine;");
        eprintln!("         scripts/with-docker.sh cargo test … starts one where the kernel allows it");
        return ExitCode::SUCCESS;
    }
    hostel_conformance::main(async || Ok(Arc::new(DockerFactory::start().await?) as _))
}
