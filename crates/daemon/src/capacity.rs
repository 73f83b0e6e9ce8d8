//! Room on this node: who takes it, who waits for it, and who is refused.
//!
//! `hostel_pool::Admission` decides; here its waiters are woken. [`Room`] is what a sandbox takes; dropping it gives
//! it back and lets the next one in.

use crate::error::{Error, Result};
use crate::host::Machine;
use crate::lock::lock;
use hostel_pool::admission::{AdmissionStatus, Outcome, Rules, Why};
use hostel_pool::{
    Admission, Admitted, Budget, Decision, Needs, Overcommit, Priority, Resources, Ticket, Time,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Hundredths of the machine's memory that sandboxes may have: the rest is the host's.
const MEMORY_SHARE: u64 = 95;
/// Hundredths of the kernel's processes that sandboxes may have.
const PIDS_SHARE: u64 = 90;

/// A wait that is not worth telling.
const SHORT: Duration = Duration::from_millis(10);

/// The room of the node. Clones share it.
#[derive(Clone)]
pub(crate) struct Capacity(Arc<Inner>);

struct Inner {
    start: Instant,
    state: Mutex<State>,
}

struct State {
    admission: Admission,
    waiting: HashMap<Ticket, Waiter>,
    last_ticket: u64,
}

struct Waiter {
    needs: Needs,
    since: Instant,
    answer: oneshot::Sender<Result<Room>>,
}

/// Room that is taken, until it is dropped.
pub(crate) struct Room {
    capacity: Capacity,
    needs: Needs,
    /// How long it was waited for. Absent where it was free at once.
    waited: Option<Duration>,
}

/// One that waits; gone from the queue when dropped.
struct Place<'a> {
    capacity: &'a Capacity,
    ticket: Ticket,
}

/// What a machine has for sandboxes.
pub(crate) fn budget(machine: &Machine, max_sandboxes: usize) -> Budget {
    let share = |amount: u64, hundredths: u64| amount / 100 * hundredths;
    let most = |amount: u64, known: bool| if known { amount } else { u64::MAX };
    Resources {
        memory_bytes: most(share(machine.memory_bytes, MEMORY_SHARE), machine.memory_bytes > 0),
        cpu_millis: u64::from(machine.cpus) * 1000,
        pids: most(share(machine.pids, PIDS_SHARE), machine.pids > 0),
        disk_bytes: most(machine.disk_bytes, machine.disk_bytes > 0),
        sandboxes: max_sandboxes as u64,
    }
}

impl Capacity {
    pub(crate) fn new(budget: Budget, overcommit: Overcommit) -> Self {
        let admission = Admission::new(budget, overcommit, Rules::default(), Time::default());
        let state = State { admission, waiting: HashMap::new(), last_ticket: 0 };
        Self(Arc::new(Inner { start: Instant::now(), state: Mutex::new(state) }))
    }

    fn now(&self) -> Time {
        Time(self.0.start.elapsed())
    }

    /// What is taken and who waits.
    pub(crate) fn status(&self) -> AdmissionStatus {
        lock(&self.0.state).admission.status(self.now())
    }

    /// Counts what is there already: a sandbox of before a restart.
    pub(crate) fn adopt(&self, needs: Needs) -> Room {
        lock(&self.0.state).admission.adopt(&needs);
        Room { capacity: self.clone(), needs, waited: None }
    }

