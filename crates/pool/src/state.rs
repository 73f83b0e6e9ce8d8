//! The state machine of one pool.
//!
//! The owner holds it in a mutex, tells it what happened, and after each of that, and at [`Pool::next_wake`], calls
//! [`Pool::poll`] and carries out what that returns. Each action is given once and must be answered once: `Make` by
//! [`Pool::made`], [`Pool::make_failed`], [`Pool::make_starved`] or [`Pool::make_given_up`], `Check` by
//! [`Pool::checked`] (or [`Pool::died`]; a late answer about a member that was claimed meanwhile does nothing),
//! `Remove` by [`Pool::removed`], which the owner repeats until it worked. A claim takes by [`Pool::claim`] and ends with
//! [`Pool::given`], or with [`Pool::claim_failed`] or [`Pool::not_wanted`] of what it took and then
//! [`Pool::claim_again`], [`Pool::in_vain`], or, where its caller left, [`Pool::given`].

mod backoff;
mod events;
mod shelf;
mod status;

pub use status::{Health, LastFailure, Status};

use crate::counters::Counters;
use crate::history::History;
use crate::random::Random;
use crate::sizing::Sizer;
use crate::spec::{MAX_REFILL_CONCURRENCY, PoolSpec};
use crate::time::Time;
use backoff::Backoff;
use hostel_sandbox::SandboxId;
use shelf::{Ready, Shelf};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// How long the size is still held down after pressure eased, so that a pool does not grow back into the pressure
/// that it gave way to.
const CALM: Duration = Duration::from_secs(60);

/// How long what a member uses is taken to be as much as it was at most, so that a size at the bound of idle memory
/// does not go up and down with every check. As long one that is larger than the bound keeps another from being tried.
const COST_HOLDS: Duration = Duration::from_secs(600);

/// What the owner is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a sandbox.
    Make {
        /// Names the attempt in the answer.
        attempt: u64,
    },
    /// Check a member. It can be claimed meanwhile.
    Check {
        /// Which.
        member: SandboxId,
    },
    /// Remove a member. It cannot be claimed any more.
    Remove {
        /// Which.
        member: SandboxId,
        /// Why.
        reason: RemoveReason,
    },
}

/// Why a member is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemoveReason {
    /// It reached the greatest age, and another is there instead.
    Age,
    /// Its template changed, and another is there instead.
    Stale,
    /// A check failed.
    Unhealthy,
    /// It died; what is left of it is to be cleaned up.
    Died,
    /// Fewer are wanted.
    Surplus,
    /// Fewer are wanted because memory is short.
    Pressure,
    /// The pool is being drained.
    Draining,
}

impl RemoveReason {
    /// The reason in `lower_snake_case`, for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Stale => "stale",
            Self::Unhealthy => "unhealthy",
            Self::Died => "died",
            Self::Surplus => "surplus",
            Self::Pressure => "pressure",
            Self::Draining => "draining",
        }
    }
}

/// How short the node is of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pressure {
    /// It is not.
    #[default]
    None,
    /// Pools keep `min_size`, and replace without a surge.
    High,
    /// Pools keep none.
    Critical,
}

/// A member of a pool, for the owner's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The sandbox.
    pub id: SandboxId,
    /// The generation that it was made of.
    pub generation: u64,
    /// When it was made.
    pub made: Time,
    /// Whether a check is under way.
    pub checking: bool,
    /// Why it is being removed. `None`: it is ready.
    pub removing: Option<RemoveReason>,
}

#[derive(Debug, Clone)]
struct Removing {
    ready: Ready,
    reason: RemoveReason,
}

