//! What the daemon keeps of each sandbox, and of each change of one.

use hostel_pool::{PoolName, PoolSpec};
use hostel_sandbox::label::Labels;
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{
    BackendName, ResourceLimits, SandboxId, SandboxSpec, SandboxState, TemplateId, Transition, Weakness,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The durable record of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub id: SandboxId,
    pub backend: BackendName,
    /// The limits that the caller asked for, without anybody's defaults.
    pub requested_limits: ResourceLimits,
    /// What the backend was given: template and node defaults filled in.
    pub spec: SandboxSpec,
    /// The limits in force.
    pub limits: ResourceLimits,
    pub weaknesses: Vec<Weakness>,
    pub transition: Transition,
    /// One sentence about the transition for people; may be empty.
    pub detail: String,
    pub created: SystemTime,
    pub ready: Option<SystemTime>,
    pub updated: SystemTime,
    /// When it is stopped; absolute, so that it holds across restarts.
    pub expires: Option<SystemTime>,
    pub parent: Option<SandboxId>,
    /// The template that its newest snapshot made.
    pub snapshot: Option<TemplateId>,
    /// The pool that it was claimed from.
    #[serde(default)]
    pub pool: Option<PoolName>,
    /// What the backend knows it by, where that is not its id: it was warm before somebody claimed it under an id
    /// of their choice.
    #[serde(default)]
    pub backend_id: Option<SandboxId>,
}

/// The durable record of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PoolRecord {
    pub name: PoolName,
    pub spec: PoolSpec,
    /// What is started in each warm sandbox, so that it waits ready at the claim.
    #[serde(default)]
    pub warm_process: Option<ProcessSpec>,
    /// How often what it makes changed, and from what the newest is made.
    #[serde(default)]
    pub generation: u64,
    #[serde(default)]
    pub made_from: String,
    /// The declaration that was applied last, so that what ops tune live stays until the file changes.
    #[serde(default)]
    pub declared: String,
    pub created: SystemTime,
    pub updated: SystemTime,
}

/// The durable record of a warm sandbox, which nobody has claimed yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WarmRecord {
    pub id: SandboxId,
    pub pool: PoolName,
    pub backend: BackendName,
    /// What it was made from, see [`hostel_pool::Pool::new_generation`].
    pub generation: u64,
    /// What the backend was given.
    pub spec: SandboxSpec,
    pub limits: ResourceLimits,
    pub weaknesses: Vec<Weakness>,
    pub made: SystemTime,
}

impl SandboxRecord {
    pub(crate) fn state(&self) -> SandboxState {
        self.transition.state
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.spec.labels
    }

    /// What the backend knows it by.
    pub(crate) fn backend_id(&self) -> &SandboxId {
        self.backend_id.as_ref().unwrap_or(&self.id)
    }

    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.spec.idle_timeout
    }

    /// Moves to another state at this moment.
    pub(crate) fn enter(&mut self, state: SandboxState, reason: &str, actor: &str, detail: String) {
        let time = SystemTime::now();
        self.transition = Transition { state, reason: reason.to_owned(), actor: actor.to_owned(), time };
        self.detail = detail;
        self.updated = time;
    }
}

/// What happened to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventKind {
    Created,
    StateChanged,
    Updated,
    Deleted,
}

/// Where an event stands in the node's order; 0 is before the first.
pub(crate) type Cursor = u64;

/// One change of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Given by the store when it is committed; 0 before.
    #[serde(skip)]
    pub cursor: Cursor,
    pub kind: EventKind,
    pub sandbox: SandboxId,
    pub old_state: Option<SandboxState>,
    /// The state after, with reason, actor and time of the change.
    pub transition: Transition,
    /// Labels at the time, for watchers that select.
    pub labels: Labels,
}

impl Event {
    /// The event that brings `new` about.
    pub(crate) fn of(kind: EventKind, old_state: Option<SandboxState>, new: &SandboxRecord) -> Self {
        Self {
            cursor: 0,
            kind,
            sandbox: new.id.clone(),
            old_state,
            transition: new.transition.clone(),
            labels: new.labels().clone(),
        }
    }

    /// A change that is not one of state.
    pub(crate) fn other(kind: EventKind, record: &SandboxRecord, reason: &str, actor: &str) -> Self {
        let mut event = Self::of(kind, Some(record.state()), record);
        event.transition = Transition {
            state: record.state(),
            reason: reason.to_owned(),
            actor: actor.to_owned(),
            time: SystemTime::now(),
        };
        event
    }
}
