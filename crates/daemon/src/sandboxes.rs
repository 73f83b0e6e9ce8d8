//! The sandboxes of this node: what they are now, and everything that changes them.
//!
//! The map is the truth for readers; the store is the truth across restarts. A change is made in this order: the
//! backend does it, the store commits it, the map shows it, watchers hear of it. Changes of one sandbox's life are
//! made one at a time, under its operation lock, and go on when the caller goes away (`to_the_end.rs`).

mod build;
mod create;
mod deadlines;
mod declare;
mod died;
mod entry;
mod fork;
mod furnish;
mod import;
mod lifecycle;
mod list;
mod ready;
mod recover;
mod repeat;
mod resolve;
mod snapshot;
mod stop;
mod templates;
mod to_the_end;
mod update;
mod warm;
mod watch;

pub(crate) use build::{BuildEvent, BuildRequest};
pub(crate) use create::{CreateOutcome, NewSandbox};
pub(crate) use entry::{Entry, Lease};
pub(crate) use fork::{ForkOutcome, ForkRequest};
pub(crate) use list::{Position, position};
pub(crate) use repeat::Repeat;
pub(crate) use to_the_end::ToTheEnd;
pub(crate) use update::Update;
pub(crate) use warm::MadeWarm;
pub(crate) use watch::{WatchFilter, WatchItem};

use crate::backends::Backends;
use crate::capacity::Capacity;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::pools::{MemoryPressure, Pools};
use crate::reach::Reach;
use crate::record::{Event, SandboxRecord};
use crate::store::{Change, RequestKey, Store, StoredRequest};
use deadlines::Deadlines;
use declare::Declared;
use hostel_pool::{Budget, Overcommit};
use hostel_sandbox::{BackendName, ResourceLimits, SandboxId, TemplateId};
use repeat::InFlight;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Settings of the registry.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Most sandboxes that are not ended.
    pub max_sandboxes: usize,
    /// What the node has for sandboxes.
    pub budget: Budget,
    /// How much more of it may be promised.
    pub overcommit: Overcommit,
    /// When pools give memory back.
    pub memory_pressure: MemoryPressure,
    /// Most watchers at a time.
    pub max_watchers: usize,
    /// Most imports of templates at a time.
    pub max_imports: usize,
    /// How long the record of an ended sandbox stays.
    pub record_retention: Duration,
    /// Limits where neither caller nor template says otherwise.
    pub default_limits: ResourceLimits,
    /// Lifetime where the caller says nothing.
    pub default_lifetime: Option<Duration>,
}

/// All sandboxes of the node. Clones share them.
#[derive(Clone)]
pub(crate) struct Sandboxes(Shared);

/// Behind `dyn`, so that the compiler does not prove for every call of every service anew that all that the registry
/// holds may go to another thread, which was most of the time of checking this crate.
#[derive(Clone)]
struct Shared(Arc<dyn AsRef<Inner> + Send + Sync>);

impl Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        (*self.0).as_ref()
    }
}

impl AsRef<Self> for Inner {
    fn as_ref(&self) -> &Self {
        self
    }
}

