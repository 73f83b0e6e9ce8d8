//! Room on a node: what is taken, and who waits for it.
//!
//! [`Admission`] never gives out more than the node has, times the overcommit. Who does not fit waits in a bounded
//! queue: claims of warm sandboxes first, then cold creates, each in the order of their coming; refills of pools only
//! when nobody else waits and room for a cold create is left, the first that fits: one pool's large ones hold up no
//! other pool. A small request may overtake a large one that waits, but only so often: then the large one is next,
//! whatever else would fit.

mod queue;
mod resources;

pub use resources::{Budget, Needs, Overcommit, Resources};

use crate::time::Time;
use queue::{Queue, Waiting};
use std::time::Duration;

/// Shortest advice when to come again.
const SOONEST: Duration = Duration::from_millis(100);
/// Longest advice when to come again.
const LATEST: Duration = Duration::from_secs(60);
/// Assumed between two releases until some were seen.
const ASSUMED_GAP: Duration = Duration::from_secs(1);

/// Names a request, chosen by the caller, for each another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// More for a warm sandbox that somebody claims, or for one that runs; it needs no further `sandboxes`. A claim
    /// that needs nothing more need not ask: its sandbox was admitted as a refill.
    Claimed,
    /// A sandbox that somebody waits for.
    Cold,
    /// A warm sandbox that nobody waits for.
    Refill,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is more than the node has; no waiting helps.
    TooLarge,
    /// As many wait as may.
    QueueFull,
    /// There was no room until the deadline.
    Deadline,
    /// The ticket waits already.
    Duplicate,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The room is taken; [`Admission::release`] gives it back.
    Admitted,
    /// Nothing is taken.
    Refused {
        /// Why.
        why: Why,
        /// When to come again. `None` when that does not help.
        retry_after: Option<Duration>,
    },
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// The room is taken; [`Admission::release`] gives it back.
    Admitted,
    /// It waits; [`Admission::poll`] tells the outcome.
    Queued,
    /// Nothing is taken.
    Refused {
        /// Why.
        why: Why,
        /// When to come again. `None` when that does not help.
        retry_after: Option<Duration>,
    },
}

/// The outcome for one that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Which.
    pub ticket: Ticket,
    /// How it ended.
    pub outcome: Outcome,
}

/// How requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most that wait, refills not counted; as many refills may wait besides.
    pub queue: usize,
    /// How often one that waits may be overtaken by later ones.
    pub overtaking: u32,
    /// What a refill must leave free.
    pub reserve: Resources,
}

impl Default for Rules {
    fn default() -> Self {
        let limits = hostel_sandbox::ResourceLimits::defaults();
        Self { queue: 1024, overtaking: 16, reserve: Resources::of(&limits) }
    }
}

/// What is taken and who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionStatus {
    /// What the node has.
    pub budget: Budget,
    /// What may be taken: `budget` times the overcommit.
    pub ceiling: Resources,
    /// What is taken.
    pub taken: Resources,
    /// Claims that wait.
    pub waiting_claimed: usize,
    /// Cold creates that wait.
    pub waiting_cold: usize,
    /// Refills that wait.
    pub waiting_refill: usize,
    /// How long the oldest waits, refills not counted.
    pub longest_wait: Duration,
}

/// Shares out a node. The owner holds it in a mutex and calls [`Admission::poll`] after each release and
/// cancellation and at [`Admission::next_wake`].
#[derive(Debug, Clone)]
pub struct Admission {
    budget: Budget,
    ceiling: Resources,
    overcommit: Overcommit,
    rules: Rules,
    taken: Resources,
    queue: Queue,
    now: Time,
    /// The mean time between releases, the newest weighing most, and when the last was.
    gap: Option<Duration>,
    released: Option<Time>,
    /// Whether the ceiling changed since the last poll.
    shrunk: bool,
}

impl Admission {
    /// A node with nothing taken.
    #[must_use]
    pub fn new(budget: Budget, overcommit: Overcommit, rules: Rules, now: Time) -> Self {
        let ceiling = overcommit.ceiling(&budget);
        let (taken, queue) = (Resources::default(), Queue::default());
        Self {
            budget,
            ceiling,
            overcommit,
            rules,
            taken,
            queue,
            now,
            gap: None,
            released: None,
            shrunk: false,
        }
    }

    /// Counts what is there already, without asking: sandboxes that were adopted. It may be more than the node has;
    /// then nothing is admitted until enough is released.
    pub fn adopt(&mut self, needs: &Needs) {
        self.taken = self.taken.plus(needs);
    }

    /// Changes what the node has. What is taken stays taken; the next poll refuses what will never fit any more.
    pub fn set_budget(&mut self, budget: Budget, overcommit: Overcommit) {
        self.budget = budget;
        self.overcommit = overcommit;
        self.ceiling = overcommit.ceiling(&budget);
        self.shrunk = true;
    }

