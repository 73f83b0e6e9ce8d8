//! Streams that we feed: a task of the guest's, a bounded channel, and an end that is always told.

use crate::failure::closing;
use crate::guest::Guest;
use hostel_sandbox::{Error, Result};
use tokio::sync::mpsc;

/// A channel of `capacity`, and one more place that is kept for how it ends.
pub(crate) fn channel<T>(
    capacity: usize,
) -> Result<(mpsc::Sender<T>, mpsc::OwnedPermit<T>, mpsc::Receiver<T>)> {
    let (sender, receiver) = mpsc::channel(capacity + 1);
    let last = sender.clone().try_reserve_owned();
    let last = last.map_err(|_| Error::internal("make a channel", "no place in a new one"))?;
    Ok((sender, last, receiver))
}

impl Guest {
    /// Runs `work`, which sends to the receiver that is returned. It ends when the receiver is dropped; an error
    /// becomes the last item, also where nobody reads at the moment.
    pub(crate) fn feed<T, W, F>(&self, capacity: usize, work: W) -> Result<mpsc::Receiver<Result<T>>>
    where
        T: Send + 'static,
        W: FnOnce(mpsc::Sender<Result<T>>) -> F,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (sender, last, receiver) = channel(capacity)?;
        let work = work(sender.clone());
        let stop = self.stop().clone();
        self.tasks().spawn(async move {
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => Err(closing()),
                () = sender.closed() => Ok(()),
                result = work => result,
            };
            if let Err(error) = result {
                last.send(Err(error));
            }
        });
        Ok(receiver)
    }
}
