//! A warm sandbox becomes somebody's.

use super::live::{Claiming, State, Warm};
use super::{LivePool, Pools};
use crate::capacity::Room;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::record::WarmRecord;
use crate::sandboxes::Sandboxes;
use crate::store::Change;
use bytes::Bytes;
use hostel_pool::{Fit, Needs, PoolName};
use hostel_sandbox::{
    Error as DomainError, ExecutionEnvironment, ResourceLimits, SandboxId, SandboxSpec, Stage, Stopwatch,
    TemplateId,
};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Warm sandboxes that are tried before a claim becomes a cold start.
const TRIES: usize = 3;
/// How long one may take to become somebody's, all that are tried together.
const BINDING: Duration = Duration::from_secs(2);

/// What a claim asks of a warm sandbox.
pub(crate) struct Wanted<'a> {
    pub(crate) template: Option<&'a TemplateId>,
    /// What the caller says of limits.
    pub(crate) limits: &'a ResourceLimits,
    /// Whether a sandbox of the template may have these limits now.
    pub(crate) allowed: &'a (dyn Fn(&ResourceLimits) -> bool + Sync),
}

/// Why a claimed sandbox came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotGiven {
    /// It is not well; the next one may be.
    Unfit,
    /// What was asked for cannot be had. What one cannot become, the next cannot either.
    Refused,
    /// Whoever claimed it went away.
    Left,
}

impl NotGiven {
    /// What a failure says of the sandbox: it is at fault where it does not answer as it should.
    pub(crate) fn by(error: &Error) -> Self {
        match error {
            Error::Domain(
                DomainError::Unavailable { .. }
                | DomainError::DeadlineExceeded { .. }
                | DomainError::Protocol { .. },
            ) => Self::Unfit,
            _ => Self::Refused,
        }
    }
}

/// What a claim has left to try with: all the warm sandboxes that it takes share one budget. While it lives the claim
/// is under way.
pub(crate) struct Tries {
    begin: Instant,
    taken: usize,
    /// None of them can become what is wanted.
    hopeless: bool,
    _claiming: Claiming,
}

impl Tries {
    /// Until when a claim may take: then a cold start is no later than it would be without a pool.
    pub(crate) fn until(&self) -> Instant {
        self.begin + BINDING
    }

    fn are_over(&self) -> bool {
        self.hopeless || self.taken >= TRIES || Instant::now() >= self.until()
    }
}

/// A warm sandbox that is a caller's, but for its record.
pub(crate) struct Claimed {
    pub(crate) record: WarmRecord,
    pub(crate) environment: Arc<dyn ExecutionEnvironment>,
    pub(crate) handle: Bytes,
    pub(crate) limits: ResourceLimits,
    pub(crate) room: Room,
    pub(crate) stages: Vec<Stage>,
    /// How long taking and binding it took, with those that were tried before it.
    pub(crate) took: Duration,
}

impl Pools {
    /// The pool that serves a resolved request: the one named, or one of its backend and template that need not be
    /// named. Rather one that is not being drained, of those one whose limits are as asked, and of those one that has
    /// something warm.
    ///
    /// # Errors
    /// `NotFound` for a pool that was named; `InvalidArgument` where that makes something else.
    pub(crate) fn for_request(
        &self,
        named: Option<&PoolName>,
        spec: &SandboxSpec,
        requested: &ResourceLimits,
    ) -> Result<Option<Arc<LivePool>>> {
        if let Some(name) = named {
            let pool = self.get(name)?;
            if pool.fits(spec, requested) == Fit::No {
                let made = pool.spec();
                let problem = format!(
                    "the pool {name} holds sandboxes of the template {} of {}",
                    made.template, made.backend
                );
                return Err(DomainError::invalid("pool", problem).into());
            }
            return Ok(Some(pool));
        }
        let pools = self.all().into_iter();
        let fitting = pools.filter_map(|pool| Some((pool.rank(spec, requested)?, pool)));
        Ok(fitting.min_by_key(|(rank, _)| *rank).map(|(_, pool)| pool))
    }
}

