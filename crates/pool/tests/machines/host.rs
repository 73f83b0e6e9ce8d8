//! A model of a pool's owner: it carries out actions, keeps books of its own, and compares.

use hostel_pool::{Action, Counters, History, Pool, PoolSpec, Pressure, Time};
use hostel_sandbox::{BackendName, SandboxId, TemplateId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where a sandbox is, in the owner's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is a member and nobody said otherwise.
    Waiting,
    /// It died or failed its check, and the pool was told; removal is to follow.
    Lost,
    /// The pool asked for its removal.
    Removing,
    /// It was taken for a claim that has not ended.
    Taken,
    Claimed,
    Gone,
}

pub(crate) struct Host {
    pub(crate) pool: Pool,
    pub(crate) now: Time,
    pub(crate) sandboxes: BTreeMap<SandboxId, Place>,
    attempts: Vec<u64>,
    /// When each attempt under way was begun.
    begun: BTreeMap<u64, Time>,
    used_attempts: BTreeSet<u64>,
    checks: Vec<SandboxId>,
    /// What claims took that have not ended.
    taken: Vec<SandboxId>,
    /// Adopted ones that did not answer yet.
    doubted: BTreeSet<SandboxId>,
    /// When each was made or found well last.
    well: BTreeMap<SandboxId, Time>,
    generation: u64,
    /// The first generation of the template that the pool has now.
    serves_from: u64,
    claims: u64,
    failures: u64,
    counters: Counters,
}

pub(crate) fn spec(min: u32, max: u32) -> PoolSpec {
    PoolSpec::new(BackendName::parse("jail").unwrap(), TemplateId::parse("host").unwrap(), min, max)
}

