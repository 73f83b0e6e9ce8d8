//! Random requests against a node, beside a model of who waits and who was passed by.

use hostel_pool::admission::{Outcome, Rules, Why};
use hostel_pool::{Admission, Admitted, Budget, Needs, Overcommit, Priority, Resources, Ticket, Time};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const OVERTAKING: u32 = 3;
const QUEUE: usize = 12;

fn amount(memory: u64) -> Resources {
    Resources { memory_bytes: memory, cpu_millis: memory, pids: 1, disk_bytes: 0, sandboxes: 1 }
}

fn node() -> Admission {
    let budget = Budget { memory_bytes: 80, cpu_millis: 1, pids: 1000, disk_bytes: 0, sandboxes: 40 };
    let overcommit = Overcommit { memory: 1.25, ..Overcommit::default() };
    let rules = Rules { queue: QUEUE, overtaking: OVERTAKING, reserve: amount(20) };
    Admission::new(budget, overcommit, rules, Time::default())
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    needs: Needs,
    priority: Priority,
    deadline: Time,
    /// How many demands that came later got room before it.
    passed: u32,
}

struct Owner {
    admission: Admission,
    now: Time,
    running: Vec<Needs>,
    waiting: BTreeMap<Ticket, Waiter>,
    next: u64,
}

impl Owner {
    fn new() -> Self {
        let admission = node();
        Self { admission, now: Time::default(), running: Vec::new(), waiting: BTreeMap::new(), next: 0 }
    }

    fn admitted(&mut self, ticket: Ticket, needs: Needs, priority: Priority) {
        if priority == Priority::Refill {
            assert!(self.waiting.values().all(|waiter| waiter.priority == Priority::Refill));
            let taken = self.running.iter().map(|needs| needs.memory_bytes).sum::<u64>();
            assert!(taken + needs.memory_bytes + 20 <= 100, "a refill leaves room");
        } else {
            for (_, waiter) in self.waiting.range_mut(..ticket) {
                waiter.passed += 1;
                let demand = waiter.priority != Priority::Refill;
                assert!(!demand || waiter.passed <= OVERTAKING, "starved: {waiter:?}");
            }
        }
        self.running.push(needs);
        let taken = self.running.iter().fold(Resources::default(), |sum, needs| sum.plus(needs));
        assert!(taken.memory_bytes <= 100 && taken.sandboxes <= 40, "{taken:?}");
        assert!(self.admission.status(self.now).taken.memory_bytes >= taken.memory_bytes);
    }

    fn request(&mut self, memory: u64, priority: Priority, patience: u64) {
        let ticket = Ticket(self.next);
        self.next += 1;
        let (needs, deadline) = (amount(memory), self.now.after(Duration::from_millis(patience)));
        match self.admission.request(ticket, needs, priority, deadline, self.now) {
            Admitted::Admitted => self.admitted(ticket, needs, priority),
            Admitted::Queued => {
                assert!(deadline > self.now);
                let waiter = Waiter { needs, priority, deadline, passed: 0 };
                self.waiting.insert(ticket, waiter);
            }
            Admitted::Refused { why, retry_after } => match why {
                Why::TooLarge => {
                    assert!(memory > if priority == Priority::Refill { 80 } else { 100 });
                    assert_eq!(retry_after, None);
                }
                Why::QueueFull | Why::Deadline => {
                    let retry = retry_after.unwrap();
                    assert!(retry >= Duration::from_millis(100) && retry <= Duration::from_secs(60));
                }
                Why::Duplicate => panic!("{ticket:?} is new"),
            },
        }
    }

    fn poll(&mut self) {
        for decision in self.admission.poll(self.now) {
            let waiter = self.waiting.remove(&decision.ticket).unwrap();
            match decision.outcome {
                Outcome::Admitted => {
                    assert!(waiter.deadline > self.now, "admitted after its deadline");
                    self.admitted(decision.ticket, waiter.needs, waiter.priority);
                }
                Outcome::Refused { why, .. } => {
                    assert_eq!(why, Why::Deadline);
                    assert!(waiter.deadline <= self.now, "refused before its deadline");
                }
            }
        }
        assert!(self.waiting.values().all(|waiter| waiter.deadline > self.now), "forgotten at its deadline");
        let status = self.admission.status(self.now);
        assert_eq!(
            status.waiting_claimed + status.waiting_cold + status.waiting_refill,
            self.waiting.len(),
            "{status:?}"
        );
        assert!(status.waiting_claimed + status.waiting_cold <= QUEUE && status.waiting_refill <= QUEUE);
        assert_eq!(
            status.taken.memory_bytes,
            self.running.iter().map(|needs| needs.memory_bytes).sum::<u64>()
        );
        self.check_that_no_room_is_wasted();
        assert_eq!(self.admission.next_wake(), self.waiting.values().map(|waiter| waiter.deadline).min());
    }

    /// Who would fit waits only behind one that was overtaken often enough, or, as a refill, behind demands.
    fn check_that_no_room_is_wasted(&self) {
        let taken = self.admission.status(self.now).taken.memory_bytes;
        let demands = || self.waiting.values().filter(|waiter| waiter.priority != Priority::Refill);
        if demands().any(|waiter| taken + waiter.needs.memory_bytes <= 100) {
            assert!(demands().any(|waiter| waiter.passed == OVERTAKING), "room is wasted");
        }
        let mut refills = self.waiting.values().filter(|waiter| waiter.priority == Priority::Refill);
        if demands().count() == 0
            && let Some(refill) = refills.next()
        {
            assert!(taken + refill.needs.memory_bytes + 20 > 100, "room is wasted");
        }
    }

