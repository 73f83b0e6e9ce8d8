//! What goes with a template: its files, and the jails that wait on them.

use crate::backend::Inner;
use crate::template::Files;
use hostel_sandbox::{Error, Result};
use std::sync::Arc;

impl Inner {
    /// Removes the files of a template that is known no longer, and what waits on them.
    ///
    /// # Errors
    /// `Internal` where some of it could not be removed.
    pub(crate) async fn remove_files(self: &Arc<Self>, files: Files) -> Result<()> {
        self.spares.forget(&files.layer).await;
        let inner = self.clone();
        let gone = tokio::task::spawn_blocking(move || {
            let destroyed = match (files.subvolume(), &inner.ground.pool) {
                (Some(subvolume), Some(pool)) => pool.destroy(subvolume),
                _ => Ok(()),
            };
            // It is forgotten: a layer that stays goes at the next start, and must not keep the name till then.
            inner.templates.discard(&files.directory);
            destroyed
        });
        gone.await.map_err(|error| Error::internal("remove a template's files", error))?
    }

    /// Removes the files of templates that were replaced and that nobody stands on any more.
    pub(crate) async fn remove_replaced(self: Arc<Self>) {
        let unneeded = self.templates.unneeded(|layer| self.is_stood_on(layer)).unwrap_or_default();
        for files in unneeded {
            let directory = files.directory.clone();
            if let Err(error) = self.remove_files(files).await {
                tracing::warn!(directory, %error, "the files of a replaced template could not be removed; the next start does it");
            }
        }
    }
}
