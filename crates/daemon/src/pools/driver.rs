//! What keeps a pool going: one task for each, which carries out what its brain decides.

use super::{LivePool, Pools};
use crate::lock::lock;
use crate::sandboxes::Sandboxes;
use hostel_pool::Action;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest time between two looks: templates change without telling.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// The longest time that a refill waits behind claims.
const BEHIND_CLAIMS: Duration = Duration::from_millis(20);
/// How often records and counters are written, where they changed.
const WRITE: Duration = Duration::from_secs(2);

impl Pools {
    /// Starts what keeps each pool going, until the daemon stops. Once, after recovery.
    pub(crate) fn run(&self, sandboxes: &Sandboxes) {
        for pool in self.all() {
            pool.start(sandboxes);
        }
        self.watch_memory(sandboxes);
        let (this, sandboxes) = (self.clone(), sandboxes.clone());
        sandboxes.clone().tasks().spawn(async move {
            loop {
                let stopped = tokio::select! {
                    () = tokio::time::sleep(WRITE) => false,
                    () = sandboxes.stopping().cancelled() => true,
                };
                this.write(stopped).await;
                if stopped {
                    return;
                }
            }
        });
    }

    /// Writes what changed of the pools since the last time; at the daemon's end with the demand.
    pub(crate) async fn write(&self, at_end: bool) {
        // Whoever changes or deletes a pool writes it too; what was read here before that must not come after it.
        let _turn = self.0.changing.lock().await;
        let to_write = |pool: Arc<LivePool>| {
            let stored = pool.to_write(at_end)?;
            Some(((pool, stored.history.is_some()), stored))
        };
        let (pools, changed): (Vec<_>, Vec<_>) = self.all().into_iter().filter_map(to_write).unzip();
        if changed.is_empty() {
            return;
        }
        if let Err(error) = self.0.store.keep_pools(changed, None).await {
            tracing::warn!(%error, "what pools did could not be written and is tried again; a restart before that forgets it");
            pools.iter().for_each(|(pool, with_history)| pool.not_written(*with_history));
        }
    }
}

impl LivePool {
    /// Starts what keeps it going, once.
    pub(super) fn start(self: &Arc<Self>, sandboxes: &Sandboxes) {
        if self.driven.swap(true, Ordering::AcqRel) {
            return;
        }
        sandboxes.tasks().spawn(Arc::clone(self).drive(sandboxes.clone()));
    }

    /// Waits, not for long, until no claim is under way.
    async fn let_claims_through(&self) {
        let through = async {
            while self.claims.load(Ordering::Acquire) > 0 {
                self.through.notified().await;
            }
        };
        let _ = tokio::time::timeout(BEHIND_CLAIMS, through).await;
    }

    async fn drive(self: Arc<Self>, sandboxes: Sandboxes) {
        loop {
            self.let_claims_through().await;
            self.renew_beside(&sandboxes);
            let (actions, next, changed) = {
                let mut state = lock(&self.state);
                let followed = state.follow_the_node(sandboxes.is_draining(), self.clock.now());
                let actions = state.brain.poll(self.clock.now());
                let changed = followed || !actions.is_empty();
                self.heed_draining(&state);
                (actions, state.brain.next_wake(), changed)
            };
            for action in actions {
                let this = Arc::clone(&self);
                match action {
                    Action::Make { attempt } => {
                        sandboxes.tasks().spawn(this.make(sandboxes.clone(), attempt))
                    }
                    Action::Check { member } => sandboxes.tasks().spawn(this.check(member)),
                    Action::Remove { member, reason } => {
                        tracing::debug!(pool = %self.name, sandbox = %member, ?reason, "a warm sandbox is removed");
                        sandboxes.tasks().spawn(this.remove(member, sandboxes.clone()))
                    }
                };
            }
            if changed {
                self.changed.send_replace(());
            }
            let latest = Instant::now() + LOOK;
            let next = next.map_or(latest, |next| self.clock.instant(next).min(latest));
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.gone.cancelled() => return,
                () = sandboxes.stopping().cancelled() => return,
            }
        }
    }
}
