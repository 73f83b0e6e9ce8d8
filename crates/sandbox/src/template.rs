//! Templates: named recipes for sandboxes.

use crate::id::TemplateId;
use crate::label::Labels;
use crate::limits::ResourceLimits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Where a template's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TemplateSource {
    /// The host's `/usr`, read-only, and a generated minimal `/etc`.
    Host,
    /// A root file system that was imported.
    Imported,
    /// An image of a container engine, by any name that the engine knows it by.
    Image {
        /// `debian:bookworm-slim`, `name@sha256:…`.
        reference: String,
    },
    /// Files of a sandbox, on top of the template it was made from.
    Snapshot {
        /// The template below.
        base: TemplateId,
    },
}

/// A template as a backend keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub id: TemplateId,
    /// Where its files come from.
    pub source: TemplateSource,
    /// When it was made.
    pub created: SystemTime,
    /// Bytes on disk, where known.
    pub size_bytes: Option<u64>,
    /// Labels.
    pub labels: Labels,
    /// Default limits of sandboxes made from it.
    pub limits: ResourceLimits,
    /// Default environment.
    pub env: BTreeMap<String, String>,
    /// Default user.
    pub user: Option<String>,
    /// Default working directory.
    pub workdir: Option<String>,
}

impl Template {
    /// A template with nothing but a name and a source.
    #[must_use]
    pub fn new(id: TemplateId, source: TemplateSource) -> Self {
        Self {
            id,
            source,
            created: SystemTime::now(),
            size_bytes: None,
            labels: Labels::new(),
            limits: ResourceLimits::default(),
            env: BTreeMap::new(),
            user: None,
            workdir: None,
        }
    }
}
