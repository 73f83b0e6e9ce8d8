//! What the owner tells a pool, and asks of it.

use super::{CALM, COST_HOLDS, LastFailure, Member, Pool, Pressure, RemoveReason};
use crate::counters::Counters;
use crate::history::History;
use crate::spec::PoolSpec;
use crate::time::Time;
use hostel_sandbox::SandboxId;
use std::time::Duration;

/// A member that dies before this age counts as a failed refill, since making another at once would be a hot loop.
const YOUNG: Duration = Duration::from_secs(10);

impl Pool {
    /// A claim: takes the best ready member out of the pool, for good. `None` is a miss: make one cold.
    ///
    /// The best is of the newest generation; of those, one that was checked since it was adopted; of those, the
    /// oldest, so that members are used before their age has them replaced for nothing. What is only kept until it
    /// can be replaced is given too: it is healthy. A pool that is being drained gives none.
    pub fn claim(&mut self, now: Time) -> Option<SandboxId> {
        let now = self.advance(now);
        self.history.arrived(now);
        self.sizer.arrived(now);
        self.claim_again(now)
    }

    /// As [`Pool::claim`] for a claim that took one already, which failed. It is no further demand.
    pub fn claim_again(&mut self, now: Time) -> Option<SandboxId> {
        let now = self.advance(now);
        self.stirred = true;
        let taken = if self.spec.draining { None } else { self.shelf.take_best() };
        self.hold_refills(taken.is_some(), now);
        let Some(ready) = taken else {
            self.in_vain();
            return None;
        };
        self.count_idle(&ready, now);
        Some(ready.id)
    }

    /// A claim took one, or several, and gave none: it is made cold, or fails.
    pub fn in_vain(&mut self) {
        self.counters.misses = self.counters.misses.saturating_add(1);
    }

    /// The member that [`Pool::claim`] would give now.
    #[must_use]
    pub fn best(&self) -> Option<&SandboxId> {
        if self.spec.draining { None } else { self.shelf.best().map(|ready| &ready.id) }
    }

    /// Has refills wait after a claim. Claims that follow do not make the wait longer, and where refills are under way
    /// there is nothing left to keep quiet.
    fn hold_refills(&mut self, hit: bool, now: Time) {
        if !hit {
            self.refills_wait = None;
        } else if self.refills_wait.is_none() && self.making.is_empty() {
            self.refills_wait = Some(now.after(self.spec.refill_delay)).filter(|until| *until > now);
        }
    }

    /// A claim for this pool that did not fit, for example because of its limits, and was made cold without asking
    /// [`Pool::claim`]. A miss, but no demand: no size would serve it.
    pub fn missed(&mut self, now: Time) {
        self.advance(now);
        self.in_vain();
        self.counters.misses_unfit = self.counters.misses_unfit.saturating_add(1);
    }

    /// A member that [`Pool::claim`] took cannot be given: it could not be bound, or died. The owner removes it and
    /// says so by [`Pool::removed`]; it never comes back.
    pub fn claim_failed(&mut self, member: &SandboxId, now: Time) {
        self.counters.unhealthy = self.counters.unhealthy.saturating_add(1);
        self.not_wanted(member, now);
    }

    /// The same of a member that is well, but whose claim came to nothing: its caller left, or asked for what it cannot
    /// become.
    pub fn not_wanted(&mut self, member: &SandboxId, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        self.counters.claim_failures = self.counters.claim_failures.saturating_add(1);
        self.failed.insert(member.clone());
        // It cannot be here, but must not be given again whatever the owner mixed up.
        if let Some(ready) = self.shelf.take(member) {
            self.count_idle(&ready, now);
        }
    }

    /// A claim was served, and taking and binding the sandbox took so long.
    pub fn given(&mut self, took: Duration) {
        self.counters.hits = self.counters.hits.saturating_add(1);
        self.counters.claim_time = self.counters.claim_time.saturating_add(took);
    }

    /// An attempt gave a member, and making it took so long, a wait for room on the node not counted. Where it is not
    /// wanted any more, the next poll has it removed.
    pub fn made(&mut self, attempt: u64, member: SandboxId, generation: u64, took: Duration, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        self.making.remove(&attempt);
        self.counters.created = self.counters.created.saturating_add(1);
        self.history.made(took);
        self.sizer.made(took);
        if self.make_backoff.worked(now) && !self.death_backoff.is_failing() {
            self.last_failure = None;
        }
        if !self.removing.contains_key(&member) {
            self.shelf.put(member.clone(), generation, now, Some(now), generation < self.generation);
            if generation < self.serves_from
                && let Some(ready) = self.shelf.take(&member)
            {
                self.remove(ready, RemoveReason::Stale, now);
            }
        }
        // The room of the one that gave way was enough for it: the next may give way too.
        self.gives_way |= self.cramped;
    }

    /// An attempt failed.
    pub fn make_failed(&mut self, attempt: u64, error: String, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        self.making.remove(&attempt);
        self.counters.refill_failures = self.counters.refill_failures.saturating_add(1);
        self.make_backoff.failed(&mut self.random, now);
        self.last_failure = Some(LastFailure::new(&error, now));
    }

    /// An attempt waited for room on the node and got none. It counts as a failure and shows as one, but the next one
    /// need not wait longer: it waits for room again, and whoever gives some back lets it in. An attempt that was
    /// refused at once is one that failed.
    ///
    /// Where members are old there is no room for new ones beside them: from then on one of the old goes before its
    /// replacement is made, the next once that worked or found no room either.
    pub fn make_starved(&mut self, attempt: u64, error: &str, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        self.making.remove(&attempt);
        if self.shelf.len_old() > 0 && attempt >= self.gave_way {
            self.cramped = true;
            self.gives_way = true;
        }
        self.counters.refill_failures = self.counters.refill_failures.saturating_add(1);
        self.last_failure = Some(LastFailure::new(error, now));
    }

