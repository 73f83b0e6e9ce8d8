//! Tool results are mirrored after turns, and before a sandbox is given up.

use super::Worker;
use super::jobs;
use super::tool_results::{Known, Mirror, Mirrored, Restored};
use crate::event::EventKind;
use crate::machine::Input;
use crate::store::AgentState;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How the mirror of the agent's tool results is.
pub(super) struct Mirroring {
    /// What is mirrored of what is in the sandbox; `None` where that is to be looked up.
    known: Option<Known>,
    /// The agent may have kept more since it was last looked.
    is_behind: bool,
    /// Where it has when that was mirrored, it is looked once more: not again and again, while it goes on to write.
    follows: bool,
    /// Mirroring is under way, and can be told to hurry.
    running: Option<CancellationToken>,
    /// The sandbox is given up when that has ended.
    closes: bool,
    /// What could not be mirrored was told.
    told: bool,
}

impl Mirroring {
    /// Of an agent whose files nobody has looked at yet.
    pub(super) fn of(agent: &AgentState) -> Self {
        let is_behind = agent.sandbox_id.is_some();
        Self { known: None, is_behind, follows: false, running: None, closes: false, told: false }
    }

    /// The agent wrote to a transcript, and may have kept what it names there.
    pub(super) fn fall_behind(&mut self) {
        self.is_behind = true;
    }
}

impl Worker {
    /// Begins to mirror what the agent keeps beside its transcripts, where there may be something new.
    pub(super) fn mirror(&mut self) {
        self.mirroring.follows = true;
        self.mirror_once();
    }

    fn mirror_once(&mut self) {
        let Some(sandbox) = self.agent.sandbox_id.clone() else { return };
        let conversation = self.session.session_id.clone();
        let nothing = !self.mirroring.is_behind || conversation.is_empty();
        if nothing || self.mirroring.running.is_some() {
            return;
        }
        self.mirroring.is_behind = false;
        let hurry = CancellationToken::new();
        self.mirroring.running = Some(hurry.clone());
        let most = self.shared.config.max_session_bytes.unwrap_or(u64::MAX);
        let mirror = Mirror {
            shared: Arc::clone(&self.shared),
            session: self.id.clone(),
            conversation,
            sandbox,
            known: self.mirroring.known.clone(),
            room: most.saturating_sub(self.agent.journaled),
            hurry,
        };
        self.jobs.spawn(mirror.run(self.epoch));
    }

    pub(super) fn mirrored(&mut self, epoch: u64, mirrored: Mirrored) {
        let Mirrored { known, grown, problem, again } = mirrored;
        // By now there may be another sandbox, of whose files more is known.
        if epoch == self.epoch {
            self.mirroring.known = known;
        }
        if grown != 0 {
            self.agent.journaled = self.agent.journaled.saturating_add_signed(grown);
            self.draft.agent = true;
        }
        if let Some(problem) = problem {
            tracing::warn!(session = %self.id, problem, again, "tool results of a session are not kept");
            if !std::mem::replace(&mut self.mirroring.told, true) {
                let what = if again { "; it is tried again after the next turn" } else { "" };
                let message = format!("tool results of the agent are not kept: {problem}{what}");
                self.journal(EventKind::Log, &json!({ "level": "warn", "message": message }));
            }
        }
        self.mirroring.running = None;
        if std::mem::take(&mut self.mirroring.closes) {
            self.begin_close(Duration::ZERO);
        } else if !again && self.machine.turn().is_none() && std::mem::take(&mut self.mirroring.follows) {
            self.mirror_once();
        }
        self.mirroring.is_behind |= again;
    }

    /// Tool results were put into a new sandbox.
    pub(super) fn restored(&mut self, restored: Restored) {
        self.mirroring.known = restored.known;
        if let Some(problem) = restored.problem {
            let message = format!(
                "files with output of tools, which the conversation names, could not be brought back: {problem}"
            );
            self.journal(EventKind::Log, &json!({ "level": "warn", "message": message }));
        }
    }

    /// Gives the sandbox up.
    pub(super) fn close(&mut self) {
        self.close_at = None;
        self.lose_process();
        if let Some(starting) = &self.starting {
            self.close_after_start = true;
            starting.cancel();
        } else {
            self.epoch += 1;
            self.when_durable(Self::close_when_mirrored);
        }
    }

    /// Has the sandbox taken away when what is in it is mirrored, which has some seconds for that.
    pub(super) fn close_when_mirrored(&mut self) {
        self.mirror();
        match &self.mirroring.running {
            Some(hurry) => {
                hurry.cancel();
                self.mirroring.closes = true;
            }
            None => self.begin_close(Duration::ZERO),
        }
    }

    fn begin_close(&mut self, pause: Duration) {
        let (shared, id, since) = (Arc::clone(&self.shared), self.id.clone(), self.session.created_at);
        self.jobs.spawn(async move {
            tokio::time::sleep(pause).await;
            jobs::close(shared, id, since).await
        });
    }

    pub(super) fn closed(&mut self, closed: crate::error::Result<Option<u64>>) {
        let spent = match closed {
            Ok(spent) => spent,
            Err(error) => {
                tracing::warn!(session = %self.id, %error, "the sandbox of a session could not be removed; it is tried again");
                return self.begin_close(super::effects::PAUSE);
            }
        };
        // Also what no turn ended with.
        self.note_spent(spent);
        self.agent.sandbox_id = None;
        self.session.environment.sandbox_id = None;
        self.has_swept = false;
        self.resists = false;
        self.draft.agent = true;
        self.answer_unloaded();
        self.happened(Input::Closed);
        self.check_limits();
    }
}