/// One pool.
#[derive(Debug, Clone)]
pub struct Pool {
    spec: PoolSpec,
    generation: u64,
    /// The latest moment that it was told.
    now: Time,
    shelf: Shelf,
    removing: BTreeMap<SandboxId, Removing>,
    /// Those that a claim took in vain and that the owner removes.
    failed: BTreeSet<SandboxId>,
    /// Those of `removing` whose action was not given yet. Some may be gone by themselves.
    unordered: Vec<SandboxId>,
    /// Attempts under way, with the generation they were begun for.
    making: BTreeMap<u64, u64>,
    next_attempt: u64,
    sizer: Sizer,
    history: History,
    counters: Counters,
    random: Random,
    /// After attempts that failed, and after members that died young.
    make_backoff: Backoff,
    death_backoff: Backoff,
    last_failure: Option<LastFailure>,
    pressure: Pressure,
    /// What the pressure was before it eased, and until when that still holds.
    easing: Option<(Pressure, Time)>,
    /// Refills wait until then for what was just claimed.
    refills_wait: Option<Time>,
    /// What one member is taken to use of memory, in bytes, and since when.
    cost: Option<(u64, Time)>,
    /// The first generation whose members serve anybody.
    serves_from: u64,
    /// Whether replacements found no room beside what they replace.
    cramped: bool,
    /// Whether the next poll removes an old member, so that there is room for its replacement.
    gives_way: bool,
    /// The first attempt after an old member last gave way. That one before got no room says nothing.
    gave_way: u64,
    /// Whether something happened since the last poll.
    stirred: bool,
}

impl Pool {
    /// An empty pool. `generation` is which version of the template its members are made from; it grows with each.
    #[must_use]
    pub fn new(spec: PoolSpec, generation: u64, now: Time) -> Self {
        let mut seed = DefaultHasher::new();
        (now, &spec.backend, &spec.template).hash(&mut seed);
        Self {
            spec,
            generation,
            now,
            shelf: Shelf::default(),
            removing: BTreeMap::new(),
            failed: BTreeSet::new(),
            unordered: Vec::new(),
            making: BTreeMap::new(),
            next_attempt: 1,
            sizer: Sizer::new(now),
            history: History::new(),
            counters: Counters::default(),
            random: Random::new(seed.finish()),
            make_backoff: Backoff::default(),
            death_backoff: Backoff::default(),
            last_failure: None,
            pressure: Pressure::None,
            easing: None,
            refills_wait: None,
            cost: None,
            serves_from: 0,
            cramped: false,
            gives_way: false,
            gave_way: 0,
            stirred: true,
        }
    }

    /// A pool after a restart of its owner, with the members that the owner adopted as id, generation and the moment
    /// they were made. They can be claimed at once, after those that were checked since; a check is due for each. Those
    /// that did not answer the owner are [doubted](Self::doubt).
    #[must_use]
    pub fn restore(
        spec: PoolSpec,
        generation: u64,
        counters: Counters,
        history: &History,
        members: Vec<(SandboxId, u64, Time)>,
        now: Time,
    ) -> Self {
        let mut pool = Self::new(spec, generation, now);
        pool.counters = counters;
        pool.history = history.clone();
        pool.sizer = Sizer::from_history(history, now);
        pool.sizer.look_now(&pool.spec, now);
        for (id, generation, made) in members {
            pool.shelf.put(id, generation, made.min(now), None, false);
        }
        pool.shelf.mark_all(pool.generation, now, pool.spec.max_age);
        // What is there was wanted a moment ago. To remove it at once would cut the delay of scaling down short.
        pool.sizer.hold(pool.shelf.len().saturating_sub(pool.spec.headroom));
        pool
    }

    /// Everything to be done now. Each action is given once.
    pub fn poll(&mut self, now: Time) -> Vec<Action> {
        let now = self.advance(now);
        self.stirred = false;
        self.sizer.look(&self.spec, now);
        self.shelf.expire(now, self.spec.max_age);
        self.death_backoff.forget(now);
        self.refills_wait = self.refills_wait.filter(|until| *until > now);
        let target = self.target(now);
        self.retire(target, now);
        let mut actions = Vec::new();
        for member in self.unordered.drain(..) {
            if let Some(removing) = self.removing.get(&member) {
                actions.push(Action::Remove { member, reason: removing.reason });
            }
        }
        for _ in 0..self.makes_wanted(target, now) {
            let attempt = self.next_attempt;
            self.next_attempt += 1;
            self.making.insert(attempt, self.generation);
            actions.push(Action::Make { attempt });
        }
        while let Some(member) = self.shelf.begin_check(now, self.spec.health_check_interval) {
            actions.push(Action::Check { member });
        }
        actions
    }

