//! Brings to the disk what was written, behind those who write it.

use super::Flush;
use super::file::Log;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The log, and how far it is on the disk.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Something is to be flushed, or the end is there.
    work: Condvar,
    flushed: watch::Sender<Mark>,
}

#[derive(Debug)]
struct State {
    log: Log,
    closed: bool,
}

/// How far the log had come at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The last record.
    sequence: u64,
    /// How often flushing had failed.
    failures: u64,
}

impl Shared {
    pub(super) fn new(log: Log) -> Self {
        let mark = Mark { sequence: log.on_disk(), failures: 0 };
        let state = Mutex::new(State { log, closed: false });
        Self { state, work: Condvar::new(), flushed: watch::Sender::new(mark) }
    }

    /// Nothing panics with the lock held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record.
    pub(super) fn append(&self, record: &str) -> io::Result<Mark> {
        let mut state = self.lock();
        let idle = !state.log.is_behind();
        let sequence = state.log.append(record)?;
        if idle {
            self.work.notify_one();
        }
        Ok(Mark { sequence, failures: self.flushed.borrow().failures })
    }

    /// Returns once a record is on the disk; an error where bringing it there failed.
    pub(super) async fn flushed(&self, written: Mark) -> Result<(), String> {
        let mut flushed = self.flushed.subscribe();
        let over = |now: &Mark| now.failures != written.failures || now.sequence >= written.sequence;
        match flushed.wait_for(over).await {
            Ok(now) if now.failures == written.failures => Ok(()),
            Ok(_) => Err("it could not be brought to the disk".to_owned()),
            Err(_) => Err("its thread ended".to_owned()),
        }
    }

    /// Ends the thread, after it flushed what is written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// Flushes until the end.
    pub(super) fn keep_flushing(&self, flush: Flush) {
        let mut state = self.lock();
        loop {
            let idle = self.work.wait_while(state, |state| !state.closed && !state.log.is_behind());
            state = idle.unwrap_or_else(PoisonError::into_inner);
            if let Flush::Within(time) = flush {
                let waited = self.work.wait_timeout_while(state, time, |state| !state.closed);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            }
            let last = state.closed;
            if state.log.is_behind() {
                state = self.flush(state);
            }
            if last {
                return;
            }
        }
    }

    /// Without the lock while the disk works: what comes meanwhile is written, and is flushed the next time.
    fn flush<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let done = match state.log.behind() {
            Some(piece) => {
                drop(state);
                let done = piece.flush();
                state = self.lock();
                if done.is_ok() {
                    state.log.flushed(&piece);
                } else {
                    state.log.doubt();
                }
                done
            }
            // It failed before.
            None => state.log.recover(),
        };
        if let Err(error) = &done {
            tracing::error!(%error, "the audit log cannot be brought to the disk");
        }
        let sequence = state.log.on_disk();
        self.flushed.send_modify(|mark| {
            *mark = Mark { sequence, failures: mark.failures + u64::from(done.is_err()) };
        });
        state
    }
}
