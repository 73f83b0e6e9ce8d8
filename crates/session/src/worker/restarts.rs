//! When an agent is started, and how often again.

use super::Worker;
use super::start::Start;
use crate::event::EventKind;
use crate::machine::Input;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often an agent is started again without a turn that went well, however slowly it ends.
const MOST_RESTARTS: usize = 10;
/// How long the second of those waits; each after it twice as long, up to the last.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl Worker {
    /// Has a sandbox and an agent made, by a new attempt.
    pub(super) fn start(&mut self) {
        self.start_after(Duration::ZERO);
    }

    fn start_after(&mut self, pause: Duration) {
        self.agent.attempt += 1;
        self.draft.agent = true;
        self.epoch += 1;
        let epoch = self.epoch;
        if pause.is_zero() {
            self.when_durable(move |worker| worker.begin_start(epoch));
        } else {
            self.start_at = Some((Instant::now() + pause, epoch));
        }
    }

    /// Who was to start it later starts it now.
    pub(super) fn start_now(&mut self) {
        if let Some((_, epoch)) = self.start_at.take() {
            self.when_durable(move |worker| worker.begin_start(epoch));
        }
    }

    /// Has a sandbox and an agent made. Doing it again with the same attempt finds what was made before.
    pub(super) fn begin_start(&mut self, epoch: u64) {
        if epoch != self.epoch || self.close_after_start {
            return;
        }
        let cancel = CancellationToken::new();
        self.starting = Some(cancel.clone());
        let start = Start {
            shared: Arc::clone(&self.shared),
            session: self.session.clone(),
            agent: self.agent.clone(),
            epoch,
            progress: self.reports.clone(),
            cancel,
        };
        self.jobs.spawn(start.run());
    }

    /// The agent has ended by itself: it is started again, later each time, or given up.
    pub(super) fn start_again(&mut self) {
        let (most, window) = self.shared.config.restarts;
        let now = Instant::now();
        let times = self.restarts.len();
        let of_late = self.restarts.iter().filter(|at| now.duration_since(**at) < window).count();
        let message = if of_late >= usize::try_from(most).unwrap_or(usize::MAX) {
            Some(format!("the agent ended {} times within {} s", of_late + 1, window.as_secs()))
        } else {
            let is_hopeless = times >= MOST_RESTARTS.max(usize::try_from(most).unwrap_or(0));
            is_hopeless.then(|| format!("the agent ended {} times, and no turn went well", times + 1))
        };
        if let Some(message) = message {
            // Whoever sends a message has it tried again as often.
            self.restarts.clear();
            self.session.reason_message = Some(message.clone());
            self.journal(EventKind::Error, &json!({ "code": "agent_broke", "message": message }));
            // Before its turn ends, so that this is why the session stands still then.
            return self.inputs.push_front(Input::BrokeTooOften);
        }
        self.restarts.push_back(now);
        self.session.environment.restarts += 1;
        // The first is at once: whatever ended it is likely to be over.
        let doubled = times.checked_sub(1).map(|times| 1 << times.min(16));
        let pause = doubled.map_or(Duration::ZERO, |times: u32| RESTART_PAUSE.0.saturating_mul(times));
        self.start_after(pause.min(RESTART_PAUSE.1));
    }
}
