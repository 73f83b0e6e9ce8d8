//! Making a sandbox: one commit, when it is ready.

use super::entry::Operation;
use super::ready::prepare;
use super::resolve::{self, Resolved};
use super::warm::Identity;
use super::{Entry, Repeat, Sandboxes};
use crate::capacity::Room;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::metrics::Start;
use crate::record::{Event, EventKind, SandboxRecord};
use crate::store::{Change, StoredRequest};
use hostel_pool::{Needs, PoolName, Priority};
use hostel_sandbox::file::InitialFile;
use hostel_sandbox::{
    Created, Error as DomainError, NetworkPolicy, SandboxId, SandboxSpec, SandboxState, Stage, Transition,
};
use std::collections::hash_map;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// The longest wait for room, whatever the caller's deadline: whoever went away meanwhile, and left a request that may
/// be repeated, keeps a place in the queue no longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A request for a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct NewSandbox {
    /// Its id; made here where absent.
    pub id: Option<SandboxId>,
    pub spec: SandboxSpec,
    /// What the caller said of the network; otherwise the template's policy holds.
    pub network: Option<NetworkPolicy>,
    /// When it is stopped, where the caller named a moment rather than a lifetime.
    pub expires: Option<SystemTime>,
    /// What is written into it before anybody sees it.
    pub files: Vec<InitialFile>,
    /// The pool to claim from; any that fits where absent.
    pub pool: Option<PoolName>,
    /// Until when to wait for room.
    pub until: Instant,
}

/// A sandbox that is there, and how long its making took.
#[derive(Debug, Clone)]
pub(crate) struct CreateOutcome {
    pub record: Arc<SandboxRecord>,
    /// Empty where an earlier request made it.
    pub stages: Vec<Stage>,
}

impl Sandboxes {
    /// Makes a sandbox and returns when it is ready. With `repeat` it goes on when the caller goes away, and the
    /// same request again returns the same sandbox; without, it is undone when the caller goes away.
    ///
    /// # Errors
    /// `InvalidArgument`, `AlreadyExists`, `NotFound`, `CapabilityMissing`, `LimitReached`, and of the backend.
    pub(crate) async fn create(
        &self,
        new: NewSandbox,
        actor: String,
        repeat: Option<Repeat>,
    ) -> Result<CreateOutcome> {
        let this = self.clone();
        let Some(repeat) = repeat else {
            let work = |left| async move { this.create_now(new, &actor, None, &left).await };
            return self.told_of_leaving(work).await;
        };
        let asked = repeat.clone();
        let work = async move {
            if let Some(earlier) = this.0.store.request(&asked.key).await? {
                return this.created_before(&asked, &earlier);
            }
            this.create_now(new, &actor, Some(asked), &CancellationToken::new()).await
        };
        Box::pin(self.0.creations.once(&self.0.tasks, &repeat, work)).await
    }

    fn created_before(&self, repeat: &Repeat, earlier: &StoredRequest) -> Result<CreateOutcome> {
        repeat.check(&earlier.body)?;
        let id = SandboxId::parse(earlier.outcome.clone())?;
        Ok(CreateOutcome { record: self.get(&id)?.record(), stages: Vec::new() })
    }

    async fn create_now(
        &self,
        new: NewSandbox,
        actor: &str,
        repeat: Option<Repeat>,
        cancel: &CancellationToken,
    ) -> Result<CreateOutcome> {
        let made = self.claim_or_make(new, actor, repeat, cancel).await;
        made.inspect_err(|error| self.0.metrics.not_created(error.reason()))
    }

