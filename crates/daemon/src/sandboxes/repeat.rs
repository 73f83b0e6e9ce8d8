//! Requests that may be repeated: one at a time for each request id, and the same answer for all.

use super::to_the_end::ToTheEnd;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::store::{RequestKey, StoredRequest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// What makes a request repeatable: its key and the hash of its body.
#[derive(Debug, Clone)]
pub(crate) struct Repeat {
    pub key: RequestKey,
    pub body: [u8; 32],
}

impl Repeat {
    /// Refuses another body under the same id.
    pub(crate) fn check(&self, body: &[u8; 32]) -> Result<()> {
        if self.body == *body {
            return Ok(());
        }
        Err(Error::RequestIdReused { request_id: self.key.request_id.clone() })
    }

    /// What the store keeps of it once it made `outcome`.
    pub(crate) fn fulfilled(&self, outcome: String) -> (RequestKey, StoredRequest) {
        (self.key.clone(), StoredRequest { body: self.body, outcome })
    }
}

type Answer<T> = watch::Receiver<Option<Result<T>>>;

/// The body of each request under way, and its answer to come.
type Requests<T> = HashMap<RequestKey, ([u8; 32], Answer<T>)>;

/// Requests under way, by key.
pub(super) struct InFlight<T>(Arc<Mutex<Requests<T>>>);

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> InFlight<T> {
    /// Does `work` once for all who ask at the same time with this key; it goes on when they go away.
    pub(super) async fn once(
        &self,
        tasks: &TaskTracker,
        repeat: &Repeat,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (mut answer, lead) = {
            let mut requests = lock(&self.0);
            if let Some((body, answer)) = requests.get(&repeat.key) {
                repeat.check(body)?;
                (answer.clone(), None)
            } else {
                let (sender, answer) = watch::channel(None);
                requests.insert(repeat.key.clone(), (repeat.body, answer.clone()));
                let (requests, key) = (Arc::clone(&self.0), repeat.key.clone());
                let lead = ToTheEnd::new(tasks, async move {
                    let done = Removal { requests, key };
                    let result = work.await;
                    // First gone from the map, then answered: who asks again finds it in the store.
                    drop(done);
                    sender.send_replace(Some(result.clone()));
                    result
                });
                (answer, Some(lead))
            }
        };
        if let Some(lead) = lead {
            return lead.await;
        }
        let answered = answer.wait_for(Option::is_some).await;
        answered.ok().and_then(|answer| answer.clone()).unwrap_or_else(|| {
            Err(hostel_sandbox::Error::internal("answer a request", "its task ended").into())
        })
    }
}

/// Takes a request out of the map, also when its task panics.
struct Removal<T> {
    requests: Arc<Mutex<Requests<T>>>,
    key: RequestKey,
}

impl<T> Drop for Removal<T> {
    fn drop(&mut self) {
        lock(&self.requests).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn repeat(body: u8) -> Repeat {
        let key = RequestKey { principal: "uid:0".into(), method: "Create", request_id: "r".into() };
        Repeat { key, body: [body; 32] }
    }

    #[tokio::test]
    async fn concurrent_requests_with_one_id_do_the_work_once() {
        let (in_flight, tasks, count) =
            (InFlight::default(), TaskTracker::new(), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let count = Arc::clone(&count);
            async move {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Ok(count.fetch_add(1, Ordering::SeqCst))
            }
        };
        let repeat_one = repeat(1);
        let results =
            futures::future::join_all((0..8).map(|_| in_flight.once(&tasks, &repeat_one, work()))).await;
        assert!(results.iter().all(|result| *result.as_ref().unwrap() == 0));
        let other = repeat(2);
        let (first, second) =
            tokio::join!(in_flight.once(&tasks, &repeat_one, work()), in_flight.once(&tasks, &other, work()));
        assert_eq!(first.unwrap(), 1);
        assert!(matches!(second, Err(Error::RequestIdReused { .. })));
    }
}
