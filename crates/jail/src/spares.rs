//! What is kept ready for the next creations: jails that wait for somebody to want them, so that a creation is a
//! message and an answer, and cells, for creations that find no such jail.
//!
//! Jails wait in the shapes that were asked for last, as often as they were: a node that serves one template has all
//! of that, one that alternates has some of each, and what nobody asks for any more goes.

use crate::cell::{Cell, Disk, Ground, Prepared};
use crate::newborn::{Newborn, Shape};
use hostel_sandbox::Result;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The creation that took something goes first: a refill at once would contend with it for the kernel's locks.
const AFTER_CREATION: Duration = Duration::from_millis(3);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The stock. Refilled by [`Spares::refill`], which the backend runs for as long as it lives.
pub(crate) struct Spares {
    ground: Arc<Ground>,
    tasks: TaskTracker,
    stock: Mutex<Stock>,
    wanted: Wanted,
    /// Held while jails come into the stock, so that nobody removes a template under one that is on its way.
    conceiving: tokio::sync::Mutex<()>,
    /// Creations that are under way. Each would be in the way of a clone for later, which would cost as much.
    under_way: AtomicUsize,
    changed: Notify,
}

/// How much of what there shall be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) cells: usize,
    pub(crate) jails: usize,
}

#[derive(Default)]
struct Stock {
    cells: VecDeque<Prepared>,
    jails: VecDeque<Newborn>,
    /// Shapes asked for, the last one last; as many as jails are wanted.
    asked: VecDeque<Shape>,
}

impl Stock {
    fn count(&self, shape: &Shape) -> usize {
        self.jails.iter().filter(|jail| jail.shape == *shape).count()
    }

    fn asked_for(&self, shape: &Shape) -> usize {
        self.asked.iter().filter(|asked| *asked == shape).count()
    }

    /// The shape, lately asked for, of which there is too little.
    fn missing(&self) -> Option<Shape> {
        self.asked.iter().rev().find(|shape| self.count(shape) < self.asked_for(shape)).cloned()
    }

    /// Takes a jail out of which there are more than were asked for.
    fn remove_surplus(&mut self) -> Option<Newborn> {
        let surplus = |jail: &Newborn| self.count(&jail.shape) > self.asked_for(&jail.shape);
        self.jails.iter().position(surplus).and_then(|index| self.jails.remove(index))
    }
}

/// A creation that is under way.
pub(crate) struct UnderWay<'a>(&'a Spares);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

