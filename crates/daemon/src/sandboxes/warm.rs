//! What pools need of the registry: sandboxes without a record, and their becoming one at a claim.

use super::create::{fresh_record, gone_caller, taken};
use super::resolve::Resolved;
use super::{CreateOutcome, Entry, Repeat, Sandboxes};
use crate::capacity::Room;
use crate::error::Result;
use crate::lock::lock;
use crate::pools::{Claimed, LivePool, NotGiven, Wanted};
use crate::record::SandboxRecord;
use crate::store::Change;
use hostel_pool::{Needs, PoolName, Priority};
use hostel_sandbox::file::InitialFile;
use hostel_sandbox::{Created, Error as DomainError, ResourceLimits, SandboxId, SandboxSpec};
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// Whose a claimed sandbox becomes.
pub(super) struct Identity<'a> {
    /// The id that was chosen; otherwise it keeps the one it has.
    pub id: Option<SandboxId>,
    pub expires: Option<SystemTime>,
    pub files: &'a [InitialFile],
    pub actor: &'a str,
}

/// What a claimed sandbox is given once it has its owner's id.
struct Wishes<'a> {
    spec: &'a SandboxSpec,
    files: &'a [InitialFile],
    /// Until when its files are to be there.
    until: Instant,
}

/// An id that a claim is to give, which no other claim has meanwhile. Given back when it is dropped.
struct Chosen<'a> {
    sandboxes: &'a Sandboxes,
    id: &'a SandboxId,
}

impl Drop for Chosen<'_> {
    fn drop(&mut self) {
        lock(&self.sandboxes.0.chosen).remove(self.id);
    }
}

/// A sandbox that nobody has asked for yet.
pub(crate) struct MadeWarm {
    /// What the backend was given.
    pub spec: SandboxSpec,
    pub created: Created,
    pub room: Room,
    /// When its making began, after the wait for room.
    pub begin: Instant,
}

impl Sandboxes {
    /// Makes a sandbox that nobody has asked for yet: ready, prepared by its template, and without a record. It waits
    /// for room until then, behind everybody that somebody waits for.
    ///
    /// # Errors
    /// As a creation.
    pub(crate) async fn make_warm(
        &self,
        spec: SandboxSpec,
        until: Instant,
        cancel: &CancellationToken,
    ) -> Result<MadeWarm> {
        let resolved = self.resolve(spec, None).await?;
        let needs = Needs::of(&resolved.spec.limits);
        let room = tokio::select! {
            biased;
            room = self.0.capacity.take(needs, Priority::Refill, until) => room?,
            () = cancel.cancelled() => return Err(gone_caller()),
        };
        let begin = Instant::now();
        let id = SandboxId::generate();
        let mut created = self.make(&id, &resolved, cancel).await?;
        // What prepared it may have needed the network; from now on nothing runs for anybody until it is claimed, and
        // what it may reach then is the claim's.
        self.0.reach.disconnect(&id).await;
        super::resolve::merge(&mut created.weaknesses, resolved.weaknesses);
        Ok(MadeWarm { spec: self.0.reach.equip(&id, &resolved.spec).into_owned(), created, room, begin })
    }

    /// Variables for a process that waits in a warm sandbox.
    pub(crate) fn prepare_process(&self, id: &SandboxId) -> Vec<(String, String)> {
        self.0.reach.prepare(id)
    }

    /// The pool that serves a request. Its limits are then the request's too, where that says nothing: a sandbox is
    /// the same, warm or cold, but for its host name where an id was chosen.
    pub(super) fn pool_for(
        &self,
        named: Option<&PoolName>,
        resolved: &mut Resolved,
    ) -> Result<Option<Arc<LivePool>>> {
        let pool = self.0.pools.for_request(named, &resolved.spec, &resolved.requested_limits)?;
        if let Some(pool) = &pool {
            let limits = resolved.requested_limits.or(&pool.spec().limits);
            resolved.spec.limits = limits.or(&resolved.spec.limits);
            if let Some(template) = &resolved.template {
                resolved.spec.limits = resolved.spec.limits.at_most(&template.max_limits);
            }
        }
        Ok(pool)
    }

