//! What a build tells, kept for whoever follows it late.

use crate::error::{Error, Result};
use crate::lock::lock;
use bytes::Bytes;
use hostel_sandbox::BackendName;
use hostel_sandbox::process::OutputStream;
use hostel_sandbox::template::Template;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Output that is kept, in bytes with what each piece costs beside.
const KEPT_OUTPUT: usize = 4 << 20;
/// What a piece of output costs beside its bytes.
const PIECE: usize = 128;

/// Something that happened in a build.
#[derive(Debug, Clone)]
pub(crate) enum BuildEvent {
    StepStarted {
        index: u32,
        command: Vec<String>,
    },
    Output {
        index: u32,
        stream: OutputStream,
        data: Bytes,
    },
    StepFinished {
        index: u32,
        command: Vec<String>,
        duration: Duration,
    },
    /// The template is there; last.
    Done {
        backend: BackendName,
        template: Box<Template>,
    },
}

impl BuildEvent {
    fn cost(&self) -> usize {
        match self {
            Self::Output { data, .. } => data.len() + PIECE,
            _ => 0,
        }
    }
}

/// The events of one build.
pub(super) struct Log {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// Each with its number; the oldest output is missing where there was much.
    events: VecDeque<(u64, BuildEvent)>,
    next: u64,
    cost: usize,
    ended: Option<(Instant, Result<()>)>,
}

impl Log {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), changed: watch::channel(0).0 })
    }

    pub(super) fn add(&self, event: BuildEvent) {
        let mut inner = lock(&self.inner);
        inner.cost += event.cost();
        let number = inner.next;
        inner.next += 1;
        inner.events.push_back((number, event));
        while inner.cost > KEPT_OUTPUT {
            // Before the oldest output there are at most the two events of each step.
            let oldest = inner.events.iter().position(|(_, event)| event.cost() > 0);
            let Some((_, event)) = oldest.and_then(|index| inner.events.remove(index)) else { break };
            inner.cost -= event.cost();
        }
        drop(inner);
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn end(&self, ended: Result<()>) {
        lock(&self.inner).ended = Some((Instant::now(), ended));
        self.changed.send_modify(|count| *count += 1);
    }

    /// How long ago it ended, if it did.
    pub(super) fn ended_since(&self) -> Option<Duration> {
        lock(&self.inner).ended.as_ref().map(|(time, _)| time.elapsed())
    }

    /// From its beginning; `left` is cancelled when what follows is dropped.
    pub(super) fn follow(self: &Arc<Self>, left: Option<CancellationToken>) -> Followed {
        let changed = self.changed.subscribe();
        Followed {
            log: Arc::clone(self),
            next: 0,
            changed,
            over: false,
            _left: left.map(CancellationToken::drop_guard),
        }
    }
}

/// Reads a build's events from its beginning.
pub(crate) struct Followed {
    log: Arc<Log>,
    next: u64,
    changed: watch::Receiver<u64>,
    over: bool,
    /// Tells that it was dropped.
    _left: Option<DropGuard>,
}

impl Followed {
    /// The next event, or why there will be no template. `None` after either.
    pub(crate) async fn next(&mut self) -> Option<Result<BuildEvent>> {
        if self.over {
            return None;
        }
        loop {
            self.changed.mark_unchanged();
            if let Some(item) = self.take() {
                self.over = !matches!(&item, Ok(event) if !matches!(event, BuildEvent::Done { .. }));
                return Some(item);
            }
            if self.changed.changed().await.is_err() {
                self.over = true;
                return Some(Err(
                    hostel_sandbox::Error::internal("build a template", "its task ended").into()
                ));
            }
        }
    }

    fn take(&mut self) -> Option<Result<BuildEvent>> {
        let inner = lock(&self.log.inner);
        let index = inner.events.partition_point(|(number, _)| *number < self.next);
        if let Some((number, event)) = inner.events.get(index) {
            self.next = number + 1;
            return Some(Ok(event.clone()));
        }
        let (_, ended) = inner.ended.as_ref()?;
        let nothing: Error = hostel_sandbox::Error::internal("build a template", "it made none").into();
        Some(Err(ended.clone().err().unwrap_or(nothing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(length: usize) -> BuildEvent {
        BuildEvent::Output { index: 0, stream: OutputStream::Stdout, data: vec![b'x'; length].into() }
    }

    #[tokio::test]
    async fn who_comes_late_gets_the_steps_and_the_newest_output() {
        let log = Log::new();
        log.add(BuildEvent::StepStarted { index: 0, command: vec![] });
        for _ in 0..100 {
            log.add(output(100 << 10));
        }
        log.end(Err(Error::Draining));
        let mut followed = log.follow(None);
        assert!(matches!(followed.next().await, Some(Ok(BuildEvent::StepStarted { .. }))));
        let mut bytes = 0;
        while let Some(Ok(BuildEvent::Output { data, .. })) = followed.next().await {
            bytes += data.len();
        }
        assert!(bytes > 3 << 20 && bytes <= KEPT_OUTPUT, "{bytes}");
        assert!(followed.next().await.is_none(), "the error came and was the last");
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let log = Log::new();
        let mut followed = log.follow(None);
        let waiting = async { followed.next().await };
        let telling = async { log.add(output(1)) };
        let (item, ()) = tokio::join!(waiting, telling);
        assert!(matches!(item, Some(Ok(BuildEvent::Output { .. }))));
    }
}
