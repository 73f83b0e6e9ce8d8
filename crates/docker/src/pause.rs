//! Whether a container is frozen, and whether it shall be.

use crate::backend::Inner;
use crate::engine::{QUESTION, bounded};
use hostel_sandbox::SandboxId;
use std::sync::atomic::{AtomicBool, Ordering};

/// The pauses of one container.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    /// Held by whoever pauses or resumes.
    pub(crate) turn: tokio::sync::Mutex<()>,
    paused: AtomicBool,
    /// Taken back from an earlier daemon while the engine was away: nobody knows what the container is.
    unknown: AtomicBool,
    /// The engine was asked to freeze it for what is over, and nobody saw that it thawed it.
    owed: AtomicBool,
}

impl Pause {
    /// Of a container that is paused or not; `None` where nobody knows.
    pub(crate) fn new(paused: Option<bool>) -> Self {
        Self {
            paused: AtomicBool::new(paused == Some(true)),
            unknown: AtomicBool::new(paused.is_none()),
            ..Self::default()
        }
    }

    /// Whether its owner wants it paused, as far as is known.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Notes that it is as its owner wants it.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.unknown.store(false, Ordering::Release);
        self.set_owed(false);
    }

    /// Notes that a pause was asked for, told to have failed, and may have happened all the same.
    pub(crate) fn failed_to_pause(&self) {
        // What is paused by an order of which this daemon does not know yet stays so.
        if !self.is_paused() && !self.unknown.load(Ordering::Acquire) {
            self.set_owed(true);
        }
    }

    /// Notes whether the engine owes a thaw.
    pub(crate) fn set_owed(&self, owed: bool) {
        self.owed.store(owed, Ordering::Release);
    }

    fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Acquire) && !self.is_paused()
    }
}

impl Inner {
    /// Thaws a container if it was frozen for what is over: a copy whose engine died in the midst, say. One that others
    /// froze stays so. Whoever pauses or resumes it now is not disturbed.
    pub(crate) async fn let_go_on(&self, sandbox: &SandboxId, container: &str, pause: &Pause) {
        let Ok(_turn) = pause.turn.try_lock() else { return };
        self.thaw(sandbox, container, pause).await;
    }

    /// The same, of whoever has the turn.
    pub(crate) async fn thaw(&self, sandbox: &SandboxId, container: &str, pause: &Pause) {
        if !pause.is_owed() {
            return;
        }
        let Ok(client) = self.engine.client().await else { return };
        match bounded(QUESTION, client.unpause_container(container)).await {
            Ok(()) => tracing::warn!(%sandbox, "a sandbox that was left frozen goes on"),
            Err(fault) if fault.is_not_paused() => {}
            Err(fault) => {
                tracing::warn!(%sandbox, ?fault, "a sandbox that was left frozen could not be resumed yet");
                return;
            }
        }
        pause.set_owed(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_wants_frozen_is_owed_a_thaw() {
        let running = Pause::new(Some(false));
        assert!(!running.is_owed());
        running.failed_to_pause();
        assert!(running.is_owed());
        running.set_paused(true);
        assert!(running.is_paused() && !running.is_owed());
        // Asked again, and not answered: it is paused.
        running.failed_to_pause();
        running.set_owed(true);
        assert!(!running.is_owed());
        // Its record may say that it is paused, which is not known here.
        let unknown = Pause::new(None);
        unknown.failed_to_pause();
        assert!(!unknown.is_paused() && !unknown.is_owed());
        unknown.set_owed(true);
        assert!(unknown.is_owed(), "a copy knows that it was running");
    }
}
