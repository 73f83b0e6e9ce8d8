//! Brings to the disk what was written, behind those who write it.

use super::Flush;
use super::file::Log;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Between attempts to bring to the disk what could not be brought there.
const RETRY: Duration = Duration::from_millis(500);

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
        let (idle, near) = (!state.log.is_behind(), !state.log.is_far_behind());
        let sequence = state.log.append(record)?;
        if idle || (near && state.log.is_far_behind()) {
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

    /// Flushes until the end. After a failure it waits a little, without the lock: who writes meanwhile is told of it.
    pub(super) fn keep_flushing(&self, flush: Flush) {
        let mut state = self.lock();
        loop {
            let idle = self.work.wait_while(state, |state| !state.closed && !state.log.is_behind());
            state = idle.unwrap_or_else(PoisonError::into_inner);
            if let Flush::Within(time) = flush {
                let rests = |state: &mut State| !state.closed && !state.log.is_far_behind();
                let waited = self.work.wait_timeout_while(state, time, rests);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            }
            let last = state.closed;
            let mut failed = false;
            if state.log.is_behind() {
                (state, failed) = self.flush(state);
            }
            if last {
                return;
            }
            if failed {
                let waited = self.work.wait_timeout_while(state, RETRY, |state| !state.closed);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Without the lock while the disk works: what comes meanwhile is written, and is flushed the next time. → whether
    /// it failed.
    fn flush<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
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
        (state, done.is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditSettings;
    use std::sync::{Arc, mpsc};

    #[test]
    fn a_disk_that_takes_nothing_is_told_and_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let settings = AuditSettings::new(directory.path().join("audit.jsonl"));
        let log = Log::open(AuditSettings { flush: Flush::Each, ..settings }).unwrap();
        let shared = Arc::new(Shared::new(log));
        shared.append("1").unwrap();
        shared.lock().log.become_read_only();
        let flushing = Arc::clone(&shared);
        let flusher = std::thread::spawn(move || flushing.keep_flushing(Flush::Each));
        while shared.flushed.borrow().failures == 0 {
            std::thread::yield_now();
        }
        let (tell, told) = mpsc::sync_channel(1);
        let appending = Arc::clone(&shared);
        std::thread::spawn(move || tell.send(appending.append("2").is_err()));
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(true));
        shared.close();
        flusher.join().unwrap();
    }
}
