//! The sandboxes that this daemon has, also those that are being made or removed.

use crate::backend::Inner;
use crate::handle::Handle;
use crate::pause::Pause;
use hostel_sandbox::{Error, Result, SandboxId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a creation that nobody waits for is waited for.
const LONGEST: Duration = Duration::from_secs(60);

/// A sandbox of this daemon.
#[derive(Default)]
pub(crate) struct Standing {
    /// Once it lives.
    container: Option<String>,
    /// It is being removed, or its death was told.
    over: bool,
    /// The image that goes with it.
    own_image: Option<String>,
    /// Its pauses.
    pause: Arc<Pause>,
    /// When the kernel last ended something in it for want of memory.
    oom: Option<Instant>,
    /// Cancelled once it stands no more.
    gone: CancellationToken,
}

impl Inner {
    fn standing(&self) -> MutexGuard<'_, HashMap<SandboxId, Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a sandbox is being made or taken back.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn stand(&self, id: &SandboxId) -> Result<()> {
        let mut standing = self.standing();
        if standing.contains_key(id) {
            return Err(Error::AlreadyExists { kind: "sandbox", id: id.to_string() });
        }
        standing.insert(id.clone(), Standing::default());
        Ok(())
    }

    /// Notes that a sandbox lives in a container.
    pub(crate) fn live(&self, handle: &Handle, pause: &Arc<Pause>) {
        if let Some(standing) = self.standing().get_mut(&handle.sandbox) {
            standing.pause = Arc::clone(pause);
            standing.container = Some(handle.container.clone());
            standing.own_image = handle.own_image.then(|| handle.image.clone());
        }
    }

    /// Images that go with sandboxes.
    pub(crate) fn own_images(&self) -> HashSet<String> {
        self.standing().values().filter_map(|standing| standing.own_image.clone()).collect()
    }

    /// Notes that its end is no news.
    pub(crate) fn ending(&self, id: &SandboxId) {
        if let Some(standing) = self.standing().get_mut(id) {
            standing.over = true;
        }
    }

    /// Notes that it is gone.
    pub(crate) fn unstand(&self, id: &SandboxId) {
        let gone = self.standing().remove(id).map(|standing| standing.gone);
        if let Some(gone) = gone {
            gone.cancel();
        }
    }

    /// Waits until a sandbox that is being made and that nobody waits for is gone, but not for ever.
    pub(crate) async fn see_gone(&self, id: &SandboxId) {
        let Some(gone) = self.standing().get(id).map(|one| one.gone.clone()) else { return };
        if tokio::time::timeout(LONGEST, gone.cancelled()).await.is_err() {
            tracing::warn!(sandbox = %id, "a sandbox that was given up is still being made; it is removed after that");
        }
    }

    pub(crate) fn stands(&self, id: &SandboxId) -> bool {
        self.standing().contains_key(id)
    }

    /// Whether a sandbox of this daemon lives in a container.
    pub(crate) fn lives_in(&self, id: &SandboxId, container: &str) -> bool {
        self.standing().get(id).is_some_and(|one| one.container.as_deref() == Some(container))
    }

    pub(crate) fn note_oom(&self, id: &SandboxId) {
        if let Some(standing) = self.standing().get_mut(id) {
            standing.oom = Some(Instant::now());
        }
    }

    /// Marks a sandbox as dead. → how long ago memory was last wanting, if ever; `None` where its death is no news.
    pub(crate) fn take_dead(&self, id: &SandboxId, container: &str) -> Option<Option<Duration>> {
        let mut standing = self.standing();
        let found = standing.get_mut(id)?;
        let news = !found.over && found.container.as_deref() == Some(container);
        found.over |= news;
        news.then_some(found.oom.map(|at| at.elapsed()))
    }

    /// Sandboxes that should be alive, their containers, and the pauses of these.
    pub(crate) fn living(&self) -> Vec<(SandboxId, String, Arc<Pause>)> {
        let standing = self.standing();
        let living = standing.iter().filter(|(_, one)| !one.over);
        living
            .filter_map(|(id, one)| Some((id.clone(), one.container.clone()?, Arc::clone(&one.pause))))
            .collect()
    }
}