    async fn claim_or_make(
        &self,
        new: NewSandbox,
        actor: &str,
        repeat: Option<Repeat>,
        cancel: &CancellationToken,
    ) -> Result<CreateOutcome> {
        let begin = Instant::now();
        if self.is_draining() {
            return Err(Error::NodeDraining);
        }
        let NewSandbox { id, spec, network, expires, files, pool, until } = new;
        let mut resolved = self.resolve(spec, network).await?;
        if let Some(id) = &id {
            self.check_free(id)?;
        }
        if let Some(pool) = self.pool_for(pool.as_ref(), &mut resolved)? {
            let identity = Identity { id: id.clone(), expires, files: &files, actor };
            if let Some(outcome) = self.claim(&pool, &resolved, identity, repeat.clone(), cancel).await? {
                self.tell_created(&outcome, begin);
                return Ok(outcome);
            }
        }
        if cancel.is_cancelled() {
            return Err(gone_caller());
        }
        let room = self.room(Needs::of(&resolved.spec.limits), until, cancel).await?;
        let waited = room.waited();
        let record = fresh_record(id.unwrap_or_else(SandboxId::generate), &resolved, expires, actor)?;
        let (entry, _operation) = self.reserve(record, &mut Some(room)).await?;
        entry.is_made_until(cancel.clone());
        let mut made = match self.make(entry.id(), &resolved, cancel).await {
            Ok(created) => self.furnish(entry.id(), created, &files, cancel).await,
            Err(error) => Err(error),
        };
        if let (Ok(created), Some(duration)) = (&mut made, waited) {
            created.stages.insert(0, Stage { name: "queue", duration });
        }
        entry.is_made();
        let result = match made {
            Ok(created) => self.commit_created(&entry, created, repeat, Change::default()).await,
            Err(_) if entry.is_given_up() => {
                let detail = "it was deleted while it was being made";
                Err(DomainError::wrong_state("SANDBOX_STATE", detail).into())
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(outcome) => {
                self.tell_created(&outcome, begin);
                Ok(outcome)
            }
            Err(error) => {
                self.unreserve(&entry);
                // The caller hears of it; faults of ours are logged where they become its status.
                tracing::debug!(sandbox = %entry.id(), op = "create", duration = ?begin.elapsed(), %error, "sandbox not made");
                Err(error)
            }
        }
    }

    /// Takes room for a sandbox that somebody waits for, or waits for it until then.
    ///
    /// # Errors
    /// `NoRoom`; where the caller goes away, the operator drains the node, or the daemon stops meanwhile.
    async fn room(&self, needs: Needs, until: Instant, cancel: &CancellationToken) -> Result<Room> {
        let asked = Instant::now();
        let until = until.min(asked + LONGEST_WAIT);
        let room = tokio::select! {
            biased;
            room = self.0.capacity.take(needs, Priority::Cold, until) => room?,
            () = cancel.cancelled() => return Err(gone_caller()),
            () = self.0.stop.cancelled() => return Err(Error::Draining),
        };
        self.0.metrics.waited(asked.elapsed());
        if self.is_draining() {
            return Err(Error::NodeDraining);
        }
        Ok(room)
    }

    /// Has the backend make it and the template prepare it. Nothing is left where that fails.
    pub(super) async fn make(
        &self,
        id: &SandboxId,
        resolved: &Resolved,
        cancel: &CancellationToken,
    ) -> Result<Created> {
        let equipped = self.0.reach.equip(id, &resolved.spec);
        let created = tokio::select! {
            biased;
            created = resolved.backend.create(id, &equipped) => Some(created?),
            () = cancel.cancelled() => None,
        };
        let Some(mut created) = created else {
            // What is still being made takes its room, and keeps its id. At the daemon's end its backend waits for it.
            tokio::select! {
                () = resolved.backend.settle(id) => {}
                () = self.0.stop.cancelled() => {}
            }
            return Err(gone_caller());
        };
        let mut begin = Instant::now();
        // What cannot be held to its policy does not start.
        let prepared = async {
            self.connect(id, &mut created, &resolved.spec).await?;
            begin = Instant::now();
            prepare(&created.environment, resolved.template.as_deref()).await
        };
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(gone_caller()),
            prepared = prepared => prepared,
        };
        if let Err(error) = prepared {
            self.undo(id, &created).await;
            return Err(error);
        }
        if resolved.template.as_ref().is_some_and(|template| template.prepares()) {
            created.stages.push(Stage { name: "prepare", duration: begin.elapsed() });
        }
        Ok(created)
    }

    /// Lets a sandbox reach what its policy says, before anything runs in it.
    ///
    /// # Errors
    /// Where that cannot be enforced.
    pub(super) async fn connect(
        &self,
        id: &SandboxId,
        created: &mut Created,
        spec: &SandboxSpec,
    ) -> Result<()> {
        let begin = Instant::now();
        if self.0.reach.connect(id, &created.environment, spec).await? {
            created.stages.push(Stage { name: "network", duration: begin.elapsed() });
        }
        Ok(())
    }

    /// Takes an id, so that no other creation has it, and the right to change what has it: whoever finds the sandbox
    /// before it is made waits until it is, or is not. Its room goes with it.
    ///
    /// # Errors
    /// `AlreadyExists`; the room is then the caller's still.
    pub(super) async fn reserve(
        &self,
        record: SandboxRecord,
        room: &mut Option<Room>,
    ) -> Result<(Arc<Entry>, Operation)> {
        let entry = Arc::new(Entry::new(Arc::new(record), bytes::Bytes::new(), None));
        let operation = entry.operate().await;
        match lock(&self.0.entries).entry(entry.id().clone()) {
            hash_map::Entry::Occupied(_) => Err(taken(entry.id())),
            hash_map::Entry::Vacant(vacant) => {
                entry.take_room(room);
                vacant.insert(Arc::clone(&entry));
                Ok((entry, operation))
            }
        }
    }

    /// Gives back what [`Self::reserve`] took. The caller still holds the operation lock, so that nobody who waits for
    /// it takes the sandbox for one that was made.
    pub(super) fn unreserve(&self, entry: &Arc<Entry>) {
        self.remove_entry(entry);
    }

