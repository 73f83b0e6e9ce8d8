//! Random worlds: whatever happens in whatever order, turns keep their order and everything comes to an end.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What carries effects out, and looks that they make sense.
struct World {
    machine: Machine,
    next: u32,
    /// What the world owes the machine.
    owed: Vec<Owed>,
    /// Every message and what became of it.
    ends: BTreeMap<String, Vec<String>>,
    order: Vec<String>,
    begun: Vec<String>,
    prompted: BTreeSet<String>,
    running: Option<String>,
    last_end: Option<TurnEnd>,
    ended: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Owed {
    Start,
    Turn { answered: bool },
    Sweep,
    Settle,
    Close,
    Grace,
}

impl World {
    fn new(pattern: Pattern) -> Self {
        Self {
            machine: Machine::new(pattern),
            next: 0,
            owed: Vec::new(),
            ends: BTreeMap::new(),
            order: Vec::new(),
            begun: Vec::new(),
            prompted: BTreeSet::new(),
            running: None,
            last_end: None,
            ended: false,
        }
    }

    fn tell(&mut self, input: Input) {
        if let Input::Message(message) = &input {
            self.ends.insert(message.clone(), Vec::new());
            self.order.push(message.clone());
        }
        for effect in self.machine.happened(input) {
            self.carry_out(effect);
        }
        assert_eq!(self.machine.turn().is_some(), self.running.is_some());
        if self.ended {
            assert!(self.machine.status().is_final());
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::BeginTurn(message) => {
                assert!(self.running.is_none(), "one at a time");
                assert!(!self.ended, "nothing begins after the end");
                self.running = Some(message.clone());
                self.begun.push(message);
            }
            Effect::EndTurn(message, end) => {
                assert_eq!(self.running.take().as_ref(), Some(&message));
                if end == TurnEnd::Answered {
                    assert!(self.prompted.contains(&message), "answered without having been asked");
                }
                self.ends.get_mut(&message).unwrap().push(format!("{end:?}"));
                self.last_end = Some(end);
            }
            Effect::Drop(message, why) => self.ends.get_mut(&message).unwrap().push(why.to_owned()),
            Effect::Prompt(message) => {
                assert_eq!(self.running.as_ref(), Some(&message));
                assert!(!self.prompted.contains(&message), "never again once it has begun");
                self.owed.push(Owed::Turn { answered: false });
            }
            Effect::Start | Effect::StartAgain => {
                assert!(!self.owed.contains(&Owed::Start), "one agent at a time");
                assert!(!self.owed.contains(&Owed::Sweep), "not beside one that is being killed");
                self.owed.push(Owed::Start);
            }
            Effect::Sweep => {
                // Whoever is killed says nothing any more.
                self.owed.retain(|owed| !matches!(owed, Owed::Turn { .. }));
                self.owed.push(Owed::Sweep);
            }
            Effect::Settle => {
                assert!(!self.owed.contains(&Owed::Settle));
                self.owed.push(Owed::Settle);
            }
            Effect::Close => {
                // Whoever takes the sandbox away stops making it, and need not sweep it.
                self.owed.retain(|owed| !matches!(owed, Owed::Start | Owed::Sweep));
                self.owed.push(Owed::Close);
            }
            Effect::ArmGrace => self.owed.push(Owed::Grace),
            Effect::Ended(reason) => {
                assert!(!self.ended, "once");
                let done = self.last_end == Some(TurnEnd::Answered);
                assert!(
                    reason != EndReason::Completed || done,
                    "what failed or was stopped is not completed"
                );
                self.ended = true;
            }
            Effect::Interrupt | Effect::CloseLater => {}
        }
    }

    /// Something of what is owed comes, well or badly.
    fn settle_one(&mut self, which: usize, badly: bool) {
        if self.owed.is_empty() {
            return;
        }
        let owed = self.owed.remove(which % self.owed.len());
        let there = !matches!(self.machine.agent(), Agent::Absent | Agent::Sweeping);
        match owed {
            Owed::Start if badly && which.is_multiple_of(2) => self.tell(Input::BrokeTooOften),
            Owed::Start if badly => self.tell(Input::StartFailed),
            Owed::Start => self.tell(Input::Ready),
            Owed::Turn { answered: false } if badly && self.is_unseen() => {
                self.tell(Input::Outdated);
                assert!(!self.works(), "it is not given to this agent");
            }
            Owed::Turn { answered: false } if there => {
                self.owed.push(Owed::Turn { answered: true });
                if let Some(message) = self.running.clone() {
                    self.prompted.insert(message.clone());
                    self.tell(Input::Begun(message));
                }
                self.tell(Input::Answered);
            }
            Owed::Turn { answered: true } if there => self.tell(Input::Idle),
            Owed::Turn { .. } => {}
            Owed::Sweep => self.tell(Input::Swept),
            Owed::Settle => self.tell(Input::Settled),
            Owed::Close => self.tell(Input::Closed),
            Owed::Grace => self.tell(Input::GraceOver),
        }
    }