fn pick<T>(list: &[T], index: usize) -> Option<usize> {
    (!list.is_empty()).then(|| index % list.len())
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(spec(2, 6))
    }

    pub(crate) fn with(spec: PoolSpec) -> Self {
        let now = Time::from_secs(1_795_000_000);
        Self {
            pool: Pool::new(spec, 1, now),
            now,
            sandboxes: BTreeMap::new(),
            attempts: Vec::new(),
            begun: BTreeMap::new(),
            used_attempts: BTreeSet::new(),
            checks: Vec::new(),
            taken: Vec::new(),
            doubted: BTreeSet::new(),
            well: BTreeMap::new(),
            generation: 1,
            serves_from: 0,
            claims: 0,
            failures: 0,
            counters: Counters::default(),
        }
    }

    fn count(&self, place: Place) -> u32 {
        u32::try_from(self.sandboxes.values().filter(|other| **other == place).count()).unwrap()
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.count(Place::Waiting)
    }

    /// Those that wait and can be claimed.
    fn claimable(&self) -> u32 {
        self.waiting() - u32::try_from(self.in_doubt().count()).unwrap()
    }

    fn in_doubt(&self) -> impl Iterator<Item = &SandboxId> {
        self.doubted.iter().filter(|id| self.sandboxes[*id] == Place::Waiting)
    }

    fn in_place(&self, place: Place) -> Vec<SandboxId> {
        self.sandboxes.iter().filter(|(_, other)| **other == place).map(|(id, _)| id.clone()).collect()
    }

    /// Claims; who gets one gets one that waits, and nobody else has or will.
    pub(crate) fn claim(&mut self) {
        self.claims += 1;
        let before = self.claimable();
        let best = self.pool.best().cloned();
        let given = self.pool.claim(self.now);
        assert_eq!(best, given, "what is said to be given is given");
        if let Some(member) = given {
            self.took(member);
        } else {
            assert!(before == 0 || self.pool.spec().draining, "none given of {before}");
        }
    }

    fn took(&mut self, member: SandboxId) {
        let place = self.sandboxes.insert(member.clone(), Place::Taken);
        assert_eq!(place, Some(Place::Waiting), "{member} was given");
        assert!(!self.doubted.contains(&member), "{member} did not answer yet");
        assert!(!self.pool.spec().draining);
        self.taken.push(member);
    }

    /// A claim that took one ends well.
    pub(crate) fn given(&mut self) {
        if let Some(member) = self.taken.pop() {
            self.sandboxes.insert(member, Place::Claimed);
            self.pool.given(Duration::from_millis(1));
        }
    }

    /// What a claim took cannot be given; it takes another.
    pub(crate) fn claim_failed(&mut self) {
        let Some(member) = self.taken.pop() else { return };
        self.pool.claim_failed(&member, self.now);
        self.sandboxes.insert(member, Place::Removing);
        if let Some(next) = self.pool.claim_again(self.now) {
            self.took(next);
        }
    }

    /// Whoever claimed goes away before having it.
    pub(crate) fn leaves(&mut self) {
        let Some(member) = self.taken.pop() else { return };
        self.pool.not_wanted(&member, self.now);
        self.pool.given(Duration::ZERO);
        self.sandboxes.insert(member, Place::Removing);
    }

    /// What a claim took cannot become what was asked for, and so could no other.
    pub(crate) fn refused(&mut self) {
        let Some(member) = self.taken.pop() else { return };
        self.pool.not_wanted(&member, self.now);
        self.pool.in_vain();
        self.sandboxes.insert(member, Place::Removing);
    }

    pub(crate) fn missed(&mut self) {
        self.claims += 1;
        self.pool.missed(self.now);
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    /// Lets the time pass until the pool wants to be polled, at most two minutes.
    pub(crate) fn wake(&mut self) {
        let limit = self.now.after(Duration::from_secs(120));
        self.now = self.pool.next_wake().unwrap_or(limit).clamp(self.now, limit);
    }

    pub(crate) fn made(&mut self, index: usize, behind: bool) {
        let Some(place) = pick(&self.attempts, index) else { return };
        let attempt = self.attempts.remove(place);
        let member = SandboxId::parse(format!("sb-{}", self.sandboxes.len())).unwrap();
        self.sandboxes.insert(member.clone(), Place::Waiting);
        self.well.insert(member.clone(), self.now);
        let generation = self.generation - u64::from(behind && self.generation > 1);
        if generation < self.serves_from {
            self.sandboxes.insert(member.clone(), Place::Lost);
        }
        self.pool.made(attempt, member, generation, Duration::from_millis(300), self.now);
    }

    pub(crate) fn make_failed(&mut self, index: usize) {
        let Some(place) = pick(&self.attempts, index) else { return };
        let attempt = self.attempts.remove(place);
        self.failures += 1;
        self.pool.make_failed(attempt, "no room".to_owned(), self.now);
        let retry = self.pool.status(self.now).retry_time.unwrap();
        let wait = retry.since(self.now);
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(60), "{wait:?}");
    }

    pub(crate) fn make_starved(&mut self, index: usize) {
        let Some(place) = pick(&self.attempts, index) else { return };
        let attempt = self.attempts.remove(place);
        self.failures += 1;
        self.pool.make_starved(attempt, "no room", self.now);
    }

    pub(crate) fn make_given_up(&mut self, index: usize) {
        let Some(place) = pick(&self.attempts, index) else { return };
        let attempt = self.attempts.remove(place);
        self.pool.make_given_up(attempt, self.now);
    }

    pub(crate) fn checked(&mut self, index: usize, healthy: bool) {
        let Some(place) = pick(&self.checks, index) else { return };
        let member = self.checks.remove(place);
        self.pool.checked(&member, healthy, self.now);
        self.well.insert(member.clone(), self.now);
        if healthy {
            self.doubted.remove(&member);
        }
        if !healthy && self.sandboxes[&member] == Place::Waiting {
            self.sandboxes.insert(member, Place::Lost);
        }
    }

    pub(crate) fn measured(&mut self, index: usize, mebibytes: u64) {
        let waiting = self.in_place(Place::Waiting);
        let Some(place) = pick(&waiting, index) else { return };
        self.pool.measured(&waiting[place], mebibytes << 20, self.now);
    }

    pub(crate) fn died(&mut self, index: usize) {
        let waiting = self.in_place(Place::Waiting);
        let Some(place) = pick(&waiting, index) else { return };
        self.pool.died(&waiting[place], self.now);
        self.sandboxes.insert(waiting[place].clone(), Place::Lost);
    }

    pub(crate) fn removed(&mut self, index: usize) {
        let removing = self.in_place(Place::Removing);
        let Some(place) = pick(&removing, index) else { return };
        self.pool.removed(&removing[place], self.now);
        self.sandboxes.insert(removing[place].clone(), Place::Gone);
    }

    /// Somebody removes a member behind the pool's back.
    pub(crate) fn taken_away(&mut self, index: usize) {
        let waiting = self.in_place(Place::Waiting);
        let Some(place) = pick(&waiting, index) else { return };
        self.pool.removed(&waiting[place], self.now);
        self.sandboxes.insert(waiting[place].clone(), Place::Gone);
    }

    pub(crate) fn update(&mut self, change: impl FnOnce(&mut PoolSpec)) {
        let mut spec = self.pool.spec().clone();
        change(&mut spec);
        spec.validate().unwrap();
        self.pool.update(spec, self.now);
    }

    pub(crate) fn new_generation(&mut self) {
        self.generation += 1;
        self.pool.new_generation(self.generation, self.now);
    }

    /// The pool is given another template: what is there serves nobody any more.
    pub(crate) fn new_template(&mut self) {
        self.new_generation();
        self.serves_from = self.generation;
        self.pool.discard_before(self.generation, self.now);
        for place in self.sandboxes.values_mut().filter(|place| **place == Place::Waiting) {
            *place = Place::Lost;
        }
    }

    pub(crate) fn pressure(&mut self, level: Pressure) {
        self.pool.pressure(level, self.now);
    }

    /// The owner dies and comes back: attempts and checks are lost, removals end by themselves, the rest is adopted.
    pub(crate) fn restart(&mut self) {
        let ready = self.pool.members().filter(|member| member.removing.is_none());
        let members = ready.map(|member| (member.id, member.generation, member.made)).collect();
        let history = History::decode(&self.pool.history().encode()).unwrap();
        let spec = self.pool.spec().clone();
        self.pool = Pool::restore(spec, self.generation, self.pool.counters(), &history, members, self.now);
        self.pool.discard_before(self.serves_from, self.now);
        self.attempts.clear();
        self.used_attempts.clear();
        self.checks.clear();
        self.doubted.clear();
        self.claims -= self.taken.drain(..).count() as u64;
        let ends = |place: &&mut Place| matches!(place, Place::Lost | Place::Removing | Place::Taken);
        for place in self.sandboxes.values_mut().filter(ends) {
            *place = Place::Gone;
        }
    }

    /// The same, and one of those that were adopted does not answer.
    pub(crate) fn restart_in_doubt(&mut self, index: usize) {
        self.restart();
        let waiting = self.in_place(Place::Waiting);
        if let Some(place) = pick(&waiting, index) {
            self.pool.doubt(&waiting[place], self.now);
            self.doubted.insert(waiting[place].clone());
        }
    }

    /// Polls, takes on what there is to do, and compares it with the rules. Returns how much there was.
    pub(crate) fn poll(&mut self) -> usize {
        let before = self.pool.status(self.now);
        let actions = self.pool.poll(self.now);
        let mut makes = 0;
        for action in &actions {
            match action {
                Action::Make { attempt } => {
                    makes += 1;
                    assert!(self.used_attempts.insert(*attempt), "attempt {attempt} came twice");
                    self.attempts.push(*attempt);
                    self.begun.insert(*attempt, self.now);
                }
                Action::Check { member } => {
                    assert_eq!(self.sandboxes[member], Place::Waiting);
                    assert!(!self.checks.contains(member), "{member} is under check");
                    self.checks.push(member.clone());
                }
                Action::Remove { member, .. } => {
                    let place = self.sandboxes.insert(member.clone(), Place::Removing);
                    assert!(matches!(place, Some(Place::Waiting | Place::Lost)), "{member} was {place:?}");
                }
            }
        }
        self.checks.retain(|member| {
            matches!(self.sandboxes[member], Place::Waiting | Place::Taken | Place::Claimed | Place::Removing)
        });
        assert!(self.count(Place::Lost) == 0, "a lost member is not forgotten");
        let status = self.pool.status(self.now);
        let spec = self.pool.spec();
        let surge = if status.pressure == Pressure::None { spec.refill_concurrency } else { 0 };
        assert!(status.ready <= status.target && status.target <= spec.max_size, "{status:?}");
        if makes > 0 {
            assert!(before.retry_time.is_none(), "made before the retry time");
            assert!(status.creating <= spec.refill_concurrency, "{status:?}");
            assert!(status.ready + status.creating <= status.target + surge, "{status:?}");
        }
        assert!(self.pool.next_wake().is_none_or(|wake| wake > self.now), "a hot loop");
        assert_eq!(self.pool.poll(self.now), Vec::new(), "each action is given once");
        self.check_the_wake();
        actions.len()
    }

    /// Until the pool wants to be polled there is nothing to do.
    fn check_the_wake(&self) {
        let wake = self.pool.next_wake().unwrap_or_else(|| self.now.after(Duration::from_secs(86_400)));
        let before = wake.before(Duration::from_nanos(1));
        let mut copy = self.pool.clone();
        assert_eq!(copy.poll(before), Vec::new(), "slept over at {before:?}, {:?}", copy.status(before));
        assert_eq!(copy.status(before).target, self.pool.status(self.now).target, "the size was slept over");
    }

    /// The pool and the owner agree about who is where, and counters only grow.
    pub(crate) fn check_books(&mut self) {
        let status = self.pool.status(self.now);
        assert_eq!(status.ready, self.claimable());
        assert_eq!(status.creating as usize, self.attempts.len());
        assert_eq!(status.removing, self.count(Place::Removing) + self.count(Place::Lost));
        for member in self.pool.members() {
            let expected = match (member.removing, self.sandboxes[&member.id]) {
                (None, place) => place == Place::Waiting,
                (Some(_), place) => matches!(place, Place::Removing | Place::Lost),
            };
            assert!(expected, "{member:?} is {:?}", self.sandboxes[&member.id]);
        }
        let (old, new) = (self.counters, self.pool.counters());
        assert_eq!(new.hits + new.misses + self.taken.len() as u64, self.claims, "one outcome each");
        assert_eq!(new.created as usize, self.sandboxes.len());
        assert_eq!(new.refill_failures, self.failures);
        assert!(new.hits >= old.hits && new.misses >= old.misses && new.recycled >= old.recycled);
        assert!(new.unhealthy >= old.unhealthy && new.surplus >= old.surplus);
        assert!(new.idle_time >= old.idle_time && new.claim_time >= old.claim_time);
        self.counters = new;
    }

    /// Carries everything out at once until there is nothing more to do at this moment.
    pub(crate) fn carry_out(&mut self) {
        for _ in 0..10_000 {
            let found = self.poll();
            while !self.attempts.is_empty() {
                self.made(0, false);
            }
            while !self.checks.is_empty() {
                self.checked(0, true);
            }
            for _ in 0..self.count(Place::Removing) {
                self.removed(0);
            }
            self.check_books();
            if found == 0 {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.pool.status(self.now));
    }

    /// As [`Self::carry_out`] on a node with room for so many; what gets none goes on waiting.
    fn carry_out_in(&mut self, room: u32) {
        for _ in 0..10_000 {
            let mut found = self.poll();
            while !self.checks.is_empty() {
                self.checked(0, true);
            }
            for _ in 0..self.count(Place::Removing) {
                self.removed(0);
            }
            while !self.attempts.is_empty() && self.waiting() < room {
                self.made(0, false);
                found += 1;
            }
            self.check_books();
            if found == 0 {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.pool.status(self.now));
    }

    /// Lets ten minutes pass on a node that has room for so many, or for what is there where that is more. An attempt
    /// waits half a minute for room. Returns that room.
    pub(crate) fn settle_in(&mut self, room: u32) -> u32 {
        const PATIENCE: Duration = Duration::from_secs(30);
        let room = room.max(self.waiting());
        let end = self.now.after(Duration::from_secs(600));
        while self.now < end {
            self.carry_out_in(room);
            let begin = self.now;
            self.wake();
            let over = self.attempts.iter().map(|attempt| self.begun[attempt].after(PATIENCE)).min();
            self.now = over.map_or(self.now, |over| over.clamp(begin, self.now));
            while let Some(index) =
                self.attempts.iter().position(|attempt| self.begun[attempt].after(PATIENCE) <= self.now)
            {
                self.make_starved(index);
            }
        }
        self.carry_out_in(room);
        for member in self.pool.members() {
            assert_eq!(member.generation, self.generation, "{member:?}");
            let longest = self.pool.spec().max_age + 5 * PATIENCE;
            assert!(self.now.since(member.made) < longest, "{member:?} is too old");
        }
        room
    }

    /// Lets three minutes pass in which everything works and nobody claims: longer than any wait after failures or
    /// pressure.
    pub(crate) fn settle(&mut self) {
        let end = self.now.after(Duration::from_secs(180));
        while self.now < end {
            self.carry_out();
            self.wake();
        }
        self.carry_out();
        let interval = self.pool.spec().health_check_interval;
        for member in self.pool.members() {
            assert_eq!(member.generation, self.generation, "{member:?}");
            assert!(self.now.since(self.well[&member.id]) < interval, "{member:?} was not checked in time");
            assert!(self.now.since(member.made) < self.pool.spec().max_age, "{member:?} is too old");
        }
    }
}
