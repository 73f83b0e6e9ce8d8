//! How often a fault with `times` was asked for: the only thing that the endpoint keeps of conversations.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Mutex, PoisonError};

/// So many places in conversations are known; beyond that the oldest are forgotten.
const KNOWN: usize = 4096;

/// Counts by place in a conversation.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    by_place: HashMap<u64, u32>,
    oldest_first: VecDeque<u64>,
}

impl Attempts {
    /// How often this place was counted before.
    pub(crate) fn count(&self, place: impl Hash) -> u32 {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let place = hasher.finish();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.by_place.get_mut(&place) {
            *count = count.saturating_add(1);
            return *count;
        }
        if counts.oldest_first.len() >= KNOWN
            && let Some(oldest) = counts.oldest_first.pop_front()
        {
            counts.by_place.remove(&oldest);
        }
        counts.oldest_first.push_back(place);
        counts.by_place.insert(place, 0);
        0
    }
}
