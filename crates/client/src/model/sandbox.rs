//! Sandboxes, their changes and their use of resources.

use hostel_sandbox::{
    BackendName, ModelAccess, NetworkPolicy, ResourceLimits, SandboxId, SandboxState, SecretRef, TemplateId,
};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// A sandbox as it was when the daemon told about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// The backend that provides it.
    pub backend: BackendName,
    /// The template that it was made from.
    pub template: TemplateId,
    /// Where it is in its life.
    pub state: SandboxState,
    /// What brought it there.
    pub last_transition: Option<Transition>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The limits in force; what is absent is not limited.
    pub limits: ResourceLimits,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// The user that processes run as by default. Empty: the backend's.
    pub user: String,
    /// The directory that processes start in by default.
    pub working_directory: String,
    /// What it may reach.
    pub network: NetworkPolicy,
    /// Secrets it may use without holding them.
    pub secrets: Vec<SecretRef>,
    /// Its way to a model.
    pub model: Option<ModelAccess>,
    /// When it was asked for.
    pub create_time: Option<Timestamp>,
    /// When it first was ready.
    pub ready_time: Option<Timestamp>,
    /// When it is stopped.
    pub expire_time: Option<Timestamp>,
    /// How long it may be idle, in seconds.
    pub idle_timeout_seconds: Option<f64>,
    /// Where this host gives less isolation than by default.
    pub weaknesses: Vec<Weakness>,
    /// The sandbox that it was forked from.
    pub parent_id: Option<String>,
    /// Whether it was made on demand or claimed from a pool.
    pub start_kind: StartKind,
    /// The pool that it was claimed from.
    pub pool: Option<String>,
}

/// How a sandbox came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// Made on demand.
    Cold,
    /// Claimed ready from a pool.
    Warm,
}

impl StartKind {
    /// As JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// A new sandbox, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CreatedSandbox {
    /// The sandbox, ready for processes and files.
    #[serde(flatten)]
    pub sandbox: Sandbox,
    /// The steps of making it, in order. Empty when an earlier call with the same `request_id` made it.
    pub stages: Vec<Stage>,
}

/// One step of making a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Its name. Which there are depends on the backend.
    pub name: String,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Why, by whom and when a state was entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// One word for programs.
    pub reason: String,
    /// One sentence for people; may be empty.
    pub detail: String,
    /// Who.
    pub actor: String,
    /// When.
    pub time: Option<Timestamp>,
}

/// Something that a host does not give, or gives weaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Weakness {
    /// The capability.
    pub capability: String,
    /// What is weaker, why, and what would make it whole.
    pub detail: String,
}

/// Some of the sandboxes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SandboxPage {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Where to watch from so that no change after this listing is missed.
    pub cursor: String,
}

/// What happened to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxChange {
    /// It was asked for.
    Created,
    /// Its state changed.
    StateChanged,
    /// Something else of it changed.
    Updated,
    /// Its record is gone.
    Deleted,
}

/// A change of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SandboxEvent {
    /// Watch from here to go on after this event.
    pub cursor: String,
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// What happened.
    pub kind: SandboxChange,
    /// The state before, except for `created`.
    pub old_state: Option<SandboxState>,
    /// The state after.
    pub new_state: Option<SandboxState>,
    /// Why.
    pub reason: String,
    /// By whom.
    pub actor: String,
    /// When.
    pub time: Option<Timestamp>,
}

/// How one of several forks went.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForkOutcome {
    /// The new sandbox.
    Sandbox(Box<Sandbox>),
    /// Why there is none.
    Failure {
        /// The reason for programs.
        reason: String,
        /// One sentence for people.
        message: String,
    },
}

/// What a sandbox uses, at one moment. What is absent this host cannot tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SandboxStats {
    /// When it was measured.
    pub time: Option<Timestamp>,
    /// Processor time used so far, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Time held back by the processor limit, in seconds.
    pub cpu_throttled_seconds: Option<f64>,
    /// Memory in use, page cache included, in bytes.
    pub memory_bytes: Option<u64>,
    /// Most memory ever in use, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Its limit, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Processes that the kernel ended for want of memory.
    pub oom_kills: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Their limit.
    pub pids_limit: Option<u64>,
    /// Space that its own files take, in bytes.
    pub disk_bytes: Option<u64>,
    /// Its limit, in bytes.
    pub disk_limit_bytes: Option<u64>,
    /// Files of its own.
    pub disk_inodes: Option<u64>,
    /// Their limit.
    pub disk_inodes_limit: Option<u64>,
    /// Bytes read from block devices.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub io_write_bytes: Option<u64>,
}
