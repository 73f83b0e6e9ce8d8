//! Templates.

use hostel_sandbox::template::{Probe, TemplateCommand};
use hostel_sandbox::{NetworkPolicy, ResourceLimits, TemplateId};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// Where the files of a template came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateOrigin {
    /// The node's own `/usr`.
    Host,
    /// An archive or directory.
    Import,
    /// A sandbox.
    Snapshot,
    /// Commands on top of another template.
    Build,
    /// A file of the node's configuration.
    Declared,
}

/// A named recipe for sandboxes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Template {
    /// Its name.
    pub name: TemplateId,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where its files came from.
    pub origin: Option<TemplateOrigin>,
    /// The template that it is built on.
    pub base_template: Option<String>,
    /// The sandbox that it is a snapshot of.
    pub source_sandbox_id: Option<String>,
    /// The container image that it is made of.
    pub image: Option<String>,
    /// The file on the node that declares it.
    pub declared_in: Option<String>,
    /// Backends that can use it.
    pub backends: Vec<String>,
    /// What its own files take, in bytes.
    pub size_bytes: Option<u64>,
    /// Limits of sandboxes made from it unless asked otherwise.
    pub limits: ResourceLimits,
    /// The most that those may be.
    pub max_limits: ResourceLimits,
    /// Environment of sandboxes made from it.
    pub env: BTreeMap<String, String>,
    /// User that their processes run as.
    pub user: Option<String>,
    /// Directory that their processes start in.
    pub working_directory: Option<String>,
    /// What they may reach.
    pub network: Option<NetworkPolicy>,
    /// What is run in them before they are ready.
    pub start_commands: Vec<TemplateCommand>,
    /// How to find out that they are.
    pub readiness_probe: Option<Probe>,
    /// When it was made.
    pub create_time: Option<Timestamp>,
    /// Sandboxes made from it that have not ended.
    pub sandbox_count: u32,
}