    /// Claims a warm sandbox; nothing where none could be had.
    ///
    /// # Errors
    /// `AlreadyExists` for an id that was chosen and that another creation has; where it cannot be recorded, or what
    /// the caller asks for cannot be had; where the caller went away, who then has none.
    pub(super) async fn claim(
        &self,
        pool: &Arc<LivePool>,
        resolved: &Resolved,
        identity: Identity<'_>,
        repeat: Option<Repeat>,
        cancel: &CancellationToken,
    ) -> Result<Option<CreateOutcome>> {
        let Identity { id, expires, files, actor } = identity;
        let _chosen = id.as_ref().map(|id| self.choose(id)).transpose()?;
        let fresh = fresh_record(id.clone().unwrap_or_else(SandboxId::generate), resolved, expires, actor)?;
        let equip = |warm: &SandboxId| self.0.reach.equip(id.as_ref().unwrap_or(warm), &resolved.spec);
        let wanted = Wanted {
            template: resolved.spec.template.as_ref(),
            limits: &resolved.requested_limits,
            allowed: &|limits| is_allowed(resolved, limits),
        };
        let mut tries = pool.tries();
        while let Some(claimed) = pool.claim(&mut tries, &wanted, &equip, self).await {
            let (warm, took) = (claimed.record.id.clone(), claimed.took);
            let mut record = fresh.clone();
            if id.is_some() {
                record.backend_id = Some(warm.clone());
            } else {
                record.id = warm.clone();
            }
            record.pool = Some(pool.name().clone());
            record.spec.limits = resolved.requested_limits.or(&claimed.record.spec.limits);
            let wishes = Wishes { spec: &resolved.spec, files, until: tries.until() };
            // As where something is bound: it is to hold what is the caller's, and must not be found warm again.
            let forgotten = if files.is_empty() { Ok(()) } else { pool.forget(&warm).await };
            let error = match self.grant(claimed, forgotten, record, wishes, repeat.clone(), cancel).await {
                Ok(outcome) => {
                    pool.given(took);
                    self.0.metrics.claimed(pool.name().as_str(), took);
                    return Ok(Some(outcome));
                }
                Err(error) => error,
            };
            let why = if cancel.is_cancelled() { NotGiven::Left } else { NotGiven::by(&error) };
            pool.not_given(&warm, why).await;
            if why != NotGiven::Unfit {
                return Err(error);
            }
            tracing::warn!(pool = %pool.name(), sandbox = %warm, %error, "a claimed sandbox is not well and is removed");
        }
        Ok(None)
    }

    /// Keeps an id from other claims: they would take a warm sandbox each and could give none of them.
    fn choose<'a>(&'a self, id: &'a SandboxId) -> Result<Chosen<'a>> {
        if !lock(&self.0.chosen).insert(id.clone()) {
            return Err(taken(id));
        }
        let chosen = Chosen { sandboxes: self, id };
        // Another claim may have given it and be over since it was looked for.
        self.check_free(id)?;
        Ok(chosen)
    }

    /// Makes a claimed sandbox its owner's, unless it could not be forgotten. It is removed where that fails.
    async fn grant(
        &self,
        claimed: Claimed,
        forgotten: Result<()>,
        record: SandboxRecord,
        wishes: Wishes<'_>,
        repeat: Option<Repeat>,
        cancel: &CancellationToken,
    ) -> Result<CreateOutcome> {
        let (besides, id) = (claimed.removal(), record.id.clone());
        let created = Created {
            environment: claimed.environment,
            handle: claimed.handle,
            limits: claimed.limits,
            weaknesses: claimed.record.weaknesses,
            stages: claimed.stages,
        };
        // Where it is not reserved it takes its room until it is undone.
        let mut room = Some(claimed.room);
        let reserved = match forgotten {
            Ok(()) => self.reserve(record, &mut room).await,
            Err(error) => Err(error),
        };
        match reserved {
            Ok((entry, _operation)) => {
                let given = self.hand_over(&entry, created, wishes, repeat, besides, cancel).await;
                if given.is_err() {
                    self.unreserve(&entry);
                }
                given
            }
            Err(error) => {
                self.undo_unconnected(&id, &created).await;
                Err(error)
            }
        }
    }

    /// Lets a claimed sandbox reach what its owner may, and records it as theirs. It is removed where it is not given.
    async fn hand_over(
        &self,
        entry: &Arc<Entry>,
        mut created: Created,
        wishes: Wishes<'_>,
        repeat: Option<Repeat>,
        besides: Change,
        cancel: &CancellationToken,
    ) -> Result<CreateOutcome> {
        // Since the pool gave it until it was reserved, its end found nobody to be told to.
        if self.has_died(created.environment.id()) {
            self.undo_unconnected(entry.id(), &created).await;
            let detail = "it ended while it was claimed".to_owned();
            return Err(DomainError::Unavailable { what: "guest", detail }.into());
        }
        let connected = self.connect(entry.id(), &mut created, wishes.spec).await;
        match connected.and_then(|()| if cancel.is_cancelled() { Err(gone_caller()) } else { Ok(()) }) {
            Ok(()) => {
                let Wishes { files, until, .. } = wishes;
                let created = self.furnish_until(until, entry.id(), created, files, cancel).await?;
                self.commit_created(entry, created, repeat, besides).await
            }
            Err(error) => {
                self.undo(entry.id(), &created).await;
                Err(error)
            }
        }
    }

    /// Refuses an id that a sandbox has, or had while it was warm.
    pub(super) fn check_free(&self, id: &SandboxId) -> Result<()> {
        if self.of_backend_id(id).is_some() || self.get(id).is_ok() || self.0.pools.has_warm(id) {
            return Err(taken(id));
        }
        Ok(())
    }

    /// The sandbox that a backend knows by this id.
    pub(super) fn of_backend_id(&self, id: &SandboxId) -> Option<Arc<Entry>> {
        let entries = lock(&self.0.entries);
        let same = entries.get(id).filter(|entry| entry.record().backend_id() == id).cloned();
        same.or_else(|| entries.values().find(|entry| entry.record().backend_id() == id).cloned())
    }
}

/// Whether a sandbox with these limits is what the template allows now. What its backend cannot hold is nobody's to
/// allow.
fn is_allowed(resolved: &Resolved, limits: &ResourceLimits) -> bool {
    let Some(template) = &resolved.template else { return true };
    let lower = limits.at_most(&template.max_limits).changes_to(limits);
    !lower.needs().any(|capability| resolved.backend.capabilities().has(capability))
}
