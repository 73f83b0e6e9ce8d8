//! The end of a sandbox: its container, what is on this host of it, and the image that goes with it.

use crate::backend::{Inner, lock};
use crate::handle::Handle;
use hostel_guest_client::Guest;
use hostel_sandbox::{Error, Result};
use std::sync::Arc;

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