    fn release(&mut self, index: usize) {
        if !self.running.is_empty() {
            let needs = self.running.remove(index % self.running.len());
            self.admission.release(&needs, self.now);
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Request(u64, Priority, u64),
    Release(usize),
    Cancel(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let priority = prop_oneof![
        1 => Just(Priority::Claimed), 4 => Just(Priority::Cold), 2 => Just(Priority::Refill)
    ];
    let memory = prop_oneof![6 => 1u64..30, 2 => 60u64..101, 1 => 75u64..120];
    prop_oneof![
        6 => (memory, priority, prop_oneof![1 => Just(0u64), 4 => 1u64..60_000])
            .prop_map(|(memory, priority, patience)| Event::Request(memory, priority, patience)),
        5 => (0usize..64).prop_map(Event::Release),
        1 => (0usize..64).prop_map(Event::Cancel),
        2 => (0u64..5_000).prop_map(Event::Pass),
    ]
}

proptest! {
    #[test]
    fn nothing_is_over_admitted_and_nobody_starves(
        events in prop::collection::vec((event(), prop::bool::weighted(0.8)), 0..250)
    ) {
        let mut owner = Owner::new();
        for (event, poll) in events {
            match event {
                Event::Request(memory, priority, patience) => owner.request(memory, priority, patience),
                Event::Release(index) => owner.release(index),
                Event::Cancel(index) => {
                    let chosen = owner.waiting.keys().nth(index % owner.waiting.len().max(1)).copied();
                    if let Some(ticket) = chosen {
                        prop_assert!(owner.admission.cancel(ticket));
                        prop_assert!(!owner.admission.cancel(ticket));
                        owner.waiting.remove(&ticket);
                    }
                }
                Event::Pass(millis) => owner.now = owner.now.after(Duration::from_millis(millis)),
            }
            if poll {
                owner.poll();
            }
        }
        // When everything that runs ends, everybody who waits gets a turn.
        for _ in 0..1000 {
            owner.release(0);
            owner.poll();
        }
        prop_assert!(owner.waiting.is_empty() && owner.running.is_empty());
    }
}

#[test]
fn a_large_one_is_not_starved_by_small_ones() {
    let mut owner = Owner::new();
    (0..10).for_each(|_| owner.request(10, Priority::Cold, 0));
    owner.request(90, Priority::Cold, 1_000_000);
    let mut turns = 0;
    while owner.waiting.contains_key(&Ticket(10)) {
        owner.request(10, Priority::Cold, 1_000_000);
        owner.release(0);
        owner.poll();
        turns += 1;
        assert!(turns < 50);
    }
    assert!(turns <= 4 + 10, "{turns}");
}

#[test]
fn a_large_refill_that_waits_holds_up_no_small_one() {
    let mut admission = node();
    let later = Time::from_secs(60);
    admission.adopt(&amount(50));
    let mut ask = |ticket, memory| {
        admission.request(Ticket(ticket), amount(memory), Priority::Refill, later, Time::default())
    };
    assert_eq!(ask(1, 60), Admitted::Queued);
    assert_eq!(ask(2, 20), Admitted::Admitted);
    assert_eq!(ask(3, 20), Admitted::Queued);
    admission.release(&amount(20), Time::from_secs(1));
    let decisions = admission.poll(Time::from_secs(1));
    assert_eq!(decisions.iter().map(|decision| decision.ticket).collect::<Vec<_>>(), [Ticket(3)]);
}

#[test]
fn what_was_adopted_beyond_the_budget_blocks_until_it_is_released() {
    let mut admission = node();
    admission.adopt(&amount(150));
    let later = Time::from_secs(60);
    let answer = admission.request(Ticket(1), amount(10), Priority::Cold, later, Time::default());
    assert_eq!(answer, Admitted::Queued);
    assert!(matches!(
        admission.request(Ticket(1), amount(10), Priority::Cold, later, Time::default()),
        Admitted::Refused { why: Why::Duplicate, .. }
    ));
    admission.release(&amount(150), Time::from_secs(1));
    assert_eq!(admission.poll(Time::from_secs(1)).len(), 1);
}

#[test]
fn what_never_fits_a_smaller_node_is_refused() {
    let mut admission = node();
    let later = Time::from_secs(60);
    admission.adopt(&amount(100));
    for (ticket, memory) in [(1, 90), (2, 40)] {
        let answer =
            admission.request(Ticket(ticket), amount(memory), Priority::Cold, later, Time::default());
        assert_eq!(answer, Admitted::Queued);
    }
    let budget = Budget { memory_bytes: 50, ..admission.status(Time::default()).budget };
    admission.set_budget(budget, Overcommit::default());
    let decisions = admission.poll(Time::from_secs(1));
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0].ticket, Ticket(1));
    assert_eq!(decisions[0].outcome, Outcome::Refused { why: Why::TooLarge, retry_after: None });
}

#[test]
fn at_its_deadline_a_request_is_refused_though_there_is_room() {
    let mut admission = node();
    admission.adopt(&amount(100));
    let deadline = Time::from_secs(60);
    let answer = admission.request(Ticket(1), amount(1), Priority::Cold, deadline, Time::default());
    assert_eq!(answer, Admitted::Queued);
    assert_eq!(admission.next_wake(), Some(deadline));
    admission.release(&amount(100), deadline);
    let [decision] = admission.poll(deadline)[..] else { panic!("one decision") };
    assert!(matches!(decision.outcome, Outcome::Refused { why: Why::Deadline, .. }));
}

#[test]
fn who_needs_nothing_does_not_wait() {
    let mut admission = node();
    admission.adopt(&amount(150));
    let later = Time::from_secs(60);
    let none = Needs::default();
    assert_eq!(
        admission.request(Ticket(1), none, Priority::Claimed, later, Time::default()),
        Admitted::Admitted
    );
}