struct Inner {
    store: Store,
    backends: Backends,
    settings: Settings,
    pools: Pools,
    reach: Reach,
    entries: Mutex<HashMap<SandboxId, Arc<Entry>>>,
    /// Ids that claims under way are to give.
    chosen: Mutex<HashSet<SandboxId>>,
    capacity: Capacity,
    metrics: Metrics,
    watchers: Arc<Semaphore>,
    templates: Mutex<HashMap<(BackendName, TemplateId), Arc<hostel_sandbox::template::Template>>>,
    creations: InFlight<CreateOutcome>,
    forks: InFlight<Vec<ForkOutcome>>,
    snapshots: InFlight<hostel_sandbox::template::Template>,
    imports: InFlight<(BackendName, hostel_sandbox::template::Template)>,
    import_turns: Arc<Semaphore>,
    import_places: Arc<Semaphore>,
    builds: build::Builds,
    declared: Mutex<Declared>,
    deadlines: Deadlines,
    deaths: died::Deaths,
    draining: AtomicBool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sandboxes {
    /// An empty registry; [`Self::recover`] fills it.
    pub(crate) fn new(
        store: Store,
        backends: Backends,
        reach: Reach,
        metrics: Metrics,
        settings: Settings,
        stop: CancellationToken,
    ) -> Self {
        Self(Shared(Arc::new(Inner {
            capacity: Capacity::new(settings.budget, settings.overcommit),
            metrics,
            watchers: Arc::new(Semaphore::new(settings.max_watchers)),
            import_turns: Arc::new(Semaphore::new(settings.max_imports)),
            import_places: Arc::new(Semaphore::new(settings.max_imports + import::WAITING)),
            pools: Pools::new(store.clone()),
            store,
            backends,
            reach,
            settings,
            entries: Mutex::default(),
            chosen: Mutex::default(),
            templates: Mutex::default(),
            creations: InFlight::default(),
            forks: InFlight::default(),
            snapshots: InFlight::default(),
            imports: InFlight::default(),
            builds: build::Builds::default(),
            declared: Mutex::default(),
            deadlines: Deadlines::default(),
            deaths: died::Deaths::default(),
            draining: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop,
        })))
    }

    /// The sandbox of that id.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn get(&self, id: &SandboxId) -> Result<Arc<Entry>> {
        lock(&self.0.entries).get(id).cloned().ok_or_else(|| Error::no_sandbox(id))
    }

    /// Every sandbox, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.0.entries).values().cloned().collect()
    }

    /// A ready sandbox, for one call on its processes or files. While the lease lives it is not idle.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` (`SANDBOX_STATE`).
    pub(crate) fn enter(&self, id: &SandboxId) -> Result<Lease> {
        self.get(id)?.enter()
    }

    pub(crate) fn backends(&self) -> &Backends {
        &self.0.backends
    }

    pub(crate) fn pools(&self) -> &Pools {
        &self.0.pools
    }

    pub(crate) fn reach(&self) -> &Reach {
        &self.0.reach
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn capacity(&self) -> &Capacity {
        &self.0.capacity
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Cancelled when streams have to end.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Where tasks that outlive a call belong.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// Whether new sandboxes are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Refuses new sandboxes, or takes them again; holds across restarts.
    pub(crate) async fn set_draining(&self, draining: bool) -> Result<()> {
        self.0.store.set_setting("draining", draining.to_string()).await?;
        self.0.draining.store(draining, Ordering::Release);
        self.0.pools.wake();
        tracing::info!(draining, "the operator changed whether new sandboxes are taken");
        Ok(())
    }

    /// Takes no new tasks and waits for those under way.
    pub(crate) async fn finish(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Runs work to its end whatever becomes of the caller; nothing of it before it is awaited.
    pub(crate) fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> ToTheEnd<T> {
        ToTheEnd::new(&self.0.tasks, work)
    }

    /// Runs work to its end, and cancels what it is given once the caller goes away.
    async fn told_of_leaving<T: Send + 'static, W: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(CancellationToken) -> W,
    ) -> Result<T> {
        let left = CancellationToken::new();
        let mut work = std::pin::pin!(self.to_the_end(work(left.clone())));
        // Dropped before the work is: what goes on without the caller knows that.
        let _cancelled_with_the_caller = left.drop_guard();
        work.as_mut().await
    }

    /// Commits a new record of a sandbox with its event, and shows it.
    async fn commit(
        &self,
        entry: &Arc<Entry>,
        record: SandboxRecord,
        event: Event,
        request: Option<(RequestKey, StoredRequest)>,
    ) -> Result<Arc<SandboxRecord>> {
        let record = Arc::new(record);
        let handle = if record.state().is_final() { bytes::Bytes::new() } else { entry.handle() };
        let mut change = Change::of(Arc::clone(&record), handle, event);
        change.request = request;
        let (shown, target) = (Arc::clone(&record), Arc::clone(entry));
        self.0.store.commit_then(change, move || target.show(shown)).await?;
        self.schedule(entry);
        Ok(record)
    }
}
