//! Network policy enforcement, secret brokering: what leaves a sandbox, and what does not.
//!
//! A sandbox has no interface but loopback. Its traffic comes out of sockets that were made inside its network
//! namespace, the [`Doors`]. [`Egress::attach`] serves them: every name and every connection is decided by one
//! [`Ruleset`], names are resolved here and their addresses checked, and the connection goes to exactly the address
//! that was checked. Each decision is told to a [`Recorder`] before it takes effect.
#![forbid(unsafe_code)]

pub mod address;
mod attachment;
pub mod audit;
pub mod authority;
mod connections;
mod crowd;
mod decision;
mod destination;
mod dial;
mod dns;
mod enforcer;
mod error;
mod head;
mod hello;
mod http;
pub mod namespace;
mod passage;
mod pins;
mod plan;
mod preset;
mod proxy;
mod pump;
mod rate;
mod requests;
mod resolve;
mod rules;
pub mod secret;
mod settings;
mod sniff;
mod socks;
mod state_file;
mod transparent;

pub use attachment::{Attachment, Egress};
pub use audit::{AuditLog, AuditSettings};

pub use connections::Connection;
pub use decision::{Decision, Discard, Kind, Protocol, Reason, Recorder};
pub use error::{Error, Result};
pub use http::{Opener, OpenerSettings};
pub use namespace::Doors;
pub use preset::Presets;
pub use resolve::{Names, Table};
pub use rules::{Ruleset, Seen, Verdict};
pub use settings::{Limits, Origin, OriginHook, Settings, Timeouts};
