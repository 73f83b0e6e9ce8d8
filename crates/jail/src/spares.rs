//! Cells kept ready for the next creations, so that a creation is little more than a clone.

use crate::cell::{Disk, Ground, Prepared};
use hostel_sandbox::Result;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The creation that took a cell goes first: a refill at once would contend with it for the kernel's locks.
const AFTER_CREATION: Duration = Duration::from_millis(3);

/// The stock. Refilled by [`Spares::refill`], which the backend runs for as long as it lives.
pub(crate) struct Spares {
    ground: Arc<Ground>,
    tasks: TaskTracker,
    ready: Mutex<VecDeque<Prepared>>,
    wanted: usize,
    taken: Notify,
}

impl Spares {
    pub(crate) fn new(ground: Arc<Ground>, tasks: TaskTracker, wanted: usize) -> Self {
        Self {
            ground,
            tasks,
            ready: Mutex::new(VecDeque::with_capacity(wanted)),
            wanted,
            taken: Notify::new(),
        }
    }

    fn pop(&self) -> Option<Prepared> {
        let spare = self.ready.lock().ok()?.pop_front();
        self.taken.notify_one();
        spare
    }

    fn len(&self) -> usize {
        self.ready.lock().map_or(0, |ready| ready.len())
    }

    /// Whether the cell of that name is in stock.
    pub(crate) fn holds_name(&self, name: &str) -> bool {
        self.ready.lock().is_ok_and(|ready| ready.iter().any(|spare| spare.cell.name == name))
    }

    /// A cell: from the stock where it fits, made now otherwise. Nobody ever waits for the refill.
    pub(crate) async fn take(&self, disk: Disk) -> Result<Prepared> {
        let stocked = if self.ground.pool.is_some() { Disk::Empty } else { Disk::Memory };
        if disk == stocked
            && let Some(spare) = self.pop()
        {
            return Ok(spare);
        }
        self.ground.make(&self.tasks, disk).await
    }

    /// Keeps the stock full. A failure is logged and tried again later, each time later than before.
    pub(crate) async fn refill(&self, stop: CancellationToken) {
        let mut pause = Duration::from_millis(100);
        while !stop.is_cancelled() {
            if self.len() >= self.wanted {
                tokio::select! {
                    () = self.taken.notified() => tokio::time::sleep(AFTER_CREATION).await,
                    () = stop.cancelled() => {}
                }
                continue;
            }
            let disk = if self.ground.pool.is_some() { Disk::Empty } else { Disk::Memory };
            match self.ground.make(&self.tasks, disk).await {
                Ok(spare) => {
                    pause = Duration::from_millis(100);
                    if let Ok(mut ready) = self.ready.lock() {
                        ready.push_back(spare);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?pause, "a cell could not be prepared");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stop.cancelled() => {}
                    }
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
            }
        }
        let left: Vec<Prepared> =
            self.ready.lock().map(|mut ready| ready.drain(..).collect()).unwrap_or_default();
        for spare in left {
            self.ground.remove_behind(spare.cell).await;
        }
    }
}
