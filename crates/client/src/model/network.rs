//! What sandboxes tried to reach.

use jiff::Timestamp;
use serde::Serialize;

/// What was decided about a sandbox's network lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Oldest first.
    pub decisions: Vec<NetworkDecision>,
    /// How many connections are open now.
    pub open_connections: u32,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkDecision {
    /// When.
    pub time: Option<Timestamp>,
    /// What it was about.
    pub action: NetworkAction,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The name asked for. Empty where there was only an address.
    pub host: String,
    /// The address. Empty where there was none.
    pub address: String,
    /// The port; 0 for lookups.
    pub port: u32,
    /// `tls`, `https` (TLS that the daemon opened), `http`, `tcp` or `dns`.
    pub protocol: String,
    /// The HTTP method, where there was a request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// The HTTP path, where there was a request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The rule that decided. Empty where none did.
    pub rule: String,
    /// Why, in one word for programs.
    pub reason: String,
    /// The secret that was used, by name. Empty where none was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret: String,
}

/// What a decision was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkAction {
    /// It asked for the addresses of a name.
    Lookup,
    /// It opened a connection.
    Connect,
    /// It sent a request that the daemon could read.
    Request,
    /// A secret was put into a request.
    Secret,
}

impl NetworkAction {
    /// As JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Connect => "connect",
            Self::Request => "request",
            Self::Secret => "secret",
        }
    }
}

/// Something that a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkEvent {
    /// A decision.
    Decision(Box<NetworkDecision>),
    /// That many were made while the reader was too slow.
    Missed(u64),
}

/// What a check of the audit log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// How many records were checked; where the chain is broken, those before.
    pub records: u64,
    /// The number of the first record: more than 1 where older files were removed, 0 where there is none.
    pub first: u64,
    /// The number of the last record.
    pub last: u64,
    /// Its hash in hexadecimal digits: kept elsewhere, it shows later whether records are missing at the end.
    pub last_hash: String,
    /// The first record that does not follow from those before, and what is wrong there. Absent: the chain is whole.
    pub broken: Option<BrokenAudit>,
}

/// Where the chain of an audit log is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokenAudit {
    /// File and line.
    pub at: String,
    /// What is wrong there.
    pub problem: String,
}
