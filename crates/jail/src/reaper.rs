//! Takes jails down. Killing is immediate; removing what they stood on happens behind, because the kernel
//! takes its time with cgroups and disks.

use crate::cell::{Cell, Ground};
use hostel_sandbox::{Error, Result};
use rustix::process::{Signal, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How long the dead may take to die: they may be in the middle of a write to a slow disk.
const DEATH: Duration = Duration::from_secs(10);
/// Cells removed at the same time. They contend for the same kernel locks.
const AT_ONCE: usize = 4;

/// Waits for the end of a process without a thread.
///
/// # Errors
/// `Internal` where the runtime cannot watch more descriptors.
pub(crate) fn watched(first: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives.
    unsafe { AsyncFd::register(first) }.map_err(|error| Error::internal("watch a jail", error))
}

/// The undertaker.
pub(crate) struct Reaper {
    ground: Arc<Ground>,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
}

impl Reaper {
    pub(crate) fn new(ground: Arc<Ground>, tasks: TaskTracker) -> Self {
        Self { ground, tasks, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Kills a jail and waits until every process of it is dead: the kernel ends a pid namespace with its
    /// first process, and tells of the first after all others are gone.
    pub(crate) async fn kill(&self, cell: &Cell, first: &AsyncFd<OwnedFd>) -> bool {
        let _ = pidfd_send_signal(first.get_ref(), Signal::KILL);
        if let Some(cgroups) = &self.ground.cgroups {
            cgroups.kill(&cell.name);
        }
        tokio::time::timeout(DEATH, first.readable()).await.is_ok()
    }

    /// Removes a cell behind the caller's back.
    pub(crate) fn bury(&self, cell: Cell) {
        let (ground, places) = (self.ground.clone(), self.places.clone());
        self.tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            ground.remove_behind(cell).await;
        });
    }
}
