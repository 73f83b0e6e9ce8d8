//! What was decided, and who is told.

use crate::error::Result;
use async_trait::async_trait;
use hostel_sandbox::SandboxId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// One decision about what a sandbox asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When.
    pub time: jiff::Timestamp,
    /// Whose.
    pub sandbox: SandboxId,
    /// About what.
    pub kind: Kind,
    /// Whether it was let through.
    pub allowed: bool,
    /// The host's name, in normal form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The address that was connected to, or asked for. Of a name that was looked up it is not known when that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What was spoken; where it was connected before anything was, what the port is for.
    pub protocol: Protocol,
    /// The request's method, where requests are seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The request's path without its query, which may hold secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The secret that was put in, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why, as one of the words of [`Reason`].
    pub reason: String,
    /// In a record, that it stands for so many refusals of the second before, which were too many to be recorded each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// What a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The addresses of a name.
    Lookup,
    /// A connection.
    Connect,
    /// An HTTP request.
    Request,
    /// The use of a secret.
    Secret,
}

/// What was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// DNS.
    Dns,
    /// TLS that was not opened.
    Tls,
    /// HTTP in TLS that was opened.
    Https,
    /// HTTP.
    Http,
    /// Anything else over TCP.
    Tcp,
}

impl Protocol {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// Why something was decided. The words are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A rule allows it.
    Rule,
    /// The policy is open.
    Open,
    /// No rule allows it.
    NoRule,
    /// A rule denies it.
    DeniedByRule,
    /// The address is private, local, the host's own, or for special use.
    PrivateAddress,
    /// The name inside the connection is not the one that was asked for, or not one of that address.
    NameMismatch,
    /// The connection tells no name, and none is known for its address.
    NoName,
    /// The name inside the connection is encrypted.
    HiddenName,
    /// A limit of the sandbox was reached.
    Limit,
    /// What was sent is not understood, or is ambiguous.
    BadRequest,
    /// Nothing was sent in time.
    Timeout,
    /// The name has no address.
    ResolveFailed,
    /// The host did not answer.
    ConnectFailed,
    /// The policy was changed.
    PolicyChanged,
    /// The decision could not be recorded.
    AuditFailed,
}

impl Reason {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Open => "open",
            Self::NoRule => "no_rule",
            Self::DeniedByRule => "denied_by_rule",
            Self::PrivateAddress => "private_address",
            Self::NameMismatch => "name_mismatch",
            Self::NoName => "no_name",
            Self::HiddenName => "hidden_name",
            Self::Limit => "limit",
            Self::BadRequest => "bad_request",
            Self::Timeout => "timeout",
            Self::ResolveFailed => "resolve_failed",
            Self::ConnectFailed => "connect_failed",
            Self::PolicyChanged => "policy_changed",
            Self::AuditFailed => "audit_failed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who is told of decisions before they take effect.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Records a decision.
    ///
    /// # Errors
    /// Any error refuses what was being decided.
    async fn record(&self, decision: &Decision) -> Result<()>;

    /// Is told of a refusal that is not recorded by itself, since there were too many: its number is recorded later.
    fn pass_over(&self, _decision: &Decision) {}
}

/// Records nothing. The latest decisions can still be asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

#[async_trait]
impl Recorder for Discard {
    async fn record(&self, _: &Decision) -> Result<()> {
        Ok(())
    }
}

/// Something that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) rule: Option<String>,
    /// For people; goes to the program in the sandbox where its protocol has room.
    pub(crate) message: String,
    pub(crate) address: Option<IpAddr>,
}

impl Refused {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, rule: None, message: message.into(), address: None }
    }
}