impl State {
    fn fits(&self, spec: &SandboxSpec, requested: &ResourceLimits) -> Fit {
        match (&spec.backend, &spec.template) {
            (Some(backend), Some(template)) => self.record.spec.fits(backend, template, requested),
            _ => Fit::No,
        }
    }
}

impl LivePool {
    fn fits(&self, spec: &SandboxSpec, requested: &ResourceLimits) -> Fit {
        lock(&self.state).fits(spec, requested)
    }

    /// How well it suits a request that names no pool, the least is best; nothing where it does not.
    fn rank(&self, spec: &SandboxSpec, requested: &ResourceLimits) -> Option<(bool, bool, bool)> {
        let state = lock(&self.state);
        if state.record.spec.named_only {
            return None;
        }
        let other_limits = match state.fits(spec, requested) {
            Fit::Exact => false,
            Fit::WithOtherLimits => true,
            Fit::No => return None,
        };
        Some((state.record.spec.draining, other_limits, state.warm.is_empty()))
    }

    /// Begins a claim.
    pub(crate) fn tries(self: &Arc<Self>) -> Tries {
        Tries { begin: Instant::now(), taken: 0, hopeless: false, _claiming: self.claiming() }
    }

    /// Takes a warm sandbox of the wanted template and gives it to the caller, as `equip` says of its id; nothing where
    /// none is there or fits, or binding failed: then that is counted. What is claimed is to be answered by
    /// [`Self::given`] or [`Self::not_given`]; after the latter the claim may go on with the tries that are left.
    pub(crate) async fn claim<'a>(
        self: &Arc<Self>,
        tries: &mut Tries,
        wanted: &Wanted<'_>,
        equip: &(dyn Fn(&SandboxId) -> Cow<'a, SandboxSpec> + Sync),
        sandboxes: &Sandboxes,
    ) -> Option<Claimed> {
        while !tries.are_over() {
            let warm = self.take(wanted, tries.taken > 0)?;
            tries.taken += 1;
            let spec = equip(&warm.record.id);
            let mut stopwatch = Stopwatch::start();
            let until = tokio::time::Instant::from_std(tries.until());
            let bound = tokio::time::timeout_at(until, self.bind(&warm, &spec, wanted.limits)).await;
            let late = || Err(DomainError::DeadlineExceeded { what: "binding it".to_owned() }.into());
            match bound.unwrap_or_else(|_| late()) {
                Ok((handle, limits)) => {
                    stopwatch.lap("bind");
                    let Warm { record, environment, room, .. } = warm;
                    return Some(Claimed {
                        record,
                        environment,
                        handle,
                        limits,
                        room,
                        stages: stopwatch.stages(),
                        took: tries.begin.elapsed(),
                    });
                }
                Err(error) => {
                    tracing::warn!(pool = %self.name, sandbox = %warm.record.id, %error, "a warm sandbox could not be given and is removed");
                    tries.hopeless = NotGiven::by(&error) == NotGiven::Refused;
                    self.tell(|state, now| {
                        if tries.hopeless {
                            state.brain.not_wanted(&warm.record.id, now);
                        } else {
                            state.brain.claim_failed(&warm.record.id, now);
                        }
                    });
                    sandboxes.tasks().spawn(Arc::clone(self).dispose(warm, sandboxes.clone()));
                }
            }
        }
        self.tell(|state, _| state.brain.in_vain());
        None
    }

