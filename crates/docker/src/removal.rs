//! The end of a sandbox: its container, what is on this host of it, and the image that goes with it.

use crate::backend::{Inner, lock};
use crate::container;
use crate::engine::{QUESTION, WORK, bounded};
use crate::handle::Handle;
use bollard::query_parameters::{InspectContainerOptions, RemoveContainerOptionsBuilder};
use hostel_guest_client::Guest;
use hostel_sandbox::{Error, Result, SandboxId};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A sandbox that shall be gone.
#[derive(Clone)]
pub(crate) struct Removal {
    pub(crate) handle: Handle,
    pub(crate) guest: Guest,
    /// Held by whoever removes it; true once it is gone. Until then its id stands, and is no other's.
    pub(crate) gone: Arc<tokio::sync::Mutex<bool>>,
}

impl Inner {
    /// Removes a sandbox to its end, whether or not the caller still waits. Succeeds where it is gone.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`: it is removed once the engine is back, or when asked again.
    pub(crate) async fn remove(self: &Arc<Self>, removal: Removal) -> Result<()> {
        let inner = Arc::clone(self);
        let removed = self.tasks.spawn(async move { inner.remove_wholly(&removal).await });
        removed.await.map_err(|error| Error::internal("remove a sandbox", error))?
    }

    async fn remove_wholly(self: &Arc<Self>, removal: &Removal) -> Result<()> {
        let mut gone = removal.gone.lock().await;
        if *gone {
            return Ok(());
        }
        let handle = &removal.handle;
        self.ending(&handle.sandbox);
        // At once: a disk that is still in use goes with its last user.
        let (inner, sandbox) = (Arc::clone(self), handle.sandbox.clone());
        let disk = tokio::task::spawn_blocking(move || inner.ground.remove_disk(&sandbox));
        let (removed, disk) = tokio::join!(self.remove_container(&handle.container), disk);
        let removed = removed.and(disk.map_err(|error| Error::internal("remove a disk", error)));
        self.note_unfinished(removal, removed.is_err());
        removed?;
        self.ground.remove_control(&handle.sandbox);
        self.unstand(&handle.sandbox);
        *gone = true;
        removal.guest.close().await;
        if handle.own_image {
            self.remove_image(&handle.image).await;
        }
        Ok(())
    }

    /// Removes what was made of a sandbox that did not come to be, as far as it can be; the rest goes with the next
    /// sweep.
    pub(crate) async fn remove_unmade(self: &Arc<Self>, id: &SandboxId) {
        let removed = match self.container_of(id).await {
            Ok(Some(container)) => self.remove_everything(id, &container).await,
            // None of ours: what has its name is somebody else's.
            Ok(None) => self.remove_ground(id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(sandbox = %id, %error, "what was made of a sandbox is left for the next sweep");
        }
    }

    /// Removes a container and everything else of its sandbox, as far as it can be; the rest goes with the next sweep.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    pub(crate) async fn remove_everything(self: &Arc<Self>, id: &SandboxId, container: &str) -> Result<()> {
        self.remove_container(container).await?;
        self.remove_ground(id).await
    }

    /// Removes what is on this host of a sandbox that has no container.
    async fn remove_ground(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        let (inner, id) = (Arc::clone(self), id.clone());
        // Taking a large file from a disk takes a while.
        let removed = tokio::task::spawn_blocking(move || {
            inner.ground.remove_disk(&id);
            inner.ground.remove_control(&id);
        });
        removed.await.map_err(|error| Error::internal("remove what is on this host of a sandbox", error))
    }

    /// The container that has the name of a sandbox's, where our labels say that it is: anybody can give his that name.
    async fn container_of(&self, id: &SandboxId) -> Result<Option<String>> {
        let client = self.engine.client().await?;
        let name = container::name(&self.ground, id);
        let inspected = client.inspect_container(&name, None::<InspectContainerOptions>);
        let found = match bounded(QUESTION, inspected).await {
            Ok(found) => found,
            Err(fault) if fault.is_missing() => return Ok(None),
            Err(fault) => return Err(fault.while_asking("look after a container")),
        };
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        Ok(found.id.filter(|_| container::is_of(&self.ground, id, &labels)))
    }

    /// Kills and removes a container, by id or name. Succeeds where there is none.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    pub(crate) async fn remove_container(&self, container: &str) -> Result<()> {
        let client = self.engine.client().await?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let begin = Instant::now();
        loop {
            match bounded(WORK, client.remove_container(container, Some(options.clone()))).await {
                Ok(()) => return Ok(()),
                Err(fault) if fault.is_missing() => return Ok(()),
                // Somebody is removing it already: it is gone once it cannot be found.
                Err(fault) if fault.is_conflict() && begin.elapsed() < WORK => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(fault) => return Err(fault.during(format!("remove the container {container}"))),
            }
        }
    }

    /// Notes whether a sandbox is to be removed later.
    fn note_unfinished(&self, removal: &Removal, later: bool) {
        let mut unfinished = lock(&self.unfinished);
        unfinished.retain(|known| known.handle.container != removal.handle.container);
        if later {
            unfinished.push(removal.clone());
        }
    }

    /// Removes what could not be removed before. What is not done when this is dropped is done the next time.
    pub(crate) async fn finish_removals(self: &Arc<Self>) {
        let unfinished = lock(&self.unfinished).clone();
        for removal in unfinished {
            // Whoever asked for it heard why not; the next time will do.
            let _ = self.remove_wholly(&removal).await;
        }
    }

    /// Removes what is on this host of sandboxes that are not standing. Nobody else has their ids meanwhile.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) async fn clean_ground(self: &Arc<Self>) -> Result<()> {
        let inner = Arc::clone(self);
        let cleaned = tokio::task::spawn_blocking(move || {
            for sandbox in inner.ground.found() {
                if inner.stand(&sandbox).is_err() {
                    continue;
                }
                inner.ground.remove_disk(&sandbox);
                inner.ground.remove_control(&sandbox);
                inner.unstand(&sandbox);
            }
        });
        cleaned.await.map_err(|error| Error::internal("remove what is left on this host", error))
    }
}
