//! Watching changes from a cursor: first what the store has, then live. A watcher that falls behind reads from the
//! store again and misses nothing.

use super::Sandboxes;
use crate::error::{Error, Result};
use crate::record::{Cursor, Event};
use hostel_sandbox::label::Selector;
use hostel_sandbox::{Error as DomainError, SandboxId};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Events read from the store at a time.
const BATCH: usize = 512;
/// Items a client may be behind before the watcher waits for it.
const BUFFER: usize = 64;
/// The longest silence.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

/// Which changes to send.
#[derive(Debug, Default)]
pub(crate) struct WatchFilter {
    /// Empty: all.
    pub sandboxes: HashSet<SandboxId>,
    pub selector: Selector,
}

impl WatchFilter {
    fn wants(&self, event: &Event) -> bool {
        (self.sandboxes.is_empty() || self.sandboxes.contains(&event.sandbox))
            && self.selector.matches(&event.labels)
    }
}

/// What a watcher hears.
#[derive(Debug)]
pub(crate) enum WatchItem {
    /// A change.
    Event(Arc<Event>),
    /// Everything up to here was sent or did not match.
    Bookmark(Cursor),
}

impl Sandboxes {
    /// The right to watch, whatever: sandboxes or pools.
    ///
    /// # Errors
    /// `LimitReached` (`watchers`).
    pub(crate) fn place_for_watcher(&self) -> Result<OwnedSemaphorePermit> {
        Ok(Arc::clone(&self.0.watchers).try_acquire_owned().map_err(|_| DomainError::LimitReached {
            what: "watchers",
            detail: format!("at most {} at a time", self.0.settings.max_watchers),
        })?)
    }

    /// Sends what came after `cursor`, or from now on, until the receiver is dropped or the daemon stops.
    ///
    /// # Errors
    /// `CursorExpired`; `LimitReached` (`watchers`).
    pub(crate) async fn watch(
        &self,
        cursor: Option<Cursor>,
        filter: WatchFilter,
    ) -> Result<mpsc::Receiver<Result<WatchItem>>> {
        let place = self.place_for_watcher()?;
        let live = self.0.store.subscribe();
        let cursor = match cursor {
            // Refuses here, as the status of the call, what is no longer kept.
            Some(cursor) => self.0.store.events_after(cursor, 1).await.map(|_| cursor)?,
            None => self.0.store.latest_cursor(),
        };
        let (sender, receiver) = mpsc::channel(BUFFER);
        let (this, stop) = (self.clone(), self.0.stop.clone());
        self.0.tasks.spawn(async move {
            let _place = place;
            let mut watcher = Watcher { sandboxes: this, filter, sender, cursor };
            let ended = tokio::select! {
                ended = watcher.run(live) => ended,
                () = stop.cancelled() => Err(Error::Draining),
            };
            if let Err(error) = ended {
                let _ = watcher.sender.try_send(Err(error));
            }
        });
        Ok(receiver)
    }
}

struct Watcher {
    sandboxes: Sandboxes,
    filter: WatchFilter,
    sender: mpsc::Sender<Result<WatchItem>>,
    /// Everything up to here was sent.
    cursor: Cursor,
}

impl Watcher {
    async fn run(&mut self, mut live: tokio::sync::broadcast::Receiver<Arc<Event>>) -> Result<()> {
        if !self.send(WatchItem::Bookmark(self.cursor)).await {
            return Ok(());
        }
        if !self.catch_up().await? {
            return Ok(());
        }
        loop {
            let heard = tokio::select! {
                heard = tokio::time::timeout(BOOKMARK_EVERY, live.recv()) => heard,
                () = self.sender.closed() => return Ok(()),
            };
            let going_on = match heard {
                Ok(Ok(event)) => self.pass(event).await,
                Ok(Err(RecvError::Lagged(_))) => self.catch_up().await?,
                Ok(Err(RecvError::Closed)) => return Err(Error::Draining),
                Err(_silence) => self.send(WatchItem::Bookmark(self.cursor)).await,
            };
            if !going_on {
                return Ok(());
            }
        }
    }

    /// Sends what the store has; false once the client is gone.
    async fn catch_up(&mut self) -> Result<bool> {
        loop {
            let events = self.sandboxes.store().events_after(self.cursor, BATCH).await?;
            if events.is_empty() {
                return Ok(true);
            }
            for event in events {
                if !self.pass(Arc::new(event)).await {
                    return Ok(false);
                }
            }
        }
    }

    async fn pass(&mut self, event: Arc<Event>) -> bool {
        if event.cursor <= self.cursor {
            return true;
        }
        self.cursor = event.cursor;
        !self.filter.wants(&event) || self.send(WatchItem::Event(event)).await
    }

    async fn send(&self, item: WatchItem) -> bool {
        self.sender.send(Ok(item)).await.is_ok()
    }
}
