//! The domain of Hostel: what a sandbox is, what can be asked of one, and what can go wrong.
//!
//! Backends implement [`Backend`], [`ExecutionEnvironment`] and [`Inside`]; the daemon, pools and tests speak only
//! these types. This crate knows no wire format, no database and no operating system.
#![forbid(unsafe_code)]

pub mod capability;
pub mod environment;
pub mod error;
pub mod file;
pub mod id;
pub mod inside;
pub mod label;
pub mod limits;
pub mod listener;
pub mod model;
pub mod network;
pub mod process;
pub mod secret;
pub mod size;
pub mod spec;
pub mod state;
pub mod stats;
pub mod template;

pub use capability::{Capabilities, Capability, Weakness};
pub use environment::{Backend, BackendEvent, Bound, Created, ExecutionEnvironment, Stage, Stopwatch};
pub use error::{Error, Result};
pub use id::{BackendName, ProcessId, SandboxId, TemplateId};
pub use inside::{Files, Inside, Listeners, Processes};
pub use limits::ResourceLimits;
pub use listener::ListenAddress;
pub use model::{ModelAccess, ModelBudget};
pub use network::{HostPattern, NetworkMode, NetworkPolicy, NetworkRule, RuleAction};
pub use secret::{SecretForm, SecretRef};
pub use spec::SandboxSpec;
pub use state::{SandboxState, Transition};
