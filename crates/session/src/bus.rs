//! The events of one session on their way to who listens: after they are durable, in order, without a buffer for each
//! listener.

use crate::error::Result;
use crate::event::Event;
use crate::host::{Delivery, SubscriptionSource};
use crate::id::SessionId;
use crate::store::Store;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Events kept for listeners that are a little behind; who is further behind reads from the store.
const TAIL: usize = 512;
/// Bytes of them.
const TAIL_BYTES: usize = 4 << 20;
/// Events read from the store at a time.
const PAGE: usize = 256;

/// The events of one session, as they become durable.
pub(crate) struct EventBus {
    tail: Mutex<VecDeque<Arc<Event>>>,
    head: watch::Sender<Head>,
    listeners: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    /// The number of the last durable event.
    seq: u64,
    /// No more will come.
    closed: bool,
}

impl EventBus {
    /// One whose last durable event has that number.
    pub(crate) fn new(seq: u64) -> Arc<Self> {
        Arc::new(Self {
            tail: Mutex::new(VecDeque::new()),
            head: watch::Sender::new(Head { seq, closed: false }),
            listeners: AtomicUsize::new(0),
        })
    }

    /// Tells listeners of events that are durable now.
    pub(crate) fn publish(&self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            let first = events.first().map_or(0, |first| first.seq);
            // Once: who comes or goes meanwhile must not leave a hole.
            let is_heard = self.listeners() > 0;
            // What was written in between, by a worker that could not tell of it, is in the store.
            if !is_heard || tail.back().is_some_and(|before| before.seq + 1 != first) {
                tail.clear();
            }
            if is_heard {
                tail.extend(events.iter().cloned());
                let (mut bytes, mut kept) = (0, 0);
                for event in tail.iter().rev().take(TAIL) {
                    bytes += event.data.get().len();
                    if bytes > TAIL_BYTES {
                        break;
                    }
                    kept += 1;
                }
                let surplus = tail.len() - kept;
                tail.drain(..surplus);
            }
        }
        self.head.send_modify(|head| head.seq = last.seq);
    }

    /// All events up to that number are durable, whoever wrote them.
    pub(crate) fn catch_up(&self, seq: u64) {
        {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.back().is_some_and(|last| last.seq < seq) {
                tail.clear();
            }
        }
        self.head.send_if_modified(|head| {
            let behind = head.seq < seq;
            head.seq = head.seq.max(seq);
            behind
        });
    }

    /// No more will come.
    pub(crate) fn close(&self) {
        self.head.send_modify(|head| head.closed = true);
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    /// Listens to what comes after a number.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        id: SessionId,
        store: Arc<dyn Store>,
        after: u64,
    ) -> Subscription {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        Subscription {
            head: self.head.subscribe(),
            bus: Arc::clone(self),
            id,
            store,
            next: after + 1,
            ready: VecDeque::new(),
        }
    }

    /// What the tail has from a number on; nothing where it begins later, or ends before.
    fn since(&self, seq: u64) -> Option<VecDeque<Arc<Event>>> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = (tail.front()?.seq, tail.back()?.seq);
        if !(first..=last).contains(&seq) {
            return None;
        }
        let behind = tail.partition_point(|event| event.seq < seq);
        Some(tail.iter().skip(behind).take(PAGE).cloned().collect())
    }
}

/// One listener.
pub(crate) struct Subscription {
    bus: Arc<EventBus>,
    head: watch::Receiver<Head>,
    id: SessionId,
    store: Arc<dyn Store>,
    /// The number to deliver next.
    next: u64,
    ready: VecDeque<Arc<Event>>,
}

#[async_trait]
impl SubscriptionSource for Subscription {
    async fn next(&mut self) -> Result<Option<Delivery>> {
        loop {
            if let Some(event) = self.ready.front() {
                if event.seq > self.next {
                    let gap = Delivery::Compacted { from: self.next, to: event.seq - 1 };
                    self.next = event.seq;
                    return Ok(Some(gap));
                }
                if let Some(event) = self.ready.pop_front() {
                    self.next = event.seq + 1;
                    return Ok(Some(Delivery::Event(event)));
                }
            }
            let head = *self.head.borrow_and_update();
            if head.seq >= self.next {
                self.ready = match self.bus.since(self.next) {
                    Some(events) => events,
                    None => self.store.events(&self.id, self.next - 1, PAGE).await?.into(),
                };
                if self.ready.is_empty() {
                    let gap = Delivery::Compacted { from: self.next, to: head.seq };
                    self.next = head.seq + 1;
                    return Ok(Some(gap));
                }
            } else if head.closed || self.head.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.bus.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, NewEvent};

    fn events(numbers: std::ops::RangeInclusive<u64>) -> Vec<Arc<Event>> {
        let one = |seq| {
            let data = crate::worker::event_data(EventKind::Log, &serde_json::json!({}));
            let new = NewEvent { kind: EventKind::Log, message_id: None, data };
            Arc::new(Event::new(seq, crate::clock::now(), new))
        };
        numbers.map(one).collect()
    }

    #[test]
    fn what_was_not_told_is_read_from_the_store() {
        let bus = EventBus::new(0);
        bus.listeners.fetch_add(1, Ordering::Relaxed);
        bus.publish(&events(1..=3));
        assert!(bus.since(4).is_none(), "a tail that ends before says nothing of what was compacted");
        assert_eq!(bus.since(2).map(|events| events.len()), Some(2));
        // Whoever wrote 4 and 5 broke before they were told.
        bus.catch_up(5);
        assert_eq!(bus.head.borrow().seq, 5);
        assert!(bus.since(4).is_none(), "there is nothing of them here");
        bus.publish(&events(6..=7));
        assert!(bus.since(4).is_none(), "a tail with a hole tells of no gap");
        assert_eq!(bus.since(6).map(|events| events.len()), Some(2));
    }
}
