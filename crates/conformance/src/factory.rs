//! What a backend gives to the suite.

use async_trait::async_trait;
use hostel_sandbox::{Backend, Result, SandboxId};
use std::sync::Arc;

/// Makes live backends of one kind for tests. Making one should be cheap: under nextest each case is a process
/// with its own.
#[async_trait]
pub trait Factory: Send + Sync {
    /// The live backend; after [`Self::restart`] the new one.
    fn backend(&self) -> Arc<dyn Backend>;

    /// Another factory with its own state directory and names, for a case that restarts its daemon's side
    /// while others run.
    ///
    /// # Errors
    /// What the backend says.
    async fn fresh(&self) -> Result<Arc<dyn Factory>>;

    /// Lets go of the backend as `kill -9` of the daemon would, without telling anybody, and makes a new one
    /// on the same state. Adopts nothing: the case does.
    ///
    /// # Errors
    /// What the backend says.
    async fn restart(&self) -> Result<Arc<dyn Backend>>;

    /// The static probe executable for the sandboxes' architecture.
    fn probe(&self) -> &'static [u8];

    /// Text that must show nowhere inside: the state directory, its cgroups' parent.
    fn host_paths(&self) -> Vec<String> {
        Vec::new()
    }

    /// What is left on this host of a sandbox: processes, mounts, cgroups, files; one line each.
    async fn leftovers(&self, sandbox: &SandboxId) -> Vec<String> {
        let _ = sandbox;
        Vec::new()
    }

    /// Whether sandboxes run on this host's kernel, so that a case can look from outside.
    fn is_local(&self) -> bool {
        true
    }

    /// Ends the backend and removes its state directory.
    async fn close(&self) {}
}
