//! The machine that runs the daemon.

use crate::model::Weakness;
use jiff::Timestamp;
use serde::Serialize;

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// Its host name.
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// When the daemon was started.
    pub start_time: Option<Timestamp>,
    /// How long it has been up, in seconds.
    pub uptime_seconds: f64,
    /// Whether it takes no new sandboxes.
    pub draining: bool,
    /// The kernel.
    pub kernel_version: String,
    /// The processor architecture.
    pub architecture: String,
    /// What it has and what of it is taken.
    pub capacity: Capacity,
    /// What isolation it gives.
    pub isolation: Vec<IsolationFact>,
    /// Its backends.
    pub backends: Vec<BackendInfo>,
}

/// What a node has and what of it is taken, by the limits of the sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Cores × 1000.
    pub cpu_millis: u32,
    /// Taken of it.
    pub cpu_millis_taken: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Taken of it, in bytes.
    pub memory_bytes_taken: u64,
    /// Room for files, in bytes.
    pub disk_bytes: u64,
    /// Taken of it, in bytes.
    pub disk_bytes_taken: u64,
    /// Most sandboxes at a time.
    pub sandboxes: u32,
    /// Sandboxes now.
    pub sandboxes_taken: u32,
}

/// Whether a feature of isolation is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IsolationFact {
    /// Its name.
    pub feature: String,
    /// Whether sandboxes have it.
    pub available: bool,
    /// How it is done, or why not.
    pub detail: String,
    /// What would make it available; may be empty.
    pub fix: String,
}

/// Whether a backend can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendHealth {
    /// The daemon did not say.
    Unknown,
    /// It can.
    Healthy,
    /// It can, with something amiss.
    Degraded,
    /// It cannot.
    Unavailable,
}

/// What provides sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendInfo {
    /// Its name.
    pub name: String,
    /// Whether it is used when none is named.
    pub is_default: bool,
    /// Whether it can be used.
    pub health: BackendHealth,
    /// Why not.
    pub detail: String,
    /// What its sandboxes can do here.
    pub capabilities: Vec<String>,
    /// What they cannot, and why.
    pub missing: Vec<Weakness>,
    /// The template used when none is named.
    pub default_template: String,
    /// Its sandboxes.
    pub sandbox_count: u32,
}

/// What the doctor found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DoctorStatus {
    /// All is well.
    Ok,
    /// It works, but something is weaker or slower than it could be.
    Warn,
    /// Something does not work.
    Fail,
}

/// One thing that the doctor looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorCheck {
    /// What it looked at.
    pub name: String,
    /// What it found.
    pub status: DoctorStatus,
    /// The finding.
    pub detail: String,
    /// What would mend it; may be empty.
    pub fix: String,
}