    /// When to poll next if nothing happens before. The moment of the last event where that was not polled yet.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        if self.stirred {
            return Some(self.now);
        }
        let target = self.target(self.now);
        let lacks = self.shelf.len_fresh().saturating_add(self.creating_fresh()) < target;
        [
            self.shelf.next_check(self.spec.health_check_interval),
            self.shelf.oldest_fresh().map(|made| made.after(self.spec.max_age)),
            self.sizer.next_look().filter(|_| self.spec.pinned_size.is_none() && !self.spec.draining),
            self.spec.schedules.iter().filter_map(|schedule| schedule.next_change(self.now)).min(),
            self.easing.map(|(_, until)| until).filter(|until| *until > self.now),
            self.retry_time(self.now).max(self.refills_wait).filter(|_| lacks),
            self.next_trial(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Counts time; it never goes back.
    fn advance(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        self.now
    }

    fn held_pressure(&self, now: Time) -> Pressure {
        let easing = self.easing.filter(|(_, until)| *until > now).map(|(level, _)| level);
        self.pressure.max(easing.unwrap_or_default())
    }

    fn target(&self, now: Time) -> u32 {
        if self.spec.draining {
            return 0;
        }
        let target = self.sizer.target(&self.spec, now).min(self.affordable(now));
        match self.held_pressure(now) {
            Pressure::None => target,
            Pressure::High => target.min(self.spec.min_size),
            Pressure::Critical => 0,
        }
    }

    /// The most that the bound of idle memory allows, by what members used when they were checked. Where that is none,
    /// there is none to learn from that it is less by now: after a while one is allowed to try.
    fn affordable(&self, now: Time) -> u32 {
        let (Some(most), Some((each, since))) = (self.spec.max_idle_memory_bytes, self.cost) else {
            return u32::MAX;
        };
        match u32::try_from(most / each.max(1)).unwrap_or(u32::MAX) {
            0 => u32::from(now >= since.after(COST_HOLDS)),
            affordable => affordable,
        }
    }

    /// When one is allowed although none is affordable.
    fn next_trial(&self) -> Option<Time> {
        let (_, since) = self.cost.filter(|_| self.affordable(self.now) == 0)?;
        Some(since.after(COST_HOLDS))
    }

    /// What the ready ones use of memory together, in bytes; those that were not measured yet as one is taken to.
    fn idle_memory(&self) -> Option<u64> {
        let (each, _) = self.cost?;
        let (known, measured) = self.shelf.memory();
        let others = u64::from(self.shelf.len().saturating_sub(measured));
        Some(known.saturating_add(each.saturating_mul(others)))
    }

    fn concurrency(&self) -> u32 {
        self.spec.refill_concurrency.clamp(1, MAX_REFILL_CONCURRENCY)
    }

    fn creating(&self) -> u32 {
        u32::try_from(self.making.len()).unwrap_or(u32::MAX)
    }

    /// Attempts under way that will give members of the present generation.
    fn creating_fresh(&self) -> u32 {
        let fresh = self.making.values().filter(|generation| **generation >= self.generation);
        u32::try_from(fresh.count()).unwrap_or(u32::MAX)
    }

    fn is_failing(&self) -> bool {
        self.make_backoff.is_failing() || self.death_backoff.is_failing()
    }

    fn retry_time(&self, now: Time) -> Option<Time> {
        self.make_backoff.waits_until(now).max(self.death_backoff.waits_until(now))
    }

    /// How many could be begun now, whether or not there is room for them.
    fn makes_possible(&self, target: u32, now: Time) -> u32 {
        if self.retry_time(now).is_some() || self.refills_wait.is_some_and(|until| until > now) {
            return 0;
        }
        // After a failure one is tried, and the others wait for how that goes.
        let most = if self.make_backoff.is_failing() { 1 } else { self.concurrency() };
        let lacking = target.saturating_sub(self.shelf.len_fresh()).saturating_sub(self.creating_fresh());
        lacking.min(most.saturating_sub(self.creating()))
    }

    /// How many may be ready and in the making together. A roll-over makes the new ones first, so for that long it
    /// has up to `refill_concurrency` more than the target; not when memory is short.
    fn room(&self, target: u32, now: Time) -> u32 {
        let surge = if self.held_pressure(now) == Pressure::None { self.concurrency() } else { 0 };
        target.saturating_add(surge)
    }

    fn makes_wanted(&self, target: u32, now: Time) -> u32 {
        let taken = self.shelf.len().saturating_add(self.creating());
        self.makes_possible(target, now).min(self.room(target, now).saturating_sub(taken))
    }

    /// Moves what is too much from ready to removing: the old first, then the oldest.
    fn retire(&mut self, target: u32, now: Time) {
        // Where there is no room for the new ones beside the old, the old ones go first.
        let room = self.room(target, now);
        let coming = self.makes_possible(target, now).saturating_add(self.creating());
        let most = target.min(room.saturating_sub(coming.min(room)));
        let before = self.shelf.len_old();
        while self.shelf.len() > most && self.retire_oldest(target, now) {}
        if self.shelf.len_old() < before {
            // There is room beside them, or there need not be.
            self.cramped = false;
        } else if self.gives_way && self.retire_oldest(target, now) {
            self.gave_way = self.next_attempt;
        }
        self.gives_way = false;
        self.cramped &= self.shelf.len_old() > 0;
        while self.shelf.len_fresh() > target {
            let Some(ready) = self.shelf.take_oldest_fresh() else { break };
            let reason = self.reason_of_surplus(now);
            self.remove(ready, reason, now);
        }
    }

    /// Moves the one that is most to be replaced to removing. False where none is old.
    fn retire_oldest(&mut self, target: u32, now: Time) -> bool {
        let Some(ready) = self.shelf.take_oldest_old() else { return false };
        let reason = self.reason_of_old(&ready, target, now);
        self.remove(ready, reason, now);
        true
    }

    fn reason_of_old(&self, ready: &Ready, target: u32, now: Time) -> RemoveReason {
        if target == 0 {
            self.reason_of_surplus(now)
        } else if ready.generation < self.generation {
            RemoveReason::Stale
        } else {
            RemoveReason::Age
        }
    }

    fn reason_of_surplus(&self, now: Time) -> RemoveReason {
        if self.spec.draining {
            RemoveReason::Draining
        } else if self.held_pressure(now) == Pressure::None {
            RemoveReason::Surplus
        } else {
            RemoveReason::Pressure
        }
    }

    /// Moves a member that was ready to those that are being removed, and counts it.
    fn remove(&mut self, ready: Ready, reason: RemoveReason, now: Time) {
        let counter = match reason {
            RemoveReason::Age | RemoveReason::Stale => &mut self.counters.recycled,
            RemoveReason::Unhealthy | RemoveReason::Died => &mut self.counters.unhealthy,
            RemoveReason::Surplus | RemoveReason::Pressure | RemoveReason::Draining => {
                &mut self.counters.surplus
            }
        };
        *counter = counter.saturating_add(1);
        self.count_idle(&ready, now);
        self.unordered.push(ready.id.clone());
        self.removing.insert(ready.id.clone(), Removing { ready, reason });
    }

    fn count_idle(&mut self, ready: &Ready, now: Time) {
        self.counters.idle_time = self.counters.idle_time.saturating_add(now.since(ready.made));
    }
}
