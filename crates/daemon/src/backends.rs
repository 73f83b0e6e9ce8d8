//! The backends of this node. A backend is added by one line in [`Backends::open`].

use crate::config::Config;
use crate::error::Result;
use hostel_sandbox::{Backend, BackendName};
use std::sync::Arc;

/// What provides sandboxes here, the default first. Clones share it.
#[derive(Clone)]
pub struct Backends(Arc<[Arc<dyn Backend>]>);

impl Backends {
    /// Opens every backend that this daemon was built with.
    ///
    /// # Errors
    /// Of the backend that cannot be opened.
    pub async fn open(config: &Config) -> Result<Self> {
        hostel_jail::keep_memory();
        Ok(Self::of(vec![open_jail(config).await?, open_docker(config).await?]))
    }

    /// These backends, the default first.
    #[must_use]
    pub fn of(backends: Vec<Arc<dyn Backend>>) -> Self {
        Self(backends.into())
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.0.iter()
    }

    /// The one of that name.
    #[must_use]
    pub fn get(&self, name: &BackendName) -> Option<Arc<dyn Backend>> {
        self.0.iter().find(|backend| backend.name() == *name).cloned()
    }

    /// The one that is used where none is named.
    #[must_use]
    pub fn default(&self) -> Option<Arc<dyn Backend>> {
        self.0.first().cloned()
    }
}

async fn open_jail(config: &Config) -> Result<Arc<dyn Backend>> {
    let (state, runtime) = (config.state_directory.join("jail"), config.runtime_directory.join("jail"));
    let config = hostel_jail::Config::new(state, runtime, hostel_guest_binary::GUEST);
    Ok(Arc::new(hostel_jail::Jail::open(config).await?))
}

async fn open_docker(config: &Config) -> Result<Arc<dyn Backend>> {
    let (state, runtime) = (config.state_directory.join("docker"), config.runtime_directory.join("docker"));
    let mut docker = hostel_docker::Config::new(state, runtime, hostel_guest_binary::GUEST);
    if let Some(host) = &config.docker_host {
        docker.host.clone_from(host);
    }
    if let Some(image) = &config.docker_image {
        docker.default_image.clone_from(image);
    }
    Ok(Arc::new(hostel_docker::Docker::open(docker).await?))
}