    /// Takes room, or waits for it until then. Safe to drop.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub(crate) async fn take(&self, needs: Needs, priority: Priority, until: Instant) -> Result<Room> {
        let begin = Instant::now();
        let (place, mut answer) = match self.ask(needs, priority, until) {
            Asked::Taken => return Ok(Room { capacity: self.clone(), needs, waited: None }),
            Asked::Refused(why, retry_after) => return Err(self.no_room(&needs, why, retry_after, begin)),
            Asked::Waiting(place, answer) => (place, answer),
        };
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            () = tokio::time::sleep_until(until.into()) => {
                self.let_in();
                drop(place);
                answer.await
            }
        };
        answered.unwrap_or_else(|_| Err(self.no_room(&needs, Why::Deadline, None, begin)))
    }

    /// Takes room that is free, without waiting.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub(crate) async fn take_now(&self, needs: Needs) -> Result<Room> {
        self.take(needs, Priority::Cold, Instant::now()).await
    }

    fn ask(&self, needs: Needs, priority: Priority, until: Instant) -> Asked<'_> {
        let deadline = Time(until.saturating_duration_since(self.0.start));
        let mut state = lock(&self.0.state);
        state.last_ticket += 1;
        let ticket = Ticket(state.last_ticket);
        match state.admission.request(ticket, needs, priority, deadline, self.now()) {
            Admitted::Admitted => Asked::Taken,
            Admitted::Refused { why, retry_after } => Asked::Refused(why, retry_after),
            Admitted::Queued => {
                let (sender, answer) = oneshot::channel();
                let waiter = Waiter { needs, since: Instant::now(), answer: sender };
                state.waiting.insert(ticket, waiter);
                Asked::Waiting(Place { capacity: self, ticket }, answer)
            }
        }
    }

    /// Tells those that waited what was decided.
    fn let_in(&self) {
        let decided: Vec<_> = {
            let mut state = lock(&self.0.state);
            let decisions = state.admission.poll(self.now());
            let of = |decision: Decision| Some((state.waiting.remove(&decision.ticket)?, decision.outcome));
            decisions.into_iter().filter_map(of).collect()
        };
        // Without the lock: room that nobody takes any more comes back through it.
        for (Waiter { needs, since, answer }, outcome) in decided {
            let _ = answer.send(match outcome {
                Outcome::Admitted => {
                    Ok(Room { capacity: self.clone(), needs, waited: Some(since.elapsed()) })
                }
                Outcome::Refused { why, retry_after } => Err(self.no_room(&needs, why, retry_after, since)),
            });
        }
    }

    /// The refusal, with what is short.
    fn no_room(&self, needs: &Needs, why: Why, retry_after: Option<Duration>, since: Instant) -> Error {
        let status = self.status();
        let mut detail = match why {
            Why::TooLarge => "it is more than this node has".to_owned(),
            Why::QueueFull => "too many wait already".to_owned(),
            Why::Deadline | Why::Duplicate if since.elapsed() < SHORT => "what it needs is taken".to_owned(),
            Why::Deadline | Why::Duplicate => format!("none came free in {:.1?}", since.elapsed()),
        };
        for (name, wanted, taken, ceiling) in short(needs, &status) {
            detail.push_str(&format!("; {name}: {wanted} wanted, {taken} of {ceiling} taken"));
        }
        Error::NoRoom { detail, retry_after }
    }
}

enum Asked<'a> {
    Taken,
    Refused(Why, Option<Duration>),
    Waiting(Place<'a>, oneshot::Receiver<Result<Room>>),
}

/// Name, wanted, taken and ceiling of everything that there is not enough of.
fn short(needs: &Needs, status: &AdmissionStatus) -> Vec<(&'static str, u64, u64, u64)> {
    let (taken, ceiling) = (&status.taken, &status.ceiling);
    [
        ("memory, bytes", needs.memory_bytes, taken.memory_bytes, ceiling.memory_bytes),
        ("processors, thousandths", needs.cpu_millis, taken.cpu_millis, ceiling.cpu_millis),
        ("processes", needs.pids, taken.pids, ceiling.pids),
        ("disk, bytes", needs.disk_bytes, taken.disk_bytes, ceiling.disk_bytes),
        ("sandboxes", needs.sandboxes, taken.sandboxes, ceiling.sandboxes),
    ]
    .into_iter()
    .filter(|(_, wanted, taken, ceiling)| *wanted > 0 && taken.saturating_add(*wanted) > *ceiling)
    .collect()
}

impl Room {
    /// How long it was waited for; nothing where it was free at once.
    pub(crate) fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Takes more or less, at once or not at all.
    ///
    /// # Errors
    /// [`Error::NoRoom`]; it is then as it was.
    pub(crate) fn resize(&mut self, needs: Needs) -> Result<()> {
        let (more, less) = (needs.minus(&self.needs), self.needs.minus(&needs));
        if more != Needs::default() {
            let begin = Instant::now();
            match self.capacity.ask(more, Priority::Claimed, begin) {
                Asked::Taken => {}
                Asked::Refused(why, retry_after) => {
                    return Err(self.capacity.no_room(&more, why, retry_after, begin));
                }
                Asked::Waiting(..) => {
                    return Err(self.capacity.no_room(&more, Why::Deadline, None, begin));
                }
            }
        }
        self.needs = needs;
        if less != Needs::default() {
            self.capacity.give_back(&less);
        }
        Ok(())
    }
}

impl Capacity {
    fn give_back(&self, needs: &Needs) {
        lock(&self.0.state).admission.release(needs, self.now());
        self.let_in();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.capacity.give_back(&self.needs);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waited = {
            let mut state = lock(&self.capacity.0.state);
            state.admission.cancel(self.ticket);
            state.waiting.remove(&self.ticket)
        };
        // Those behind it may fit now.
        if waited.is_some() {
            self.capacity.let_in();
        }
    }
}

#[cfg(test)]
mod tests;
