//! Who waits for room.

use super::{Needs, Priority, Resources, Ticket};
use crate::time::Time;
use std::collections::VecDeque;

/// A request that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) needs: Needs,
    pub(super) priority: Priority,
    pub(super) deadline: Time,
    pub(super) since: Time,
    /// How many later ones got room before it.
    overtaken: u32,
    /// Its place in the order of coming. Set by the queue.
    place: u64,
}

impl Waiting {
    pub(super) fn new(ticket: Ticket, needs: Needs, priority: Priority, deadline: Time, now: Time) -> Self {
        // One that never was in the queue came after all that are.
        Self { ticket, needs, priority, deadline, since: now, overtaken: 0, place: u64::MAX }
    }

    /// The room that must be there: for a refill, what it leaves to others too.
    pub(super) fn demand(&self, reserve: &Resources) -> Resources {
        if self.priority == Priority::Refill { self.needs.plus(reserve) } else { self.needs }
    }
}

/// Those that wait, in the order of their coming: demands, then refills.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    demands: VecDeque<Waiting>,
    refills: VecDeque<Waiting>,
    next: u64,
}

impl Queue {
    pub(super) fn push(&mut self, mut waiting: Waiting) {
        waiting.place = self.next;
        self.next += 1;
        self.line(waiting.priority).push_back(waiting);
    }

    fn line(&mut self, priority: Priority) -> &mut VecDeque<Waiting> {
        if priority == Priority::Refill { &mut self.refills } else { &mut self.demands }
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiting> {
        for line in [&mut self.demands, &mut self.refills] {
            if let Some(index) = line.iter().position(|waiting| waiting.ticket == ticket) {
                return line.remove(index);
            }
        }
        None
    }

    /// Takes some out.
    pub(super) fn take_if(&mut self, chosen: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut taken = Vec::new();
        for line in [&mut self.demands, &mut self.refills] {
            line.retain(|waiting| {
                let take = chosen(waiting);
                if take {
                    taken.push(*waiting);
                }
                !take
            });
        }
        taken
    }

    /// Counts that `winner` got room before those that came before it. Refills have no claim to their place.
    pub(super) fn was_overtaken_by(&mut self, winner: &Waiting) {
        if winner.priority == Priority::Refill {
            return;
        }
        for waiting in self.demands.iter_mut().filter(|waiting| waiting.place < winner.place) {
            waiting.overtaken = waiting.overtaken.saturating_add(1);
        }
    }

    /// The first that was overtaken as often as allowed: it is next.
    pub(super) fn overtaken_enough(&self, most: u32) -> Option<&Waiting> {
        self.demands.iter().find(|waiting| waiting.overtaken >= most)
    }

    /// Demands in the order in which they are to get room: claims, then cold creates, each by their coming.
    pub(super) fn demands(&self) -> impl Iterator<Item = &Waiting> {
        let of = |priority| self.demands.iter().filter(move |waiting| waiting.priority == priority);
        of(Priority::Claimed).chain(of(Priority::Cold))
    }

    /// Refills in the order of their coming.
    pub(super) fn refills(&self) -> impl Iterator<Item = &Waiting> {
        self.refills.iter()
    }

    pub(super) fn has_demands(&self) -> bool {
        !self.demands.is_empty()
    }

    pub(super) fn contains(&self, ticket: Ticket) -> bool {
        self.iter().any(|waiting| waiting.ticket == ticket)
    }

    pub(super) fn len(&self) -> usize {
        self.demands.len() + self.refills.len()
    }

    /// How many wait in the line of this priority.
    pub(super) fn len_beside(&self, priority: Priority) -> usize {
        if priority == Priority::Refill { self.refills.len() } else { self.demands.len() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.demands.iter().chain(&self.refills)
    }
}
