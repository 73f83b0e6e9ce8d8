//! What can go wrong in the gateway, by what somebody can do about it.

use hostel_sandbox::SandboxId;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the gateway's own interface. What goes wrong with one request is answered to its client instead.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A wrong label, budget or id.
    #[error(transparent)]
    Domain(#[from] hostel_sandbox::Error),
    /// The configuration cannot be used.
    #[error("{field}: {detail}")]
    Configuration {
        /// The key at fault.
        field: String,
        /// What is wrong with it. Never a secret.
        detail: String,
    },
    /// The usage database cannot be opened, read or written.
    #[error("usage records: {detail}")]
    Store {
        /// What was tried, and how it failed.
        detail: String,
    },
    /// The sandbox has doors already: close its attachment first.
    #[error("sandbox {sandbox} is attached already")]
    Attached {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// There is a budget of this name.
    #[error("budget {name:?} exists already")]
    BudgetExists {
        /// The name.
        name: String,
    },
    /// There is no budget of this name.
    #[error("there is no budget {name:?}")]
    BudgetNotFound {
        /// The name.
        name: String,
    },
    /// A listening socket could not be taken over.
    #[error("a door of sandbox {sandbox} cannot be used: {detail}")]
    Door {
        /// The sandbox.
        sandbox: SandboxId,
        /// What the system says.
        detail: String,
    },
    /// The gateway was shut down.
    #[error("the model gateway is closed")]
    Closed,
}

impl Error {
    pub(crate) fn configuration(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Configuration { field: field.into(), detail: detail.into() }
    }

    pub(crate) fn store(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Store { detail: format!("{what}: {error}") }
    }
}
