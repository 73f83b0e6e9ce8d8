//! Forks: new sandboxes whose files begin as a copy of a live one's.

use super::create::{fresh_record, gone_caller};
use super::entry::Operation;
use super::ready::prepare;
use super::resolve::Resolved;
use super::{Entry, Repeat, Sandboxes};
use crate::error::{Error, Result};
use crate::record::SandboxRecord;
use crate::store::{Change, StoredRequest};
use futures::StreamExt as _;
use hostel_pool::Needs;
use hostel_sandbox::label::Labels;
use hostel_sandbox::{
    Created, Error as DomainError, ExecutionEnvironment, NetworkPolicy, ResourceLimits, SandboxId,
    SandboxSpec,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// Forks of one parent that are made at a time.
const AT_ONCE: usize = 8;

/// What the forks shall be; what is `None` or empty is the parent's.
#[derive(Debug, Clone)]
pub(crate) struct ForkRequest {
    pub parent: SandboxId,
    pub count: usize,
    pub labels: Labels,
    pub env: BTreeMap<String, String>,
    pub limits: ResourceLimits,
    pub network: Option<NetworkPolicy>,
    pub expires: Option<SystemTime>,
    pub lifetime: Option<Duration>,
    pub idle_timeout: Option<Duration>,
}

/// How one fork went.
pub(crate) type ForkOutcome = Result<Arc<SandboxRecord>>;

/// A fork that was made and is not known yet.
struct Forked {
    entry: Arc<Entry>,
    created: Created,
    /// Held until it is known, or is not to be.
    _operation: Operation,
}

impl Sandboxes {
    /// Makes the forks, each on its own; those that were made become known together. With `repeat` it goes on when the
    /// caller goes away, and the same request again returns the same ones; without, they are undone then.
    ///
    /// # Errors
    /// Only where none could be tried: `NotFound`, `WrongState`, `InvalidArgument`, `CapabilityMissing`.
    pub(crate) async fn fork(
        &self,
        request: ForkRequest,
        actor: String,
        repeat: Option<Repeat>,
    ) -> Result<Vec<ForkOutcome>> {
        let this = self.clone();
        let Some(repeat) = repeat else {
            let work = |left| async move { this.fork_now(request, &actor, None, &left).await };
            return self.told_of_leaving(work).await;
        };
        let asked = repeat.clone();
        let work = async move {
            if let Some(earlier) = this.0.store.request(&asked.key).await? {
                return this.forked_before(&asked, &earlier);
            }
            this.fork_now(request, &actor, Some(asked), &CancellationToken::new()).await
        };
        self.0.forks.once(&self.0.tasks, &repeat, work).await
    }

    fn forked_before(&self, repeat: &Repeat, earlier: &StoredRequest) -> Result<Vec<ForkOutcome>> {
        repeat.check(&earlier.body)?;
        let ids: Vec<Option<SandboxId>> = serde_json::from_str(&earlier.outcome)
            .map_err(|error| Error::store("read the outcome of a fork", error))?;
        Ok(ids
            .into_iter()
            .map(|id| match id {
                Some(id) => Ok(self.get(&id)?.record()),
                None => Err(DomainError::internal("fork", "it failed when it was first asked for").into()),
            })
            .collect())
    }

    async fn fork_now(
        &self,
        request: ForkRequest,
        actor: &str,
        repeat: Option<Repeat>,
        cancel: &CancellationToken,
    ) -> Result<Vec<ForkOutcome>> {
        let begin = Instant::now();
        if self.is_draining() {
            return Err(Error::NodeDraining);
        }
        let parent = self.get(&request.parent)?;
        let _operation = parent.operate().await;
        self.still_there(&parent)?;
        let environment = parent.live()?;
        let spec = child_spec(&parent.record(), &request);
        let forks = futures::stream::iter(0..request.count).map(|_| {
            let made = self.fork_one(&environment, spec.clone(), &request, actor);
            async move { if cancel.is_cancelled() { Err(gone_caller()) } else { made.await } }
        });
        let made: Vec<Result<Forked>> = forks.buffered(AT_ONCE).collect().await;
        if cancel.is_cancelled() {
            for fork in made.iter().flatten() {
                self.undo_fork(fork).await;
            }
            return Err(gone_caller());
        }
        if let [Err(error)] = &made[..] {
            return Err(error.clone());
        }
        let outcomes = self.commit_forks(&parent, made, repeat).await?;
        parent.touch();
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        tracing::info!(
            sandbox = %parent.id(), op = "fork", count = outcomes.len(), failed, duration = ?begin.elapsed(),
            actor, "sandboxes forked"
        );
        Ok(outcomes)
    }

    async fn fork_one(
        &self,
        parent: &Arc<dyn ExecutionEnvironment>,
        spec: SandboxSpec,
        request: &ForkRequest,
        actor: &str,
    ) -> Result<Forked> {
        let network = Some(spec.network.clone());
        let resolved = self.resolve_with(spec, &request.limits, network).await?;
        let room = self.0.capacity.take_now(Needs::of(&resolved.spec.limits)).await?;
        let record = fresh_record(SandboxId::generate(), &resolved, request.expires, actor)?;
        let (entry, operation) = self.reserve(record, &mut Some(room)).await?;
        let forked = self.fork_into(&entry, parent, &resolved).await;
        let created = forked.inspect_err(|_| self.unreserve(&entry))?;
        Ok(Forked { entry, created, _operation: operation })
    }

    async fn fork_into(
        &self,
        entry: &Entry,
        parent: &Arc<dyn ExecutionEnvironment>,
        resolved: &Resolved,
    ) -> Result<Created> {
        let mut created = parent.fork(entry.id(), &self.0.reach.equip(entry.id(), &resolved.spec)).await?;
        let prepared = match self.connect(entry.id(), &mut created, &resolved.spec).await {
            Ok(()) => prepare(&created.environment, resolved.template.as_deref()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = prepared {
            self.undo(entry.id(), &created).await;
            return Err(error);
        }
        Ok(created)
    }

    async fn commit_forks(
        &self,
        parent: &Entry,
        made: Vec<Result<Forked>>,
        repeat: Option<Repeat>,
    ) -> Result<Vec<ForkOutcome>> {
        let mut change = Change::default();
        let mut outcomes = Vec::with_capacity(made.len());
        let mut shown = Vec::new();
        for fork in made {
            let outcome = fork.map(|fork| {
                let (record, one) = self.ready(&fork.entry, &fork.created, Some(parent.id()));
                change.put.extend(one.put);
                change.events.extend(one.events);
                shown.push((fork, Arc::clone(&record)));
                record
            });
            outcomes.push(outcome);
        }
        let ids: Vec<Option<&SandboxId>> =
            outcomes.iter().map(|outcome| outcome.as_ref().ok().map(|record| &record.id)).collect();
        let ids = serde_json::to_string(&ids)
            .map_err(|error| Error::store("write the outcome of a fork", error))?;
        change.request = repeat.map(|repeat| repeat.fulfilled(ids));
        let shown = Arc::new(shown);
        let on_commit = Arc::clone(&shown);
        let committed = self.0.store.commit_then(change, move || {
            for (fork, record) in &*on_commit {
                fork.entry.attach(Arc::clone(&fork.created.environment), fork.created.handle.clone());
                fork.entry.show(Arc::clone(record));
            }
        });
        if let Err(error) = committed.await {
            for (fork, _) in &*shown {
                self.undo_fork(fork).await;
            }
            return Err(error);
        }
        shown.iter().for_each(|(fork, _)| self.schedule(&fork.entry));
        Ok(outcomes)
    }

    async fn undo_fork(&self, fork: &Forked) {
        self.undo(fork.entry.id(), &fork.created).await;
        self.unreserve(&fork.entry);
    }
}

/// What a fork is asked to be: the parent's request with the changes over it.
fn child_spec(parent: &SandboxRecord, request: &ForkRequest) -> SandboxSpec {
    let mut spec = parent.spec.clone();
    spec.limits = request.limits.or(&parent.requested_limits);
    spec.labels.extend(request.labels.clone());
    spec.env.extend(request.env.clone());
    spec.network = request.network.clone().unwrap_or(spec.network);
    spec.lifetime = request.lifetime.or(spec.lifetime);
    spec.idle_timeout = request.idle_timeout.or(spec.idle_timeout);
    spec
}