    /// Asks for room. With a deadline that is over, it does not wait.
    pub fn request(
        &mut self,
        ticket: Ticket,
        needs: Needs,
        priority: Priority,
        deadline: Time,
        now: Time,
    ) -> Admitted {
        self.now = self.now.max(now);
        if self.queue.contains(ticket) {
            return Admitted::Refused { why: Why::Duplicate, retry_after: None };
        }
        if needs == Needs::default() {
            // Nothing is taken from those that wait.
            return Admitted::Admitted;
        }
        let waiting = Waiting::new(ticket, needs, priority, deadline, self.now);
        if !could_fit(&waiting, &self.rules.reserve, &self.ceiling) {
            return Admitted::Refused { why: Why::TooLarge, retry_after: None };
        }
        if self.may_enter(&waiting) {
            self.taken = self.taken.plus(&needs);
            self.queue.was_overtaken_by(&waiting);
            return Admitted::Admitted;
        }
        let why = if deadline <= self.now {
            Why::Deadline
        } else if self.queue.len_beside(priority) >= self.rules.queue {
            Why::QueueFull
        } else {
            self.queue.push(waiting);
            return Admitted::Queued;
        };
        Admitted::Refused { why, retry_after: Some(self.retry_after()) }
    }

    /// Gives room back that was admitted or adopted.
    pub fn release(&mut self, needs: &Needs, now: Time) {
        self.now = self.now.max(now);
        self.taken = self.taken.minus(needs);
        if let Some(released) = self.released {
            let gap = self.now.since(released);
            self.gap = Some(self.gap.map_or(gap, |mean| mean.mul_f64(0.9) + gap.mul_f64(0.1)));
        }
        self.released = Some(self.now);
    }

    /// Takes a request back that waits. False when it does not: then a decision about it was given.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.queue.remove(ticket).is_some()
    }

    /// Decides about those that wait. The owner of an admitted ticket that nobody waits for any more must release it.
    pub fn poll(&mut self, now: Time) -> Vec<Decision> {
        self.now = self.now.max(now);
        let refused = |why, retry_after| {
            move |waiting: Waiting| Decision {
                ticket: waiting.ticket,
                outcome: Outcome::Refused { why, retry_after },
            }
        };
        let over = self.queue.take_if(|waiting| waiting.deadline <= self.now);
        let retry_after = Some(self.retry_after());
        let mut decisions: Vec<Decision> =
            over.into_iter().map(refused(Why::Deadline, retry_after)).collect();
        if std::mem::take(&mut self.shrunk) {
            let (ceiling, reserve) = (self.ceiling, self.rules.reserve);
            let too_large = self.queue.take_if(|waiting| !could_fit(waiting, &reserve, &ceiling));
            decisions.extend(too_large.into_iter().map(refused(Why::TooLarge, None)));
        }
        while let Some(waiting) = self.next_to_enter() {
            self.queue.remove(waiting.ticket);
            self.taken = self.taken.plus(&waiting.needs);
            self.queue.was_overtaken_by(&waiting);
            decisions.push(Decision { ticket: waiting.ticket, outcome: Outcome::Admitted });
        }
        decisions
    }

    /// When to poll next if nothing happens before: the earliest deadline.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        self.queue.iter().map(|waiting| waiting.deadline).min()
    }

    /// What is taken and who waits, at `now`.
    #[must_use]
    pub fn status(&self, now: Time) -> AdmissionStatus {
        let count =
            |priority| self.queue.iter().filter(|waiting: &&Waiting| waiting.priority == priority).count();
        let demands = self.queue.iter().filter(|waiting| waiting.priority != Priority::Refill);
        AdmissionStatus {
            budget: self.budget,
            ceiling: self.ceiling,
            taken: self.taken,
            waiting_claimed: count(Priority::Claimed),
            waiting_cold: count(Priority::Cold),
            waiting_refill: count(Priority::Refill),
            longest_wait: demands.map(|waiting| now.since(waiting.since)).max().unwrap_or_default(),
        }
    }

    fn has_room(&self, waiting: &Waiting) -> bool {
        waiting.demand(&self.rules.reserve).fits(&self.taken, &self.ceiling)
    }

    /// Whether one that is not in the queue may go before all that are.
    fn may_enter(&self, new: &Waiting) -> bool {
        let nobody_before = match new.priority {
            Priority::Refill => !self.queue.has_demands(),
            Priority::Claimed | Priority::Cold => {
                self.queue.overtaken_enough(self.rules.overtaking).is_none()
            }
        };
        nobody_before && self.has_room(new)
    }

    /// Who is next, if there is room for it.
    fn next_to_enter(&self) -> Option<Waiting> {
        if let Some(patient) = self.queue.overtaken_enough(self.rules.overtaking) {
            return self.has_room(patient).then_some(*patient);
        }
        let next = self.queue.demands().find(|waiting| self.has_room(waiting));
        let refill = || self.queue.refills().find(|refill| self.has_room(refill));
        next.or_else(|| if self.queue.has_demands() { None } else { refill() }).copied()
    }

    fn retry_after(&self) -> Duration {
        let places = u32::try_from(self.queue.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.gap.unwrap_or(ASSUMED_GAP).saturating_mul(places).clamp(SOONEST, LATEST)
    }
}

/// Whether there would be room if nothing were taken.
fn could_fit(waiting: &Waiting, reserve: &Resources, ceiling: &Resources) -> bool {
    waiting.demand(reserve).fits(&Resources::default(), ceiling)
}
