//! The ready members of a pool, in the orders that are asked for.

use crate::time::Time;
use hostel_sandbox::SandboxId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Most checks under way at a time, so that a large pool that was just adopted does not ask all its members at once.
const MOST_CHECKS: u32 = 32;

/// Numbers members in the order of their coming, so that orders need no copies of ids.
type Number = u64;
/// Newest generation first, then those checked since they were adopted, then the oldest.
type ClaimKey = (Reverse<u64>, bool, Time, Number);

/// A sandbox that waits ready.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) id: SandboxId,
    pub(super) generation: u64,
    pub(super) made: Time,
    /// Whether it was adopted and not yet checked since.
    pub(super) unchecked: bool,
    /// Whether it is not claimed before a check found it well.
    pub(super) doubted: bool,
    /// Whether a check is under way.
    pub(super) checking: bool,
    /// Whether it is to be replaced, for its age or its generation.
    pub(super) old: bool,
    /// What it used of memory at its last check, in bytes.
    memory: Option<u64>,
    checked: Time,
}

/// Ready members. Every set holds numbers of `members` and nothing else.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    next: Number,
    members: BTreeMap<Number, Ready>,
    numbers: HashMap<SandboxId, Number>,
    claims: BTreeSet<ClaimKey>,
    /// Those to keep, the oldest first.
    fresh: BTreeSet<(Time, Number)>,
    /// Those to replace, the oldest generation first.
    old: BTreeSet<(u64, Time, Number)>,
    /// Those without a check under way, by their last.
    checks: BTreeSet<(Time, Number)>,
    /// How many have a check under way.
    checking: u32,
    /// How many are not claimed before a check found them well.
    doubted: u32,
    /// What those whose memory is known use of it together, and how many they are.
    memory: u64,
    measured: u32,
}

fn claim_key(number: Number, ready: &Ready) -> ClaimKey {
    (Reverse(ready.generation), ready.unchecked, ready.made, number)
}

impl Shelf {
    /// Puts a member in. `checked` is when it was known to be well. False when it is there already.
    pub(super) fn put(
        &mut self,
        id: SandboxId,
        generation: u64,
        made: Time,
        checked: Option<Time>,
        old: bool,
    ) -> bool {
        if self.numbers.contains_key(&id) {
            return false;
        }
        let number = self.next;
        self.next += 1;
        let unchecked = checked.is_none();
        let checked = checked.unwrap_or_default();
        let ready = Ready {
            id: id.clone(),
            generation,
            made,
            unchecked,
            doubted: false,
            checking: false,
            old,
            memory: None,
            checked,
        };
        self.claims.insert(claim_key(number, &ready));
        if old {
            self.old.insert((generation, made, number));
        } else {
            self.fresh.insert((made, number));
        }
        self.checks.insert((checked, number));
        self.numbers.insert(id, number);
        self.members.insert(number, ready);
        true
    }

    fn take_number(&mut self, number: Number) -> Option<Ready> {
        let ready = self.members.remove(&number)?;
        self.numbers.remove(&ready.id);
        self.claims.remove(&claim_key(number, &ready));
        self.fresh.remove(&(ready.made, number));
        self.old.remove(&(ready.generation, ready.made, number));
        self.checks.remove(&(ready.checked, number));
        self.checking -= u32::from(ready.checking);
        self.doubted -= u32::from(ready.doubted);
        if let Some(memory) = ready.memory {
            self.memory = self.memory.saturating_sub(memory);
            self.measured -= 1;
        }
        Some(ready)
    }

    /// Has a member not be claimed before a check found it well.
    pub(super) fn doubt(&mut self, id: &SandboxId) {
        let Some(number) = self.numbers.get(id).copied() else { return };
        let Some(ready) = self.members.get_mut(&number) else { return };
        if !std::mem::replace(&mut ready.doubted, true) {
            self.doubted += 1;
            self.claims.remove(&claim_key(number, ready));
        }
    }

    /// How many can be claimed.
    pub(super) fn len_claimable(&self) -> u32 {
        self.len().saturating_sub(self.doubted)
    }

    /// Notes what a member uses of memory.
    pub(super) fn measured(&mut self, id: &SandboxId, memory: u64) {
        let Some(ready) = self.numbers.get(id).and_then(|number| self.members.get_mut(number)) else {
            return;
        };
        let before = ready.memory.replace(memory);
        self.measured += u32::from(before.is_none());
        self.memory = self.memory.saturating_sub(before.unwrap_or_default()).saturating_add(memory);
    }

