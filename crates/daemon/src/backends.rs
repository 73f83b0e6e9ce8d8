//! The backends of this node. A backend is added by one line in [`Backends::open`].

use crate::config::Config;
use crate::error::Result;
use hostel_sandbox::{Backend, BackendName};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What provides sandboxes here, the default first. Clones share it.
#[derive(Clone)]
pub struct Backends(Arc<[One]>);

struct One {
    backend: Arc<dyn Backend>,
    /// Whether it could be used at some time.
    was_well: AtomicBool,
}

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
        let one = |backend: Arc<dyn Backend>| {
            let was_well = AtomicBool::new(backend.trouble().is_none());
            One { backend, was_well }
        };
        Self(backends.into_iter().map(one).collect())
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.0.iter().map(|one| &one.backend)
    }

    /// Why one cannot be used now, and whether it could before: then it is expected back.
    #[must_use]
    pub fn trouble(&self, name: &BackendName) -> Option<(String, bool)> {
        let one = self.0.iter().find(|one| one.backend.name() == *name)?;
        let trouble = one.backend.trouble();
        if trouble.is_none() {
            one.was_well.store(true, Ordering::Relaxed);
        }
        Some((trouble?, one.was_well.load(Ordering::Relaxed)))
    }

    /// The one of that name.
    #[must_use]
    pub fn get(&self, name: &BackendName) -> Option<Arc<dyn Backend>> {
        self.all().find(|backend| backend.name() == *name).cloned()
    }

    /// The one that is used where none is named.
    #[must_use]
    pub fn default(&self) -> Option<Arc<dyn Backend>> {
        self.all().next().cloned()
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
    docker.certificates.clone_from(&config.docker_certificates);
    if let Some(image) = &config.docker_image {
        docker.default_image.clone_from(image);
    }
    Ok(Arc::new(hostel_docker::Docker::open(docker).await?))
}