    /// Whether an agent works, in a sandbox that stays.
    fn works(&self) -> bool {
        self.machine.agent() == Agent::Busy && !self.machine.closing
    }

    /// Whether a prompt is given to an agent that has not begun with it.
    fn is_unseen(&self) -> bool {
        self.machine.turn().is_some_and(|turn| turn.phase == Phase::Running && !turn.begun && !turn.answered)
    }

    fn spontaneous(&mut self, what: u8) {
        let there = matches!(self.machine.agent(), Agent::Idle | Agent::Busy);
        match what {
            0..=6 => {
                self.next += 1;
                let message = format!("m{}", self.next);
                self.tell(Input::Message(message));
            }
            7 => self.tell(Input::Interrupt),
            8 => {
                self.tell(Input::Stop);
                let asked = self.machine.turn().is_some_and(|turn| turn.phase == Phase::Stopping);
                assert!(!self.works() || asked, "nothing goes on that nobody stops");
            }
            9 => {
                self.tell(Input::Kill);
                assert!(!self.works(), "nothing goes on");
            }
            10 if there => {
                self.owed.retain(|owed| !matches!(owed, Owed::Turn { .. }));
                self.tell(Input::Exited { expected: false });
            }
            11 if self.machine.has_sandbox() => {
                self.owed.retain(|owed| !matches!(owed, Owed::Turn { .. } | Owed::Start | Owed::Sweep));
                self.tell(Input::SandboxGone);
            }
            12 => self.tell(Input::Pause(EndReason::BudgetExceeded)),
            13 => self.tell(Input::Unload),
            14 => {
                let last = self.order.last().cloned().unwrap_or_default();
                self.tell(Input::Cancel(last));
            }
            15 => self.tell(Input::End(EndReason::UserRequested)),
            // Something of its own accord, which ends too.
            16 if self.machine.agent() == Agent::Idle => {
                self.owed.push(Owed::Turn { answered: true });
                self.tell(Input::Running);
            }
            17..=18 => self.taken_up(),
            _ => {}
        }
    }