    /// An attempt was given up because nothing of the pool is wanted any more. That says nothing about the template.
    pub fn make_given_up(&mut self, attempt: u64, now: Time) {
        self.advance(now);
        self.stirred = true;
        self.making.remove(&attempt);
    }

    /// A check of a member ended. One that is not well is removed; about one that is not ready any more it says
    /// nothing.
    pub fn checked(&mut self, member: &SandboxId, healthy: bool, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        if !healthy {
            self.lose(member, RemoveReason::Unhealthy, now);
            return;
        }
        let outlived = self.shelf.get(member).is_some_and(|ready| {
            now.since(ready.made) >= YOUNG && self.death_backoff.began_before(ready.made)
        });
        if outlived && self.death_backoff.worked(now) && !self.make_backoff.is_failing() {
            self.last_failure = None;
        }
        self.shelf.end_check(member, now);
    }

    /// A check found what a member uses of memory, in bytes. For pools with a bound of idle memory.
    pub fn measured(&mut self, member: &SandboxId, memory: u64, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        self.shelf.measured(member, memory);
        let (known, count) = self.shelf.memory();
        if count == 0 {
            return;
        }
        let mean = known / u64::from(count);
        let holds = |(each, since): (u64, Time)| mean < each && now.since(since) < COST_HOLDS;
        if !self.cost.is_some_and(holds) {
            self.cost = Some((mean, now));
        }
    }

    /// A member died by itself. The next poll has the owner remove what is left of it.
    pub fn died(&mut self, member: &SandboxId, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        self.lose(member, RemoveReason::Died, now);
    }

    fn lose(&mut self, member: &SandboxId, reason: RemoveReason, now: Time) {
        let Some(ready) = self.shelf.take(member) else { return };
        let age = now.since(ready.made);
        if age < YOUNG {
            self.death_backoff.failed(&mut self.random, now);
            let what = if reason == RemoveReason::Died { "died" } else { "failed its check" };
            let message = format!("warm sandbox {member} {what} {} ms after it was made", age.as_millis());
            self.last_failure = Some(LastFailure { message, time: now });
        }
        self.remove(ready, reason, now);
    }

    /// A member is gone, because of an action or because somebody else removed it.
    pub fn removed(&mut self, member: &SandboxId, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        if !self.failed.remove(member)
            && self.removing.remove(member).is_none()
            && let Some(ready) = self.shelf.take(member)
        {
            self.count_idle(&ready, now);
        }
    }

    /// Changes what the pool shall be. A changed template needs [`Pool::new_generation`] too.
    pub fn update(&mut self, spec: PoolSpec, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        // What is known of the cost may be why nothing is left to learn it from.
        if self.spec.max_idle_memory_bytes != spec.max_idle_memory_bytes {
            self.cost = None;
        }
        self.spec = spec;
        self.refills_wait = None;
        self.shelf.mark_all(self.generation, now, self.spec.max_age);
        self.sizer.look_now(&self.spec, now);
    }

    /// The template changed: members of generations before are replaced, new ones first, and can be claimed until
    /// then. Generations grow; one that is not newer changes nothing.
    pub fn new_generation(&mut self, generation: u64, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        if generation > self.generation {
            self.generation = generation;
            self.cost = None;
            self.shelf.mark_all(generation, now, self.spec.max_age);
        }
    }

    /// Members of generations before this one serve nobody any more, for example because they were made of another
    /// template than the pool has now: they are removed whether or not others are there. So are those still to come.
    pub fn discard_before(&mut self, generation: u64, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        self.serves_from = self.serves_from.max(generation);
        let discarded = self.shelf.iter().filter(|ready| ready.generation < self.serves_from);
        let discarded: Vec<SandboxId> = discarded.map(|ready| ready.id.clone()).collect();
        for member in discarded {
            if let Some(ready) = self.shelf.take(&member) {
                self.remove(ready, RemoveReason::Stale, now);
            }
        }
    }

    /// How short the node is of memory now. What eases still counts for a minute.
    pub fn pressure(&mut self, level: Pressure, now: Time) {
        let now = self.advance(now);
        self.stirred = true;
        if level < self.pressure {
            let held = self.held_pressure(now);
            self.easing = Some((held, now.after(CALM)));
        }
        self.pressure = level;
    }

    /// What it shall be.
    #[must_use]
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// Which version of the template members are made from.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// An adopted member did not answer yet: it is not claimed before a check found it well.
    pub fn doubt(&mut self, member: &SandboxId, now: Time) {
        self.advance(now);
        self.stirred = true;
        self.shelf.doubt(member);
    }

    /// What one member is taken to use of memory, in bytes. `None` where that is not measured.
    #[must_use]
    pub fn cost(&self) -> Option<u64> {
        self.cost.map(|(each, _)| each)
    }

    /// What it did.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The demand that it recorded, to be stored and planned with.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// All members: ready ones by the order of their coming, then those that are being removed.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        let ready = self.shelf.iter().map(|ready| (ready, None));
        let removing = self.removing.values().map(|removing| (&removing.ready, Some(removing.reason)));
        ready.chain(removing).map(|(ready, removing)| Member {
            id: ready.id.clone(),
            generation: ready.generation,
            made: ready.made,
            checking: ready.checking,
            removing,
        })
    }
}