impl Spares {
    pub(crate) fn new(ground: Arc<Ground>, tasks: TaskTracker, wanted: Wanted) -> Self {
        Self {
            ground,
            tasks,
            stock: Mutex::default(),
            wanted,
            conceiving: tokio::sync::Mutex::new(()),
            under_way: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        // Each change is one step, so that it is whole whatever panicked.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk that cells in stock have.
    fn stocked_disk(&self) -> Disk {
        if self.ground.pool.is_some() { Disk::Empty } else { Disk::Memory }
    }

    /// Whether the cell of that name is in stock.
    pub(crate) fn holds_name(&self, name: &str) -> bool {
        let stock = self.stock();
        stock.cells.iter().any(|spare| spare.cell.name == name)
            || stock.jails.iter().any(|jail| jail.cell.name == name)
    }

    /// The cells in which jails wait.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.stock().jails.iter().map(|jail| jail.cell.name.clone()).collect()
    }

    /// Notes that a creation is under way, for as long as the answer is kept.
    pub(crate) fn under_way(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(self)
    }

    /// Notes that a jail of a shape was made, so that one of that shape is made ahead for the next time.
    pub(crate) fn asked(&self, shape: &Shape) {
        // Only what two sandboxes can have alike.
        if self.wanted.jails == 0 || shape.disk != self.stocked_disk() {
            return;
        }
        let mut stock = self.stock();
        stock.asked.push_back(shape.clone());
        while stock.asked.len() > self.wanted.jails {
            stock.asked.pop_front();
        }
    }

    /// Has all waiting jails be of a shape, until others are asked for.
    pub(crate) fn expect(&self, shape: &Shape) {
        (0..self.wanted.jails).for_each(|_| self.asked(shape));
    }

    /// A jail of that shape that waits, if there is one.
    pub(crate) fn take_jail(&self, shape: &Shape) -> Option<Newborn> {
        loop {
            let jail = {
                let mut stock = self.stock();
                let index = stock.jails.iter().position(|jail| jail.shape == *shape)?;
                stock.jails.remove(index)?
            };
            if jail.lives() {
                return Some(jail);
            }
            // The zygote died, and it with it.
            self.remove_behind(jail.cell);
        }
    }

    /// A cell: from the stock where it fits, made now otherwise. Nobody ever waits for the refill.
    pub(crate) async fn take_cell(&self, disk: &Disk) -> Result<Prepared> {
        let spare = if *disk == self.stocked_disk() { self.stock().cells.pop_front() } else { None };
        match spare {
            Some(spare) => Ok(spare),
            None => self.ground.make(&self.tasks, disk.clone()).await,
        }
    }

    /// Removes all jails that stand on a layer, and returns when they are gone. Nobody may be able to ask for it any
    /// more.
    pub(crate) async fn forget(&self, layer: &str) {
        let stands = |shape: &Shape| shape.layers.iter().any(|other| other == layer);
        self.stock().asked.retain(|shape| !stands(shape));
        let _none_on_its_way = self.conceiving.lock().await;
        let gone: VecDeque<Newborn> = {
            let mut stock = self.stock();
            let (gone, kept) = stock.jails.drain(..).partition(|jail| stands(&jail.shape));
            stock.jails = kept;
            gone
        };
        for jail in gone {
            self.discard(jail).await;
        }
    }

    async fn discard(&self, Newborn { cell, first, cloned, .. }: Newborn) {
        drop((first, cloned));
        self.ground.remove_behind(cell).await;
    }

    fn remove_behind(&self, cell: Cell) {
        let ground = self.ground.clone();
        self.tasks.spawn(async move { ground.remove_behind(cell).await });
    }

    /// Keeps the stock full. A failure is logged and tried again later, each time later than before.
    pub(crate) async fn refill(&self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            match self.step().await {
                Ok(true) => pause = FIRST_PAUSE,
                Ok(false) => tokio::select! {
                    () = self.changed.notified() => tokio::time::sleep(AFTER_CREATION).await,
                    () = stop.cancelled() => {}
                },
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?pause, "nothing could be prepared for the next creation");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stop.cancelled() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        let left = std::mem::take(&mut *self.stock());
        for jail in left.jails {
            self.discard(jail).await;
        }
        for spare in left.cells {
            self.ground.remove_behind(spare.cell).await;
        }
    }

    /// Makes or removes one thing; `false` where all is as wanted.
    async fn step(&self) -> Result<bool> {
        let surplus = self.stock().remove_surplus();
        if let Some(jail) = surplus {
            self.discard(jail).await;
            return Ok(true);
        }
        if self.under_way.load(Ordering::Acquire) == 0 && self.conceive_missing().await? {
            return Ok(true);
        }
        if self.stock().cells.len() >= self.wanted.cells {
            return Ok(false);
        }
        let spare = self.ground.make(&self.tasks, self.stocked_disk()).await?;
        self.stock().cells.push_back(spare);
        Ok(true)
    }

    /// Clones a jail of a shape of which there are too few.
    async fn conceive_missing(&self) -> Result<bool> {
        let _nobody_forgets = self.conceiving.lock().await;
        let Some(shape) = self.stock().missing() else { return Ok(false) };
        let prepared = self.take_cell(&shape.disk).await?;
        let cell = prepared.cell.clone();
        match self.ground.conceive(prepared, shape).await {
            Ok(jail) => {
                self.stock().jails.push_back(jail);
                Ok(true)
            }
            Err(error) => {
                self.ground.remove_behind(cell).await;
                Err(error)
            }
        }
    }
}
