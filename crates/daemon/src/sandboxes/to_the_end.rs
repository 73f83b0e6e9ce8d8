//! Work that is done whatever becomes of whoever waits for it.

use crate::error::Result;
use futures::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

type Work<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Work that runs in the task of its caller, which saves the ways to another task and back, and goes on in one of its
/// own once that caller goes away.
#[must_use]
pub(crate) struct ToTheEnd<T: Send + 'static> {
    /// Nothing once it is done.
    work: Option<Work<T>>,
    tasks: TaskTracker,
    /// Whoever waits for the tasks waits for this too.
    _token: TaskTrackerToken,
}

impl<T: Send + 'static> ToTheEnd<T> {
    pub(super) fn new(tasks: &TaskTracker, work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        // As in a task: one that panics fails, and takes nobody along.
        let work = AssertUnwindSafe(work).catch_unwind().map(|done| {
            done.unwrap_or_else(|_| Err(hostel_sandbox::Error::internal("run a task", "it panicked").into()))
        });
        Self { work: Some(Box::pin(work)), tasks: tasks.clone(), _token: tasks.token() }
    }
}

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let done = work.as_mut().poll(context);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        // Without a runtime the daemon is past its end, and nothing can go on.
        if let Some(work) = self.work.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            self.tasks.spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn what_is_abandoned_goes_on_and_is_waited_for() {
        let (tasks, may_end, ended) =
            (TaskTracker::new(), Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (gate, count) = (Arc::clone(&may_end), Arc::clone(&ended));
        let work = ToTheEnd::new(&tasks, async move {
            gate.notified().await;
            Ok(count.fetch_add(1, Ordering::SeqCst))
        });
        tokio::select! {
            biased;
            _ = work => panic!("it cannot have ended"),
            () = std::future::ready(()) => {}
        }
        tasks.close();
        assert_eq!((tasks.len(), ended.load(Ordering::SeqCst)), (1, 0));
        may_end.notify_one();
        tasks.wait().await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_done_leaves_nothing_and_what_panics_fails() {
        let tasks = TaskTracker::new();
        let done = ToTheEnd::new(&tasks, async { Ok(7) }).await;
        assert_eq!(done.unwrap(), 7);
        let failed: Result<()> = ToTheEnd::new(&tasks, async { panic!("on purpose") }).await;
        assert!(failed.is_err());
        assert!(tasks.is_empty());
    }
}
