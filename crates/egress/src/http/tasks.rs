//! The tasks of one connection, with an owner that ends them.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// Owns the tasks of one connection: when it is dropped, they stop.
#[derive(Debug, Default)]
pub(super) struct Owner(Tasks);

/// Starts tasks for an [`Owner`].
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Owner {
    pub(super) fn tasks(&self) -> Tasks {
        self.0.clone()
    }

    /// Stops the tasks and waits until they are gone.
    pub(super) async fn finish(self) {
        let mut tasks = std::mem::take(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Tasks {
    pub(super) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.start(async move {
            future.await;
        });
    }
}
