//! What is left on the engine and on this host of sandboxes that are over, and its removal.

use crate::backend::Inner;
use crate::container::LABEL_SANDBOX;
use crate::engine::{QUESTION, bounded};
use crate::snapshot::LABEL_FORK;
use bollard::models::ContainerSummary;
use bollard::query_parameters::ListImagesOptionsBuilder;
use hostel_sandbox::SandboxId;
use std::collections::HashMap;
use std::sync::Arc;

impl Inner {
    /// Removes, while others go on, what no sandbox needs any more: of the containers `found`, and of images where
    /// `thorough`. One at a time, until the backend ends.
    pub(crate) fn tidy(self: &Arc<Self>, found: Vec<ContainerSummary>, thorough: bool) {
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let Ok(_turn) = inner.tidying.try_lock() else { return };
            tokio::select! {
                () = inner.stop.cancelled() => {}
                () = inner.tidy_up(&found, thorough) => {}
            }
        });
    }

    async fn tidy_up(self: &Arc<Self>, found: &[ContainerSummary], thorough: bool) {
        self.finish_removals().await;
        if !self.is_swept() {
            return;
        }
        self.sweep(found).await;
        if let Err(error) = self.clean_ground().await {
            tracing::warn!(%error, "what is left on this host was not removed");
        }
        if thorough {
            self.remove_unused().await;
        }
    }

    /// Removes containers of ours that no sandbox stands on. → how many.
    pub(crate) async fn sweep(&self, found: &[ContainerSummary]) -> usize {
        let mut removed = 0;
        for container in found {
            let Some(id) = &container.id else { continue };
            let labels = container.labels.as_ref();
            let sandbox = labels.and_then(|labels| labels.get(LABEL_SANDBOX));
            let kept = match sandbox.and_then(|id| SandboxId::parse(id).ok()) {
                Some(sandbox) => self.stands(&sandbox),
                None => self.is_helper(container),
            };
            if kept {
                continue;
            }
            match self.remove_container(id).await {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!(container = %id, %error, "a leftover could not be removed"),
            }
        }
        removed
    }

    /// Removes images that nothing stands on any more, and what is kept of images that are gone.
    pub(crate) async fn remove_unused(&self) {
        // Otherwise somebody has made an image that no sandbox stands on yet; the next time will do.
        if let Ok(_alone) = self.imaging.try_write() {
            self.remove_deleted_images().await;
            self.remove_lost_forks().await;
        }
        self.remove_old_seeds().await;
    }

    /// Removes images that were made for forks which came to nothing, or whose end nobody saw.
    async fn remove_lost_forks(&self) {
        let Ok(client) = self.engine.client().await else { return };
        let ours = format!("{LABEL_FORK}={}", self.ground.instance);
        let filters = HashMap::from([("dangling", vec!["true"]), ("label", vec![ours.as_str()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let Ok(images) = bounded(QUESTION, client.list_images(Some(options))).await else { return };
        let needed = self.own_images();
        for image in images.iter().filter(|image| !needed.contains(&image.id)) {
            self.remove_image(&image.id).await;
        }
    }
}
