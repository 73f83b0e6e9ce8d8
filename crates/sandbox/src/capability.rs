//! What a backend can do on this host. What it claims, the conformance suite tests.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

macro_rules! capabilities {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)+) => {
        /// Something a backend may or may not be able to do or enforce.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Capability { $($(#[$doc])* $variant,)+ }

        impl Capability {
            /// Every capability, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire and in error metadata.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The capability of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

capabilities! {
    /// Terminals for processes.
    Pty => "pty",
    /// Freeze and thaw all processes.
    Pause => "pause",
    /// A file system snapshot becomes a template.
    Snapshot => "snapshot",
    /// A copy-on-write copy of a live sandbox's files in a new sandbox.
    Fork => "fork",
    /// Output survives a lost connection and a restarted daemon.
    Reattach => "reattach",
    /// Resource usage can be read.
    Stats => "stats",
    /// A cap on memory, with out-of-memory kills reported.
    MemoryLimit => "memory_limit",
    /// A cap on processor time.
    CpuLimit => "cpu_limit",
    /// A cap on the number of processes and threads.
    PidsLimit => "pids_limit",
    /// A cap on bytes written to the sandbox's disk.
    DiskLimit => "disk_limit",
    /// A cap on the number of files.
    InodeLimit => "inode_limit",
    /// A cap on open files per process.
    OpenFilesLimit => "open_files_limit",
    /// A cap on terminals, which are counted for the whole host.
    TerminalLimit => "terminal_limit",
    /// A cap on bytes of output per second.
    OutputRateLimit => "output_rate_limit",
    /// Processes run as whichever user of the sandbox they are asked to, root or another.
    OtherUsers => "other_users",
    /// User ids that no other sandbox and nobody on the host has.
    PrivateUserIds => "private_user_ids",
    /// Network policy `none`: nothing but loopback.
    NetworkNone => "network_none",
    /// Network policy `allowlist`.
    NetworkAllowlist => "network_allowlist",
    /// Network policy `open`.
    NetworkOpen => "network_open",
    /// Watch files for changes.
    FileWatch => "file_watch",
    /// Root, and who has the rights, can change files anywhere; without it the root is read-only but for the usual
    /// places: `/workspace`, `/home`, `/root`, `/tmp`, `/var/tmp`, `/run`.
    WritableRoot => "writable_root",
    /// Root file system templates can be imported.
    TemplateImport => "template_import",
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that is weaker on this host than the design wants, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weakness {
    /// The capability that is missing or weaker.
    pub capability: Capability,
    /// What is weaker, why, and what would make it whole.
    pub detail: String,
}

/// What a backend can do here, and what it cannot with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What it can do.
    pub available: BTreeSet<Capability>,
    /// What it cannot, and why.
    pub missing: Vec<Weakness>,
}

impl Capabilities {
    /// Whether the backend has it.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.available.contains(&capability)
    }

    /// Refuses what the backend does not have.
    ///
    /// # Errors
    /// [`crate::Error::CapabilityMissing`] with the reason the backend gave.
    pub fn require(&self, capability: Capability) -> crate::Result<()> {
        if self.has(capability) {
            return Ok(());
        }
        let detail = self
            .missing
            .iter()
            .find(|weakness| weakness.capability == capability)
            .map_or_else(|| "this backend does not offer it".to_owned(), |weakness| weakness.detail.clone());
        Err(crate::Error::missing(capability, detail))
    }

    /// Adds a capability that is there.
    pub fn grant(&mut self, capability: Capability) {
        self.available.insert(capability);
    }

    /// Notes a capability that is not there, and why.
    pub fn deny(&mut self, capability: Capability, detail: impl Into<String>) {
        self.available.remove(&capability);
        self.missing.push(Weakness { capability, detail: detail.into() });
    }
}