    /// What those that were measured use together, and how many they are.
    pub(super) fn memory(&self) -> (u64, u32) {
        (self.memory, self.measured)
    }

    /// Takes a certain member out.
    pub(super) fn take(&mut self, id: &SandboxId) -> Option<Ready> {
        self.take_number(*self.numbers.get(id)?)
    }

    /// The one that [`Self::take_best`] would take.
    pub(super) fn best(&self) -> Option<&Ready> {
        let (.., number) = self.claims.first()?;
        self.members.get(number)
    }

    /// Takes the best one out.
    pub(super) fn take_best(&mut self) -> Option<Ready> {
        let (.., number) = *self.claims.first()?;
        self.take_number(number)
    }

    /// Takes the one out that is most to be replaced.
    pub(super) fn take_oldest_old(&mut self) -> Option<Ready> {
        let (.., number) = *self.old.first()?;
        self.take_number(number)
    }

    /// Takes the oldest of those to keep out.
    pub(super) fn take_oldest_fresh(&mut self) -> Option<Ready> {
        let (_, number) = *self.fresh.first()?;
        self.take_number(number)
    }

    /// Marks those that reached the greatest age as to be replaced.
    pub(super) fn expire(&mut self, now: Time, max_age: Duration) {
        while let Some((made, number)) = self.fresh.first().copied()
            && now.since(made) >= max_age
        {
            self.fresh.remove(&(made, number));
            if let Some(ready) = self.members.get_mut(&number) {
                ready.old = true;
                self.old.insert((ready.generation, made, number));
            }
        }
    }

    /// Marks anew, after the generation or the greatest age changed.
    pub(super) fn mark_all(&mut self, generation: u64, now: Time, max_age: Duration) {
        self.fresh.clear();
        self.old.clear();
        for (number, ready) in &mut self.members {
            ready.old = ready.generation < generation || now.since(ready.made) >= max_age;
            if ready.old {
                self.old.insert((ready.generation, ready.made, *number));
            } else {
                self.fresh.insert((ready.made, *number));
            }
        }
    }

    /// The next one whose last check is `interval` ago; it is under check from then on.
    pub(super) fn begin_check(&mut self, now: Time, interval: Duration) -> Option<SandboxId> {
        let (checked, number) = *self.checks.first().filter(|_| self.checking < MOST_CHECKS)?;
        let ready = self.members.get_mut(&number)?;
        if !ready.unchecked && now.since(checked) < interval {
            return None;
        }
        self.checks.remove(&(checked, number));
        ready.checking = true;
        self.checking += 1;
        Some(ready.id.clone())
    }

    /// A check found the member well.
    pub(super) fn end_check(&mut self, id: &SandboxId, now: Time) {
        let Some(number) = self.numbers.get(id).copied() else { return };
        let Some(ready) = self.members.get_mut(&number) else { return };
        self.claims.remove(&claim_key(number, ready));
        self.checks.remove(&(ready.checked, number));
        self.checking -= u32::from(ready.checking);
        self.doubted -= u32::from(ready.doubted);
        ready.doubted = false;
        ready.unchecked = false;
        ready.checking = false;
        ready.checked = now;
        self.claims.insert(claim_key(number, ready));
        self.checks.insert((now, number));
    }

    pub(super) fn get(&self, id: &SandboxId) -> Option<&Ready> {
        self.members.get(self.numbers.get(id)?)
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn len_old(&self) -> u32 {
        u32::try_from(self.old.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn len_fresh(&self) -> u32 {
        u32::try_from(self.fresh.len()).unwrap_or(u32::MAX)
    }

    /// When the oldest was made.
    pub(super) fn oldest(&self) -> Option<Time> {
        let old = self.old.iter().map(|(_, made, _)| *made).min();
        self.oldest_fresh().into_iter().chain(old).min()
    }

    /// When the oldest of those to keep was made.
    pub(super) fn oldest_fresh(&self) -> Option<Time> {
        self.fresh.first().map(|(made, _)| *made)
    }

    /// When the next check is due. Nothing while as many as may are under way: the end of one is an event.
    pub(super) fn next_check(&self, interval: Duration) -> Option<Time> {
        self.checks
            .first()
            .filter(|_| self.checking < MOST_CHECKS)
            .map(|(checked, _)| checked.after(interval))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Ready> {
        self.members.values()
    }
}
