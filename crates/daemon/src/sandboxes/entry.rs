//! One sandbox in memory: its record as last committed, the live environment behind it, and who uses it now.

use crate::capacity::Room;
use crate::error::Result;
use crate::lock::lock;
use crate::record::SandboxRecord;
use bytes::Bytes;
use hostel_pool::Needs;
use hostel_sandbox::{Error as DomainError, ExecutionEnvironment, Inside, SandboxId, SandboxState};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The right to change the life of one sandbox. Ends when it is dropped.
#[must_use]
pub(super) struct Operation {
    _lock: OwnedMutexGuard<()>,
}

/// One sandbox.
pub(crate) struct Entry {
    id: SandboxId,
    /// Held by whoever changes its life.
    operation: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when it is about to be stopped, or has ended by itself.
    ending: CancellationToken,
    view: Mutex<View>,
}

struct View {
    record: Arc<SandboxRecord>,
    handle: Bytes,
    environment: Option<Arc<dyn ExecutionEnvironment>>,
    /// What it takes of the node; given back when it ends.
    room: Option<Room>,
    /// What ends its making.
    making: Option<CancellationToken>,
    /// Somebody deleted it while it was being made.
    given_up: bool,
    /// It is about to be stopped: no new calls.
    closing: bool,
    /// Calls under way.
    calls: usize,
    /// When the newest call began or ended.
    last_call: SystemTime,
    /// When the timer looks at it next.
    pub(super) alarm: Option<SystemTime>,
}

impl Entry {
    pub(super) fn new(record: Arc<SandboxRecord>, handle: Bytes, room: Option<Room>) -> Self {
        Self {
            id: record.id.clone(),
            operation: Arc::default(),
            ending: CancellationToken::new(),
            view: Mutex::new(View {
                record,
                handle,
                environment: None,
                room,
                making: None,
                given_up: false,
                closing: false,
                calls: 0,
                last_call: SystemTime::now(),
                alarm: None,
            }),
        }
    }

    pub(crate) fn id(&self) -> &SandboxId {
        &self.id
    }

    /// The record as last committed.
    pub(crate) fn record(&self) -> Arc<SandboxRecord> {
        Arc::clone(&lock(&self.view).record)
    }

    pub(super) fn handle(&self) -> Bytes {
        lock(&self.view).handle.clone()
    }

    /// Says what ends its making.
    pub(super) fn is_made_until(&self, unwanted: CancellationToken) {
        lock(&self.view).making = Some(unwanted);
    }

    /// It is made.
    pub(super) fn is_made(&self) {
        lock(&self.view).making = None;
    }

    /// Ends its making, if it is being made.
    pub(super) fn give_up(&self) {
        let mut view = lock(&self.view);
        if let Some(unwanted) = view.making.take() {
            view.given_up = true;
            unwanted.cancel();
        }
    }

    /// Whether it was deleted while it was being made.
    pub(super) fn is_given_up(&self) -> bool {
        lock(&self.view).given_up
    }

    /// Waits for the right to change its life.
    pub(super) async fn operate(&self) -> Operation {
        Operation { _lock: Arc::clone(&self.operation).lock_owned().await }
    }

    /// Shows a committed record. An ended sandbox lets go of its environment and its place.
    pub(super) fn show(&self, record: Arc<SandboxRecord>) {
        let mut view = lock(&self.view);
        let dropped = record.state().is_final().then(|| {
            view.handle = Bytes::new();
            (view.environment.take(), view.room.take())
        });
        view.record = record;
        drop(view);
        drop(dropped);
    }

    /// Gives it what it takes of the node.
    pub(super) fn take_room(&self, room: &mut Option<Room>) {
        lock(&self.view).room = room.take();
    }

    /// Takes more or less of the node, at once or not at all.
    ///
    /// # Errors
    /// `NoRoom`.
    pub(super) fn resize(&self, needs: Needs) -> Result<()> {
        lock(&self.view).room.as_mut().map_or(Ok(()), |room| room.resize(needs))
    }

    /// Lets go of everything: its record is gone.
    pub(super) fn retire(&self) {
        let mut view = lock(&self.view);
        view.closing = true;
        view.handle = Bytes::new();
        let dropped = (view.environment.take(), view.room.take());
        drop(view);
        drop(dropped);
        self.ending.cancel();
    }

    /// Gives it its live environment.
    pub(super) fn attach(&self, environment: Arc<dyn ExecutionEnvironment>, handle: Bytes) {
        let mut view = lock(&self.view);
        view.environment = Some(environment);
        view.handle = handle;
    }

