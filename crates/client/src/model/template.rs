//! Templates.

use hostel_sandbox::{ResourceLimits, TemplateId};
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
    /// Backends that can use it.
    pub backends: Vec<String>,
    /// What its own files take, in bytes.
    pub size_bytes: Option<u64>,
    /// Limits of sandboxes made from it unless asked otherwise.
    pub limits: ResourceLimits,
    /// Environment of sandboxes made from it.
    pub env: BTreeMap<String, String>,
    /// When it was made.
    pub create_time: Option<Timestamp>,
    /// Sandboxes made from it that have not ended.
    pub sandbox_count: u32,
}
