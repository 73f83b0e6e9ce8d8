//! How many clients may be connected at a time: all together, and each user.

use crate::lock::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Most connections at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most {
    /// Of all clients together.
    pub all: usize,
    /// Of one user; who comes over TCP counts as one.
    pub each: usize,
}

/// Places for connections. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    most: Most,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<Option<u32>, usize>,
}

/// The place of one connection; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    user: Option<u32>,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    pub(super) fn new(most: Most) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// Takes a place; nothing where none is free.
    pub(super) fn take(&self, user: Option<u32>) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let mine = taken.each.get(&user).copied().unwrap_or(0);
        if taken.all >= self.most.all || mine >= self.most.each {
            return None;
        }
        taken.all += 1;
        taken.each.insert(user, mine + 1);
        Some(Place { user, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(mine) = taken.each.get_mut(&self.user) {
            *mine -= 1;
            if *mine == 0 {
                taken.each.remove(&self.user);
            }
        }
    }
}

/// How often the same complaint is written at most.
const BETWEEN: Duration = Duration::from_secs(10);

/// Holds back a complaint that comes again and again.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Option<Instant>,
    held_back: u64,
}

impl Complaints {
    /// How many were held back since the last one, where another may be written now.
    pub(super) fn next(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < BETWEEN) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_takes_all_places_and_what_is_let_go_is_free_again() {
        let places = Places::new(Most { all: 3, each: 2 });
        let mine = [places.take(Some(1)).unwrap(), places.take(Some(1)).unwrap()];
        assert!(places.take(Some(1)).is_none(), "a user has two");
        let other = places.take(None).unwrap();
        assert!(places.take(Some(2)).is_none(), "there are three");
        drop(mine);
        let again = places.take(Some(2)).unwrap();
        drop((other, again));
        assert!(lock(&places.taken).each.is_empty() && lock(&places.taken).all == 0);
    }

    #[test]
    fn complaints_are_counted_rather_than_repeated() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.next(start), Some(0));
        assert_eq!((complaints.next(start), complaints.next(start + BETWEEN / 2)), (None, None));
        assert_eq!(complaints.next(start + BETWEEN), Some(2));
    }
}