    /// The environment while there is one, whatever the state.
    pub(crate) fn environment(&self) -> Option<Arc<dyn ExecutionEnvironment>> {
        lock(&self.view).environment.clone()
    }

    /// The environment of a sandbox that is ready or paused.
    ///
    /// # Errors
    /// `WrongState` (`SANDBOX_STATE`).
    pub(crate) fn live(&self) -> Result<Arc<dyn ExecutionEnvironment>> {
        let view = lock(&self.view);
        match &view.environment {
            Some(environment)
                if matches!(view.record.state(), SandboxState::Ready | SandboxState::Paused) =>
            {
                Ok(Arc::clone(environment))
            }
            _ => Err(not_in_state(&view.record)),
        }
    }

    /// Resolves when it is about to be stopped, or has ended by itself.
    pub(crate) fn ended(&self) -> tokio_util::sync::WaitForCancellationFuture<'_> {
        self.ending.cancelled()
    }

    /// Begins a call on a ready sandbox.
    ///
    /// # Errors
    /// `WrongState` (`SANDBOX_STATE`).
    pub(crate) fn enter(self: Arc<Self>) -> Result<Lease> {
        let environment = {
            let mut view = lock(&self.view);
            let ready = view.record.state() == SandboxState::Ready && !view.closing;
            let Some(environment) = view.environment.clone().filter(|_| ready) else {
                return Err(not_in_state(&view.record));
            };
            view.calls += 1;
            view.last_call = SystemTime::now();
            environment
        };
        Ok(Lease { environment, entry: self })
    }

    /// Notes that somebody changed it, which counts as using it.
    pub(crate) fn touch(&self) {
        lock(&self.view).last_call = SystemTime::now();
    }

    /// Since when nobody calls; `None` while somebody does.
    pub(super) fn quiet_since(&self) -> Option<SystemTime> {
        let view = lock(&self.view);
        (view.calls == 0).then_some(view.last_call)
    }

    /// Refuses calls from now on, unless one came since `quiet_since`.
    pub(super) fn close_if_quiet(&self, quiet_since: SystemTime) -> bool {
        let mut view = lock(&self.view);
        let quiet = view.calls == 0 && view.last_call == quiet_since;
        view.closing |= quiet;
        drop(view);
        if quiet {
            self.ending.cancel();
        }
        quiet
    }

    /// Refuses calls from now on.
    pub(super) fn close(&self) {
        lock(&self.view).closing = true;
        self.ending.cancel();
    }

    /// Notes when the timer shall look at it; false where it does so sooner or then already.
    pub(super) fn set_alarm(&self, time: SystemTime) -> bool {
        let mut view = lock(&self.view);
        let sooner = view.alarm.is_none_or(|alarm| time < alarm);
        if sooner {
            view.alarm = Some(time);
        }
        sooner
    }

    /// Takes the alarm that was set for `time`; false where it was set anew since.
    pub(super) fn take_alarm(&self, time: SystemTime) -> bool {
        let mut view = lock(&self.view);
        let mine = view.alarm == Some(time);
        if mine {
            view.alarm = None;
        }
        mine
    }
}

fn not_in_state(record: &SandboxRecord) -> crate::Error {
    let (id, state, reason) = (&record.id, record.state(), &record.transition.reason);
    DomainError::wrong_state("SANDBOX_STATE", format!("sandbox {id} is {state} ({reason})")).into()
}

/// One call under way on a ready sandbox.
pub(crate) struct Lease {
    environment: Arc<dyn ExecutionEnvironment>,
    entry: Arc<Entry>,
}

impl Lease {
    /// Its processes and files.
    ///
    /// # Errors
    /// `WrongState` (`SANDBOX_STATE`) while it is paused.
    pub(crate) fn inside(&self) -> Result<&dyn Inside> {
        Ok(self.environment.inside()?)
    }

    pub(crate) fn id(&self) -> &SandboxId {
        self.entry.id()
    }

    pub(crate) fn record(&self) -> Arc<SandboxRecord> {
        self.entry.record()
    }

    /// Resolves when the sandbox is about to be stopped, or has ended by itself.
    pub(crate) fn ending(&self) -> WaitForCancellationFutureOwned {
        self.entry.ending.clone().cancelled_owned()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut view = lock(&self.entry.view);
        view.calls -= 1;
        view.last_call = SystemTime::now();
    }
}
