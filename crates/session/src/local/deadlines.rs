//! The limits of time of sessions that are not in memory: somebody has to look at the clock for them too.

use super::Shared;
use super::loaded::Loaded;
use crate::error::Error;
use crate::id::SessionId;
use crate::session::Session;
use crate::worker::next_limit;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The longest sleep, after which the clock is looked at again: somebody may set it.
const LOOK: Duration = Duration::from_secs(60);
/// How long a session that could not be taken up is left alone.
const PAUSE: Duration = Duration::from_secs(5);

/// When sessions that were let go reach a limit. Those without limits of time are not here.
#[derive(Default)]
pub(super) struct Deadlines {
    due: Mutex<Due>,
    earlier: Notify,
}

#[derive(Default)]
struct Due {
    order: BTreeSet<(Timestamp, SessionId)>,
    of: HashMap<SessionId, Timestamp>,
}

impl Due {
    /// Puts a session at its place, of which it has one at most.
    fn set(&mut self, id: &SessionId, at: Option<Timestamp>) {
        if let Some(before) = self.of.remove(id) {
            self.order.remove(&(before, id.clone()));
        }
        if let Some(at) = at {
            self.of.insert(id.clone(), at);
            self.order.insert((at, id.clone()));
        }
    }
}

impl Deadlines {
    /// A session was let go as it is.
    pub(super) fn let_go(&self, session: &Session) {
        self.set(&session.id, next_limit(session));
    }

    /// A session is looked after, or gone.
    pub(super) fn forget(&self, id: &SessionId) {
        self.set(id, None);
    }

    fn set(&self, id: &SessionId, at: Option<Timestamp>) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).set(id, at);
        self.earlier.notify_one();
    }

    /// The sessions whose time has come, and how long until that of the next.
    fn look(&self, now: Timestamp) -> (Vec<SessionId>, Duration) {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let late = due.order.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect();
        let next = due.order.iter().map(|(at, _)| *at).find(|at| *at > now);
        let pause = next.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        (late, pause.unwrap_or(LOOK).min(LOOK))
    }
}

/// Takes sessions up whose time has come, so that their workers end them, until the host goes away.
pub(super) async fn keep(loaded: Arc<Loaded>, shared: Arc<Shared>, leaving: CancellationToken) {
    loop {
        let (late, mut pause) = loaded.deadlines.look(crate::clock::now());
        for id in late {
            match loaded.worker(&shared, &id).await {
                Ok(_) => {}
                Err(Error::NotFound { .. }) => loaded.deadlines.forget(&id),
                Err(Error::Stopping) => return,
                Err(error) => {
                    tracing::warn!(session = %id, %error, "a session that reached a limit cannot be ended yet");
                    pause = pause.min(PAUSE);
                }
            }
        }
        tokio::select! {
            () = leaving.cancelled() => return,
            () = loaded.deadlines.earlier.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