    /// Takes a sandbox out of the map. Another one that has its id by now stays.
    pub(super) fn remove_entry(&self, entry: &Arc<Entry>) {
        if let hash_map::Entry::Occupied(found) = lock(&self.0.entries).entry(entry.id().clone())
            && Arc::ptr_eq(found.get(), entry)
        {
            found.remove();
        }
    }

    pub(super) async fn commit_created(
        &self,
        entry: &Arc<Entry>,
        created: Created,
        repeat: Option<Repeat>,
        besides: Change,
    ) -> Result<CreateOutcome> {
        let (record, change) = self.ready(entry, &created, None);
        let request = repeat.map(|repeat| repeat.fulfilled(entry.id().to_string()));
        let change = Change { request, remove_warm: besides.remove_warm, ..change };
        let (target, shown) = (Arc::clone(entry), Arc::clone(&record));
        let (environment, handle) = (Arc::clone(&created.environment), created.handle.clone());
        let committed = self.0.store.commit_then(change, move || {
            target.attach(environment, handle);
            target.show(shown);
        });
        if let Err(error) = committed.await {
            self.undo(entry.id(), &created).await;
            return Err(error);
        }
        self.schedule(entry);
        Ok(CreateOutcome { record, stages: created.stages })
    }

    /// Destroys a sandbox that nobody will hear of, and ends its line.
    pub(crate) async fn undo(&self, id: &SandboxId, created: &Created) {
        self.0.reach.disconnect(id).await;
        self.0.reach.forget(id).await;
        self.undo_unconnected(id, created).await;
    }

    /// Destroys a sandbox that nobody will hear of, before a line was laid for it. The line of that id, where there is
    /// one, is another's.
    pub(super) async fn undo_unconnected(&self, id: &SandboxId, created: &Created) {
        if let Err(error) = created.environment.destroy().await {
            tracing::warn!(sandbox = %id, %error, "a sandbox that was given up could not be removed; the next start does it");
        }
    }

    /// Says in log and metrics that a sandbox is ready.
    fn tell_created(&self, outcome: &CreateOutcome, begin: Instant) {
        let (record, duration) = (&outcome.record, begin.elapsed());
        let pool = record.pool.as_ref().map(AsRef::as_ref);
        let start = if pool.is_some() { Start::Warm } else { Start::Cold };
        self.0.metrics.created(&record.backend, start, duration, &outcome.stages);
        tracing::info!(
            sandbox = %record.id, op = "create", ?duration, backend = %record.backend, pool,
            actor = record.transition.actor, "sandbox ready"
        );
    }

    /// The record of a sandbox that was just made, and the change that makes it known.
    pub(super) fn ready(
        &self,
        entry: &Entry,
        created: &Created,
        parent: Option<&SandboxId>,
    ) -> (Arc<SandboxRecord>, Change) {
        let mut record = (*entry.record()).clone();
        record.parent = parent.cloned();
        let actor = record.transition.actor.clone();
        record.enter(SandboxState::Ready, "created", &actor, String::new());
        record.ready = Some(record.updated);
        record.limits = created.limits.clone();
        resolve::merge(&mut record.weaknesses, created.weaknesses.clone());
        let event = Event::of(EventKind::Created, None, &record);
        let record = Arc::new(record);
        let change = Change::of(Arc::clone(&record), created.handle.clone(), event);
        (record, change)
    }
}

/// The record of a sandbox that is being made.
pub(super) fn fresh_record(
    id: SandboxId,
    resolved: &Resolved,
    expires: Option<SystemTime>,
    actor: &str,
) -> Result<SandboxRecord> {
    let created = SystemTime::now();
    let mut spec = resolved.spec.clone();
    let expires = expires.or_else(|| spec.lifetime.and_then(|lifetime| created.checked_add(lifetime)));
    if let Some(expires) = expires {
        // A fork gets the same lifetime again, so it is kept also where a moment was named.
        let past = |_| DomainError::invalid("expire_time", "must be to come");
        spec.lifetime = Some(expires.duration_since(created).map_err(past)?);
    }
    Ok(SandboxRecord {
        id,
        backend: resolved.backend.name(),
        requested_limits: resolved.requested_limits.clone(),
        spec,
        limits: resolved.spec.limits.clone(),
        weaknesses: resolved.weaknesses.clone(),
        transition: Transition {
            state: SandboxState::Creating,
            reason: "requested".to_owned(),
            actor: actor.to_owned(),
            time: created,
        },
        detail: String::new(),
        created,
        ready: None,
        updated: created,
        expires,
        parent: None,
        snapshot: None,
        pool: None,
        backend_id: None,
    })
}

/// For an id that another sandbox has, or is to have.
pub(super) fn taken(id: &SandboxId) -> Error {
    DomainError::AlreadyExists { kind: "sandbox", id: id.to_string() }.into()
}

pub(super) fn gone_caller() -> Error {
    left("the creation")
}

/// For work whose caller went away, which then has nobody to be told of it.
pub(super) fn left(what: &str) -> Error {
    DomainError::DeadlineExceeded { what: format!("the caller went away; {what}") }.into()
}
