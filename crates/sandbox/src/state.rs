//! The life of a sandbox: `creating → ready ⇄ paused → stopping → stopped`, or `failed`.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::SystemTime;

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Being made; nothing can run yet.
    Creating,
    /// Commands can run.
    Ready,
    /// Frozen: memory and processes are kept, nothing runs.
    Paused,
    /// Being taken down.
    Stopping,
    /// Gone; only the record remains.
    Stopped,
    /// Broke by itself; only the record remains.
    Failed,
}

impl SandboxState {
    /// Whether the sandbox may go from here to `next`.
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        use SandboxState::{Creating, Failed, Paused, Ready, Stopped, Stopping};
        matches!(
            (self, next),
            (Creating, Ready | Failed | Stopping)
                | (Ready, Paused | Stopping | Failed)
                | (Paused, Ready | Stopping | Failed)
                | (Stopping, Stopped | Failed)
        )
    }

    /// Whether this is the end.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// Refuses a change that the life of a sandbox does not have.
    ///
    /// # Errors
    /// [`Error::WrongState`] with reason `SANDBOX_STATE`.
    pub fn check(self, next: Self) -> Result<()> {
        if self.can_become(next) {
            return Ok(());
        }
        Err(Error::wrong_state("SANDBOX_STATE", format!("a sandbox that is {self} cannot become {next}")))
    }
}

impl fmt::Display for SandboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

/// One change of state: what, why, who, when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The state entered.
    pub state: SandboxState,
    /// Why, in stable words: `created`, `requested`, `deadline`, `idle_timeout`, `guest_died`, …
    pub reason: String,
    /// Who: `uid:1000`, `daemon`, `backend`.
    pub actor: String,
    /// When.
    pub time: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::SandboxState::{self, *};

    const ALL: [SandboxState; 6] = [Creating, Ready, Paused, Stopping, Stopped, Failed];

    #[test]
    fn final_states_are_final_and_every_live_state_can_end() {
        for from in ALL {
            let next: Vec<_> = ALL.into_iter().filter(|to| from.can_become(*to)).collect();
            assert_eq!(next.is_empty(), from.is_final(), "{from}");
            assert!(from.is_final() || next.contains(&Failed), "{from}");
            assert!(!from.can_become(from));
        }
    }
}
