//! A worker that goes on where another was.

use super::close::Mirroring;
use super::meaning::input_size;
use super::{Command, PROGRESS, Worker};
use crate::bus::EventBus;
use crate::local::Shared;
use crate::machine::{Agent, Input, Machine, Phase, Restored, Turn, TurnEnd};
use crate::message::{Message, MessageState};
use crate::session::{Session, TurnPhase};
use crate::store::StoredSession;
use hostel_agent::AgentDriver;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many events are looked through for deltas of blocks that are not complete, and how many at a time.
const MOST_RECALLED: u64 = 50_000;
const RECALLED: usize = 1000;

impl Worker {
    /// One that has what the store has.
    pub(crate) fn new(
        shared: Arc<Shared>,
        bus: Arc<EventBus>,
        view: watch::Sender<Arc<Session>>,
        mailbox: mpsc::Receiver<Command>,
        leaving: CancellationToken,
        stored: StoredSession,
    ) -> Self {
        let StoredSession { session, generation, mut agents, queue, questions } = stored;
        let agent = agents.pop().unwrap_or_else(crate::store::AgentState::main);
        let driver = agent.process_id.as_ref().and_then(|_| match session.config.agent.restore(&agent.driver) {
            Ok(driver) => Some(driver),
            Err(error) => {
                tracing::error!(session = %session.id, %error, "a session's agent cannot be followed any more");
                None
            }
        });
        let machine = Machine::restore(restored(&session, driver.as_deref(), &queue));
        let (reports, progress) = mpsc::channel(PROGRESS);
        let stop_grace = shared.config.stop_grace;
        let durable_input = agent.input_offset + u64::try_from(agent.input.len()).unwrap_or(0);
        Self {
            id: session.id.clone(),
            keyed: queue
                .iter()
                .filter_map(|one| Some((one.idempotency_key.clone()?, one.id.clone())))
                .collect(),
            shared,
            bus,
            view,
            mailbox,
            leaving,
            generation,
            session,
            machine,
            mirroring: Mirroring::of(&agent),
            messages: queue,
            asked: questions.iter().map(|one| input_size(&one.input)).sum(),
            questions,
            answers: 0,
            agent,
            driver,
            durable_input,
            commits_made: 0,
            stop_grace,
            link: None,
            epoch: 0,
            attachments: 0,
            starting: None,
            close_after_start: false,
            draft: Default::default(),
            deltas: Default::default(),
            files: Default::default(),
            inputs: VecDeque::new(),
            committing: None,
            jobs: JoinSet::new(),
            reports,
            progress,
            waiters: Vec::new(),
            grace: None,
            close_at: None,
            restarts: VecDeque::new(),
            start_at: None,
            bounds: Default::default(),
            counting: Default::default(),
            tools: Default::default(),
            model_calls: Default::default(),
            has_swept: false,
            resists: false,
            unloading: false,
            cut_off: None,
        }
    }

    /// Finds the deltas of blocks that are not complete, so that they are forgotten when they are, whoever wrote them;
    /// and how often the model was asked in the turn that runs, or in what the agent does of its own accord.
    pub(super) async fn recall_turn(&mut self) {
        let Some(driver) = &self.driver else { return };
        let active = self.session.active_turn.as_ref();
        if active.is_none() && driver.is_idle() {
            return;
        }
        let message = active.and_then(|turn| self.messages.iter().find(|one| one.id == turn.message_id));
        let began = message.map_or(0, |one| one.seq);
        let mut after = began.max(self.session.last_event.saturating_sub(MOST_RECALLED));
        loop {
            let events = match self.shared.store.events(&self.id, after, RECALLED).await {
                Ok(events) => events,
                Err(error) => {
                    // They stay: that costs room, and nothing else.
                    tracing::warn!(session = %self.id, %error, "parts of what an agent said are kept twice, and its turn may be longer");
                    return self.deltas.clear();
                }
            };
            let Some(last) = events.last() else { return };
            after = last.seq;
            for event in events {
                self.deltas.recall(&event);
                self.model_calls.recall(&event);
            }
        }
    }

    /// Takes up what was going on.
    pub(super) fn begin(&mut self) {
        match self.machine.agent() {
            Agent::Starting if self.driver.is_none() => {
                self.epoch += 1;
                let epoch = self.epoch;
                self.begin_start(epoch);
            }
            Agent::Sweeping => {
                // What it said before it died is still to be had.
                if self.driver.is_some() {
                    self.begin_attach(Duration::ZERO);
                }
                self.sweep(self.epoch, Duration::ZERO);
            }
            _ if self.driver.is_some() => self.begin_attach(Duration::ZERO),
            _ => {}
        }
        if self.machine.turn().is_some_and(|turn| turn.phase == Phase::Settling) {
            self.settle();
        }
        let turn = self.machine.turn();
        if turn.is_some_and(|turn| turn.phase == Phase::Stopping) {
            self.grace = Some(Instant::now() + self.stop_grace);
        }
        // It may have been idle already, with the end of the turn not yet on record.
        if turn.is_some_and(|turn| turn.answered)
            && self.driver.as_ref().is_some_and(|driver| driver.is_idle())
        {
            self.inputs.push_back(Input::Idle);
        }
        let turn_is_over = turn.is_none();
        // Whoever was here before may not have come to tell it.
        self.follow_bounds();
        if turn_is_over {
            self.mirror();
        }
        if self.session.status.is_final() && self.machine.has_sandbox() {
            // A minute from its end, however often the server begins anew.
            let ended = self.session.completed_at.or(self.session.terminated_at).unwrap_or_default();
            let passed = crate::clock::now().duration_since(ended);
            let passed = Duration::try_from(passed).unwrap_or_default();
            self.close_at =
                Some(Instant::now() + self.shared.config.ephemeral_retention.saturating_sub(passed));
        }
        // Nothing: but what follows from where things are is done.
        self.happened(Input::Cancel(String::new()));
    }
}

/// What the machine was, from what is on record.
fn restored(session: &Session, driver: Option<&dyn AgentDriver>, queue: &[Message]) -> Restored {
    let turn = session.active_turn.as_ref().map(|active| {
        let phase = match active.phase {
            TurnPhase::Starting => Phase::Starting,
            TurnPhase::Running => Phase::Running,
            TurnPhase::Interrupting => Phase::Interrupting,
            TurnPhase::Stopping => Phase::Stopping,
            TurnPhase::Killing => Phase::Killing,
            TurnPhase::Settling => Phase::Settling,
        };
        let end = active.end.as_deref().map_or(TurnEnd::Answered, TurnEnd::from_word);
        let (message, begun) = (active.message_id.clone(), active.begun);
        Turn { message, phase, begun, lost: 0, answered: active.answered, end }
    });
    Restored {
        pattern: session.pattern,
        status: session.status,
        reason: session.reason,
        environment: session.environment.status,
        turn,
        waiting: queue
            .iter()
            .filter(|message| message.state == MessageState::Queued)
            .map(|message| message.id.clone())
            .collect(),
        is_idle: driver.map(|driver| driver.is_idle()),
    }
}
