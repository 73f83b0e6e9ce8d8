//! The timer: sandboxes whose time is up, that nobody uses, or whose record was kept long enough.
//!
//! Times in records are absolute, so they hold across restarts. One alarm per sandbox; when it rings the sandbox is
//! looked at anew, so an alarm that came too early does no harm.

use super::{Entry, Sandboxes};
use crate::lock::lock;
use hostel_sandbox::{SandboxId, SandboxState};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// The timer looks at the clock at least this often, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// When an end that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Alarms, soonest first.
#[derive(Default)]
pub(super) struct Deadlines {
    alarms: Mutex<BinaryHeap<Reverse<(SystemTime, SandboxId)>>>,
    changed: Notify,
}

impl Deadlines {
    fn add(&self, time: SystemTime, id: SandboxId) {
        let soonest = {
            let mut alarms = lock(&self.alarms);
            let soonest = alarms.peek().is_none_or(|Reverse((first, _))| time < *first);
            alarms.push(Reverse((time, id)));
            soonest
        };
        // Behind another the timer wakes in time anyway.
        if soonest {
            self.changed.notify_one();
        }
    }

    /// Alarms that are due, and how long to sleep until the next.
    fn due(&self, now: SystemTime) -> (Vec<(SystemTime, SandboxId)>, Duration) {
        let mut alarms = lock(&self.alarms);
        let mut due = Vec::new();
        while let Some(Reverse((time, _))) = alarms.peek() {
            match time.duration_since(now) {
                Ok(rest) if !rest.is_zero() => return (due, rest.min(LONGEST_SLEEP)),
                _ => due.extend(alarms.pop().map(|Reverse(alarm)| alarm)),
            }
        }
        (due, LONGEST_SLEEP)
    }
}

impl Sandboxes {
    /// Runs the timer until the daemon stops.
    pub(crate) fn run_deadlines(&self) {
        let this = self.clone();
        self.0.tasks.spawn(async move {
            loop {
                let (due, rest) = this.0.deadlines.due(SystemTime::now());
                for (time, id) in due {
                    if let Ok(entry) = this.get(&id)
                        && entry.take_alarm(time)
                    {
                        let handler = this.clone();
                        this.0.tasks.spawn(async move { handler.look_at(&entry).await });
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = this.0.deadlines.changed.notified() => {}
                    () = this.0.stop.cancelled() => return,
                }
            }
        });
    }

    /// Sets the alarm of a sandbox to the next moment at which something may be due.
    pub(super) fn schedule(&self, entry: &Arc<Entry>) {
        let record = entry.record();
        let now = SystemTime::now();
        let time = match record.state() {
            SandboxState::Creating => None,
            SandboxState::Stopping => Some(now + RETRY),
            SandboxState::Stopped | SandboxState::Failed => {
                Some(record.updated + self.0.settings.record_retention)
            }
            SandboxState::Ready => {
                let quiet = entry.quiet_since().unwrap_or(now);
                let idle = record.idle_timeout().map(|timeout| quiet + timeout);
                record.expires.into_iter().chain(idle).min()
            }
            SandboxState::Paused => record.expires,
        };
        if let Some(time) = time {
            self.alarm(entry, time);
        }
    }

    fn alarm(&self, entry: &Arc<Entry>, time: SystemTime) {
        if entry.set_alarm(time) {
            self.0.deadlines.add(time, entry.id().clone());
        }
    }

    /// Does what is due for a sandbox, and sets the next alarm.
    async fn look_at(&self, entry: &Arc<Entry>) {
        let record = entry.record();
        let now = SystemTime::now();
        let done = match record.state() {
            SandboxState::Stopped | SandboxState::Failed
                if record.updated + self.0.settings.record_retention <= now =>
            {
                let _operation = entry.operate().await;
                match self.still_there(entry) {
                    Ok(()) => self.forget(entry, "retention", "daemon").await,
                    Err(_) => return,
                }
            }
            SandboxState::Stopping => self.expire(entry, &record.transition.reason, None).await,
            SandboxState::Ready | SandboxState::Paused
                if record.expires.is_some_and(|expires| expires <= now) =>
            {
                self.expire(entry, "deadline", None).await
            }
            SandboxState::Ready => match record.idle_timeout() {
                Some(timeout) => return self.look_whether_idle(entry, timeout).await,
                None => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(sandbox = %entry.id(), %error, "what was due could not be done and is tried again");
            self.alarm(entry, now + RETRY);
        } else if self.still_there(entry).is_ok() {
            self.schedule(entry);
        }
    }

    /// Stops a sandbox in which nothing ran and which nobody called for `timeout`; else looks again when that could
    /// be so.
    async fn look_whether_idle(&self, entry: &Arc<Entry>, timeout: Duration) {
        let now = SystemTime::now();
        let Some((quiet, idle_since)) = self.idle_since(entry).await else {
            return self.alarm_again(entry, now + timeout);
        };
        if idle_since + timeout > now {
            return self.alarm_again(entry, idle_since + timeout);
        }
        if let Err(error) = self.expire(entry, "idle_timeout", Some(quiet)).await {
            tracing::warn!(sandbox = %entry.id(), %error, "an idle sandbox could not be stopped");
        }
        self.schedule(entry);
    }

    /// When the last call was, and when the last call or process ended; `None` while something goes on.
    async fn idle_since(&self, entry: &Arc<Entry>) -> Option<(SystemTime, SystemTime)> {
        let quiet = entry.quiet_since()?;
        let processes = entry.environment()?.inside().ok()?.processes().await.ok()?;
        processes.iter().try_fold((quiet, quiet), |(quiet, since), process| {
            process.exit.as_ref().map(|exit| (quiet, since.max(exit.time)))
        })
    }

    /// The next look at idleness, or at the deadline where that is sooner.
    fn alarm_again(&self, entry: &Arc<Entry>, time: SystemTime) {
        let time = entry.record().expires.map_or(time, |expires| time.min(expires));
        self.alarm(entry, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_come_soonest_first_and_not_before_their_time() {
        let deadlines = Deadlines::default();
        let now = SystemTime::now();
        let ids: Vec<_> = (0..3).map(|_| SandboxId::generate()).collect();
        deadlines.add(now + Duration::from_secs(5), ids[2].clone());
        deadlines.add(now - Duration::from_secs(1), ids[1].clone());
        deadlines.add(now - Duration::from_secs(2), ids[0].clone());
        let (due, rest) = deadlines.due(now);
        assert_eq!(due.iter().map(|(_, id)| id).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
        assert_eq!(rest, Duration::from_secs(5));
    }
}