    /// The server dies, and another goes on from what is on record.
    fn taken_up(&mut self) {
        let record = restored(&self.machine);
        let lives = record.is_idle.is_some();
        self.machine = Machine::restore(record);
        // Nothing that was under way comes any more, but from an agent that lives; what is needed is begun again, as
        // `worker/restore.rs` does.
        self.owed.retain(|owed| lives && matches!(owed, Owed::Turn { .. }));
        let phase = self.machine.turn().map(|turn| turn.phase);
        let needed = [
            (Owed::Start, self.machine.agent() == Agent::Starting),
            (Owed::Sweep, self.machine.agent() == Agent::Sweeping),
            (Owed::Settle, phase == Some(Phase::Settling)),
            (Owed::Grace, phase == Some(Phase::Stopping)),
        ];
        self.owed.extend(needed.into_iter().filter(|(_, needed)| *needed).map(|(owed, _)| owed));
        self.tell(Input::Cancel(String::new()));
    }
}

fn patterns() -> impl Strategy<Value = Pattern> {
    prop_oneof![Just(Pattern::Ephemeral), Just(Pattern::LongRunning), Just(Pattern::Hybrid)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_turns_keep_their_order_and_everything_ends(
        pattern in patterns(),
        steps in prop::collection::vec((any::<bool>(), 0u8..40, any::<usize>(), any::<bool>()), 0..80),
    ) {
        let mut world = World::new(pattern);
        for (owed, what, which, badly) in steps {
            if owed {
                world.settle_one(which, badly && what < 10);
            } else {
                world.spontaneous(what);
            }
        }
        // Left alone, every turn comes to its end …
        for _ in 0..1000 {
            world.settle_one(0, false);
        }
        prop_assert!(world.owed.is_empty());
        prop_assert_eq!(world.machine.turn(), None);
        prop_assert_eq!(world.machine.waiting().len(), 0);
        for (message, ends) in &world.ends {
            prop_assert_eq!(ends.len(), 1, "{} ended {:?}", message, ends);
        }
        // … in the order in which the messages came.
        let mut order = world.order.iter();
        for message in &world.begun {
            prop_assert!(order.any(|one| one == message));
        }
        // And the session can always be ended, and then has nothing left.
        world.tell(Input::End(EndReason::UserRequested));
        for _ in 0..1000 {
            world.settle_one(0, false);
        }
        prop_assert!(world.machine.status().is_final());
        prop_assert!(world.machine.is_over(), "{:?}", world.machine);
    }
}

fn run(machine: &mut Machine, inputs: &[Input]) -> Vec<Effect> {
    inputs.iter().flat_map(|input| machine.happened(input.clone())).collect()
}

fn message(name: &str) -> Input {
    Input::Message(name.to_owned())
}

#[test]
fn a_prompt_that_its_agent_cannot_have_is_had_by_another() {
    let mut machine = Machine::new(Pattern::LongRunning);
    assert_eq!(run(&mut machine, &[message("a"), Input::Ready]).last(), Some(&Effect::Prompt("a".into())));
    assert_eq!(machine.happened(Input::Outdated), [Effect::Sweep]);
    assert_eq!(run(&mut machine, &[Input::Swept]), [Effect::Start]);
    assert_eq!(run(&mut machine, &[Input::Ready]), [Effect::Prompt("a".into())]);
    machine.happened(Input::Outdated);
    assert_eq!(machine.happened(Input::SandboxGone), [Effect::Start], "nor has it seen the prompt");
    run(&mut machine, &[Input::Ready, Input::Begun("a".into())]);
    assert_eq!(machine.happened(Input::Outdated), [], "it has begun");
}

#[test]
fn an_ephemeral_session_completes_by_itself() {
    let mut machine = Machine::new(Pattern::Ephemeral);
    let effects =
        run(&mut machine, &[message("a"), Input::Ready, Input::Running, Input::Answered, Input::Idle]);
    assert_eq!(effects[..3], [Effect::BeginTurn("a".into()), Effect::Start, Effect::Prompt("a".into())]);
    assert_eq!(machine.status(), SessionStatus::Active);
    let effects = machine.happened(Input::Settled);
    assert_eq!(
        effects,
        [
            Effect::EndTurn("a".into(), TurnEnd::Answered),
            Effect::Ended(EndReason::Completed),
            Effect::CloseLater
        ]
    );
    assert_eq!(machine.status(), SessionStatus::Completed);
    assert_eq!(machine.happened(Input::End(EndReason::Completed)), [Effect::Close]);
    machine.happened(Input::Closed);
    assert!(machine.is_over());
    assert_eq!(machine.happened(message("b")), [Effect::Drop("b".into(), "session_ended")]);
}

#[test]
fn a_task_that_is_stopped_is_not_completed() {
    for (halt, end) in [
        (&[Input::Interrupt, Input::Answered, Input::Idle][..], TurnEnd::Interrupted),
        (&[Input::Stop, Input::Answered, Input::Idle, Input::Swept][..], TurnEnd::Stopped),
        (&[Input::Kill, Input::Swept][..], TurnEnd::Killed),
    ] {
        let mut machine = Machine::new(Pattern::Ephemeral);
        run(&mut machine, &[message("a"), Input::Ready, Input::Begun("a".into())]);
        run(&mut machine, halt);
        assert_eq!(machine.happened(Input::Settled), [Effect::EndTurn("a".into(), end)]);
        assert_eq!((machine.status(), machine.reason()), (SessionStatus::Idle, None), "{end:?}");
        run(&mut machine, &[message("b"), Input::Ready, Input::Answered, Input::Idle, Input::Settled]);
        assert_eq!(machine.status(), SessionStatus::Completed);
    }
}

#[test]
fn a_long_running_agent_is_had_again_and_the_next_message_goes_on() {
    let mut machine = Machine::new(Pattern::LongRunning);
    run(&mut machine, &[message("a"), message("b"), Input::Ready]);
    assert_eq!(
        run(&mut machine, &[Input::Exited { expected: false }, Input::Swept, Input::Ready]),
        [Effect::Sweep, Effect::StartAgain, Effect::Prompt("a".into())],
        "nobody has seen it: the next agent gets it"
    );
    machine.happened(Input::Begun("a".into()));
    let effects = machine.happened(Input::Exited { expected: false });
    assert_eq!(effects, [Effect::Sweep]);
    assert_eq!(run(&mut machine, &[Input::Swept]), [Effect::Settle, Effect::StartAgain]);
    let effects = machine.happened(Input::Settled);
    assert_eq!(
        effects,
        [Effect::EndTurn("a".into(), TurnEnd::AgentExited), Effect::BeginTurn("b".into())],
        "the turn is not had again, the next waits for the agent"
    );
    assert_eq!(machine.happened(Input::Ready), [Effect::Prompt("b".into())]);
    assert_eq!(machine.happened(Input::BrokeTooOften), [Effect::Settle]);
    machine.happened(Input::Settled);
    assert_eq!((machine.status(), machine.reason()), (SessionStatus::Error, Some(EndReason::Error)));
    assert_eq!(
        machine.happened(message("c")),
        [Effect::BeginTurn("c".into()), Effect::Start],
        "a message tries again"
    );
}

#[test]
fn a_stop_leaves_nothing_running() {
    let mut machine = Machine::new(Pattern::LongRunning);
    run(&mut machine, &[message("a"), Input::Ready]);
    assert_eq!(machine.happened(Input::Stop), [Effect::Interrupt, Effect::ArmGrace]);
    assert_eq!(machine.happened(Input::Idle), [], "idle from before the prompt");
    assert_eq!(run(&mut machine, &[Input::Answered, Input::Idle]), [Effect::Sweep]);
    assert_eq!(run(&mut machine, &[Input::Swept]), [Effect::Settle]);
    assert_eq!(machine.happened(Input::Settled), [Effect::EndTurn("a".into(), TurnEnd::Stopped)]);
    assert_eq!(machine.status(), SessionStatus::Idle);

    run(&mut machine, &[message("b"), Input::Ready, Input::Stop]);
    assert_eq!(machine.happened(Input::GraceOver), [Effect::Sweep], "it did not listen");
    run(&mut machine, &[Input::Swept]);
    assert_eq!(machine.happened(Input::Settled), [Effect::EndTurn("b".into(), TurnEnd::Killed)]);
}

#[test]
fn an_agent_that_could_not_begin_leaves_the_turn_to_another() {
    let mut machine = Machine::new(Pattern::Ephemeral);
    run(&mut machine, &[message("a"), Input::Ready]);
    assert_eq!(
        machine.happened(Input::Exited { expected: true }),
        [Effect::Start],
        "it did not take the claim"
    );
    assert_eq!(machine.happened(Input::Ready), [Effect::Prompt("a".into())]);
    machine.happened(Input::Begun("a".into()));
    assert_eq!(machine.happened(Input::Exited { expected: true }), [Effect::Settle]);
}

#[test]
fn a_command_that_ends_when_it_is_stopped_leaves_nothing_behind_and_is_not_had_again() {
    let mut machine = Machine::new(Pattern::LongRunning);
    run(&mut machine, &[message("a"), Input::Ready, Input::Begun("a".into()), Input::Stop]);
    assert_eq!(machine.happened(Input::Exited { expected: true }), [Effect::Sweep]);
    assert_eq!(run(&mut machine, &[Input::Swept]), [Effect::Settle]);
    assert_eq!(machine.happened(Input::Settled), [Effect::EndTurn("a".into(), TurnEnd::Stopped)]);
}

#[test]
fn a_limit_that_the_task_failed_on_is_no_completion() {
    let mut machine = Machine::new(Pattern::Ephemeral);
    let answered = [message("a"), Input::Ready, Input::Running, Input::Answered, Input::Idle];
    run(&mut machine, &answered);
    assert!(machine.is_last_turn(), "a limit that is reached with the answer ends nothing");
    let effects = run(&mut machine, &[Input::Pause(EndReason::BudgetExceeded), Input::Settled]);
    assert_eq!(effects, [Effect::EndTurn("a".into(), TurnEnd::Answered)]);
    assert_eq!((machine.status(), machine.reason()), (SessionStatus::Idle, Some(EndReason::BudgetExceeded)));
    // The limit is raised, and it goes on.
    run(&mut machine, &[message("b"), Input::Answered, Input::Idle, Input::Settled]);
    assert_eq!(machine.status(), SessionStatus::Completed);
}

#[test]
fn a_task_whose_agent_never_starts_is_not_completed() {
    // At its start, and in the middle of it.
    for ends in [&[][..], &[Input::Ready, Input::Begun("a".into())]] {
        let mut machine = Machine::new(Pattern::Ephemeral);
        machine.happened(message("a"));
        run(&mut machine, ends);
        run(&mut machine, &[Input::Exited { expected: false }, Input::Swept, Input::Settled]);
        assert_eq!((machine.status(), machine.reason()), (SessionStatus::Error, Some(EndReason::Error)));
        assert_eq!(
            run(&mut machine, &[message("b")])[0],
            Effect::BeginTurn("b".into()),
            "a message tries again"
        );
    }
    let mut machine = Machine::new(Pattern::Ephemeral);
    run(&mut machine, &[message("a"), Input::Ready, Input::Exited { expected: false }, Input::Swept]);
    // Whoever takes it up meanwhile knows that too.
    assert_eq!(machine.happened(Input::BrokeTooOften), [Effect::Settle]);
    let mut machine = Machine::restore(restored(&machine));
    assert_eq!(
        machine.happened(Input::Settled),
        [Effect::EndTurn("a".into(), TurnEnd::AgentExited)],
        "no completion"
    );
    assert_eq!((machine.status(), machine.reason()), (SessionStatus::Error, Some(EndReason::Error)));
}

/// A machine as the store has it, for another.
fn restored(machine: &Machine) -> Restored {
    Restored {
        pattern: machine.pattern,
        status: machine.status(),
        reason: machine.reason(),
        environment: machine.environment(),
        turn: machine.turn.clone(),
        waiting: machine.waiting.clone(),
        is_idle: matches!(machine.agent(), Agent::Idle | Agent::Busy).then(|| machine.agent() == Agent::Idle),
    }
}

#[test]
fn what_is_stopped_while_its_cost_is_counted_is_stopped() {
    for halt in [Input::Stop, Input::Kill] {
        let mut machine = Machine::new(Pattern::LongRunning);
        run(&mut machine, &[message("a"), message("b"), Input::Ready, Input::Answered, Input::Idle]);
        // It goes on by itself, or something that it left does.
        assert_eq!(run(&mut machine, &[Input::Running, halt]), [Effect::Sweep]);
        let effects = machine.happened(Input::Settled);
        assert_eq!(effects, [Effect::EndTurn("a".into(), TurnEnd::Answered)], "nothing begins meanwhile");
        assert_eq!(run(&mut machine, &[Input::Swept]), [Effect::BeginTurn("b".into()), Effect::Start]);
    }
}

#[test]
fn what_an_agent_does_by_itself_is_stopped_with_the_message_that_waits_for_it() {
    for (halt, end) in [(Input::Stop, TurnEnd::Stopped), (Input::Kill, TurnEnd::Killed)] {
        let mut machine = Machine::new(Pattern::LongRunning);
        let answered = [message("a"), Input::Ready, Input::Answered, Input::Idle, Input::Settled];
        run(&mut machine, &answered);
        assert_eq!(run(&mut machine, &[Input::Running, message("b")]), [Effect::BeginTurn("b".into())]);
        assert_eq!(machine.happened(halt), [Effect::Settle, Effect::Sweep]);
        assert_eq!(machine.happened(Input::Settled), [Effect::EndTurn("b".into(), end)]);
        assert_eq!((machine.happened(Input::Swept), machine.agent()), (vec![], Agent::Absent));
    }
    // So does a limit that the session stands still for.
    let mut machine = Machine::new(Pattern::LongRunning);
    run(&mut machine, &[message("a"), Input::Ready, Input::Answered, Input::Idle, Input::Settled]);
    let pause = Input::Pause(EndReason::MaxTurns);
    assert_eq!(run(&mut machine, &[Input::Running, pause]), [Effect::Sweep]);
    machine.happened(Input::Swept);
    assert_eq!((machine.status(), machine.reason()), (SessionStatus::Idle, Some(EndReason::MaxTurns)));
}

#[test]
fn who_interrupts_again_is_heard_again_and_takes_no_stop_back() {
    let mut machine = Machine::new(Pattern::LongRunning);
    run(&mut machine, &[message("a"), Input::Ready]);
    let interrupts = [Input::Interrupt, Input::Interrupt];
    assert_eq!(run(&mut machine, &interrupts), [Effect::Interrupt, Effect::Interrupt]);
    assert_eq!(machine.happened(Input::Stop), [Effect::Interrupt, Effect::ArmGrace]);
    assert_eq!(run(&mut machine, &[Input::Interrupt, Input::Stop]), []);
    assert_eq!(run(&mut machine, &[Input::Answered, Input::Idle]), [Effect::Sweep]);
}
