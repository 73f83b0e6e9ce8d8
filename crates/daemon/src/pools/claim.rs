//! A warm sandbox becomes somebody's.

use super::live::{Claiming, State, Warm};
use super::{LivePool, Pools};
use crate::capacity::Room;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::record::WarmRecord;
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
use tokio_util::task::TaskTracker;

/// Warm sandboxes that are tried before a claim becomes a cold start.
const TRIES: usize = 3;
/// How long one may take to become somebody's.
const BINDING: Duration = Duration::from_secs(2);

/// A warm sandbox that is a caller's, but for its record.
pub(crate) struct Claimed {
    pub(crate) record: WarmRecord,
    pub(crate) environment: Arc<dyn ExecutionEnvironment>,
    pub(crate) handle: Bytes,
    pub(crate) limits: ResourceLimits,
    pub(crate) room: Room,
    pub(crate) stages: Vec<Stage>,
    /// Dropped once it is recorded.
    _claiming: Claiming,
}

impl Pools {
    /// The pool that serves a resolved request: the one named, or one of its backend and template. Rather one that is
    /// not being drained, of those one whose limits are as asked, and of those one that has something warm.
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

    /// How well it suits a request, the least is best; nothing where it does not.
    fn rank(&self, spec: &SandboxSpec, requested: &ResourceLimits) -> Option<(bool, bool, bool)> {
        let state = lock(&self.state);
        let other_limits = match state.fits(spec, requested) {
            Fit::Exact => false,
            Fit::WithOtherLimits => true,
            Fit::No => return None,
        };
        Some((state.record.spec.draining, other_limits, state.warm.is_empty()))
    }

    /// Takes a warm sandbox of the wanted template and gives it to the caller, as `equip` says of its id; nothing where
    /// none is there or fits, or binding failed.
    pub(crate) async fn claim<'a>(
        self: &Arc<Self>,
        wanted: Option<&TemplateId>,
        equip: &(dyn Fn(&SandboxId) -> Cow<'a, SandboxSpec> + Sync),
        requested: &ResourceLimits,
        tasks: &TaskTracker,
    ) -> Option<Claimed> {
        let (begin, claiming) = (Instant::now(), self.claiming());
        for _ in 0..TRIES {
            let mut warm = self.take(wanted, requested)?;
            let spec = equip(&warm.record.id);
            let mut stopwatch = Stopwatch::start();
            match self.bind(&mut warm, &spec, requested).await {
                Ok((handle, limits)) => {
                    stopwatch.lap("bind");
                    // That it was taken was told; this is only counted.
                    lock(&self.state).brain.claim_took(begin.elapsed());
                    let Warm { record, environment, room, .. } = warm;
                    let stages = stopwatch.stages();
                    return Some(Claimed {
                        record,
                        environment,
                        handle,
                        limits,
                        room,
                        stages,
                        _claiming: claiming,
                    });
                }
                Err(error) => {
                    tracing::warn!(pool = %self.name, sandbox = %warm.record.id, %error, "a warm sandbox could not be given and is removed");
                    self.tell(|state, now| state.brain.claim_failed(&warm.record.id, now));
                    tasks.spawn(Arc::clone(self).dispose(warm));
                    // What one cannot become, the next cannot either.
                    if matches!(error, Error::Domain(DomainError::CapabilityMissing { .. })) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Takes one out of the pool, in one step: nobody else gets it.
    fn take(&self, wanted: Option<&TemplateId>, requested: &ResourceLimits) -> Option<Warm> {
        self.tell(|state, now| {
            // The one that would be given; none of the others says anything about it.
            let best = state.brain.best().and_then(|id| state.warm.get(id));
            let fits = match best {
                // Until all are replaced after the pool was given another template, some are of the one before.
                Some(warm) => warm.record.spec.template.as_ref() == wanted && fits(warm, requested),
                // What the pool says nothing of, the next one may well have as it is asked for.
                None => same_disk(requested, &state.record.spec.limits.or(requested)),
            };
            if !fits {
                state.brain.missed(now);
                return None;
            }
            let id = state.brain.claim(now)?;
            state.warm.remove(&id)
        })
    }

    /// Gives it its share of the processors, and binds what differs; where nothing does, the guest is not even asked.
    async fn bind(
        &self,
        warm: &mut Warm,
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
        warm.room.resize(Needs::of(&limits.or(&warm.record.limits)))?;
        // From here on it holds what is the caller's. A daemon that dies before the sandbox is recorded as theirs must
        // not leave it among the warm ones: the next would give it, with all of that, to somebody else.
        self.forget(&warm.record.id).await?;
        let spec = SandboxSpec { limits, ..spec.clone() };
        let bound = tokio::time::timeout(BINDING, warm.environment.bind(&spec)).await;
        let bound = bound.map_err(|_| DomainError::DeadlineExceeded { what: "binding it".to_owned() })??;
        Ok((bound.handle, bound.limits))
    }

    /// Hears that one that was claimed came to nothing: whoever claimed it has removed it.
    pub(crate) async fn not_given(&self, id: &SandboxId) {
        self.tell(|state, now| state.brain.claim_failed(id, now));
        if let Err(error) = self.forget(id).await {
            tracing::warn!(pool = %self.name, sandbox = %id, %error, "a sandbox that was given up is still in the records; the next start forgets it");
        }
    }
}

/// Whether a warm sandbox can become what is asked for. What its backend cannot change is made cold, what the node has
/// no room for waits as a cold start, and neither takes a warm sandbox with it.
fn fits(warm: &Warm, requested: &ResourceLimits) -> bool {
    let made = &warm.record.spec.limits;
    let changes = requested.changes_to(made);
    if changes == ResourceLimits::default() {
        return true;
    }
    same_disk(requested, made)
        && warm.environment.can_become(&changes)
        && warm.room.may_become(Needs::of(&changes.or(&warm.record.limits)))
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