    /// Takes one out of the pool with the room that it needs to become what is wanted, in one step: nobody else gets
    /// either. `again`: the same claim took one before.
    fn take(&self, wanted: &Wanted<'_>, again: bool) -> Option<Warm> {
        self.tell(|state, now| {
            // The one that would be given; none of the others says anything about it.
            let best = state.brain.best().cloned();
            let fits = match best.and_then(|id| state.warm.get_mut(&id)) {
                Some(warm) => warm.record.spec.template.as_ref() == wanted.template && fit(warm, wanted),
                // What the pool says nothing of, the next one may well have as it is asked for.
                None => same_disk(wanted.limits, &state.record.spec.limits.or(wanted.limits)),
            };
            let id = match (fits, again) {
                (true, false) => state.brain.claim(now),
                (true, true) => state.brain.claim_again(now),
                (false, false) => {
                    state.brain.missed(now);
                    None
                }
                (false, true) => {
                    state.brain.in_vain();
                    None
                }
            };
            state.warm.remove(&id?)
        })
    }

    /// Gives it its share of the processors, and binds what differs; where nothing does, the guest is not even asked.
    async fn bind(
        &self,
        warm: &Warm,
        spec: &SandboxSpec,
        requested: &ResourceLimits,
    ) -> Result<(Bytes, ResourceLimits)> {
        warm.environment.stand_back(false).await?;
        let made = &warm.record.spec;
        let limits = requested.changes_to(&made.limits);
        let same = limits == ResourceLimits::default()
            && spec.env == made.env
            && spec.user == made.user
            && spec.workdir == made.workdir;
        if same {
            return Ok((warm.handle.clone(), warm.record.limits.clone()));
        }
        // From here on it holds what is the caller's. A daemon that dies before the sandbox is recorded as theirs must
        // not leave it among the warm ones: the next would give it, with all of that, to somebody else.
        self.forget(&warm.record.id).await?;
        let spec = SandboxSpec { limits, ..spec.clone() };
        let bound = warm.environment.bind(&spec).await?;
        Ok((bound.handle, bound.limits))
    }

    /// Hears that whoever claimed one has it. That it was taken was told; this is only counted.
    pub(crate) fn given(&self, took: Duration) {
        lock(&self.state).brain.given(took);
    }

    /// Hears that one that was claimed came to nothing: whoever claimed it has removed it. Where it was not well, the
    /// claim is still under way.
    pub(crate) async fn not_given(&self, id: &SandboxId, why: NotGiven) {
        self.tell(|state, now| {
            match why {
                NotGiven::Unfit => state.brain.claim_failed(id, now),
                NotGiven::Refused => {
                    state.brain.not_wanted(id, now);
                    state.brain.in_vain();
                }
                NotGiven::Left => {
                    state.brain.not_wanted(id, now);
                    state.brain.given(Duration::ZERO);
                }
            }
            state.brain.removed(id, now);
        });
        if let Err(error) = self.forget(id).await {
            tracing::warn!(pool = %self.name, sandbox = %id, %error, "a sandbox that was given up is still in the records; the next start forgets it");
        }
    }
}

/// Whether a warm sandbox can become what is asked for; where it can, it has the room for that. What its template does
/// not allow any more or its backend cannot change is made cold, what the node has no room for waits as a cold start,
/// and none of that takes a warm sandbox with it.
fn fit(warm: &mut Warm, wanted: &Wanted<'_>) -> bool {
    let made = &warm.record.spec.limits;
    let changes = wanted.limits.changes_to(made);
    if !(wanted.allowed)(&wanted.limits.or(made)) {
        return false;
    }
    if changes == ResourceLimits::default() {
        return true;
    }
    same_disk(wanted.limits, made)
        && warm.environment.can_become(&changes)
        && warm.room.resize(Needs::of(&changes.or(&warm.record.limits))).is_ok()
}

/// Disks do not change their size live.
fn same_disk(requested: &ResourceLimits, made: &ResourceLimits) -> bool {
    let changes = requested.changes_to(made);
    changes.disk_bytes.is_none() && changes.disk_inodes.is_none()
}

impl Claimed {
    /// What makes the warm sandbox be one no longer, for the change that makes it the caller's.
    pub(crate) fn removal(&self) -> Change {
        Change { remove_warm: vec![self.record.id.clone()], ..Change::default() }
    }
}
