//! The backend itself: what everything shares, and `Backend`.

use crate::abilities::{self, Facts};
use crate::config::Config;
use crate::container::{self, LABEL_SANDBOX};
use crate::create::Recipe;
use crate::engine::{Engine, QUESTION, bounded};
use crate::environment::Environment;
use crate::ground::{Ground, SOCKET};
use crate::handle::Handle;
use crate::remote::{COSTS, NO_DISK, NO_OWNER};
use crate::removal::Removal;
use crate::standing::Standing;
use crate::template::{DEFAULT, Templates};
use async_trait::async_trait;
use bollard::query_parameters::InspectContainerOptions;
use bytes::Bytes;
use hostel_guest_client::{Endpoint, Guest};
use hostel_sandbox::file::{ByteStream, Compression};
use hostel_sandbox::template::Template;
use hostel_sandbox::{
    Backend, BackendEvent, BackendName, Capabilities, Created, Error, ExecutionEnvironment, Result,
    SandboxId, SandboxSpec, TemplateId,
};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Deaths that may wait for the daemon to look.
const EVENTS: usize = 1024;
/// How long an old guest may take to answer a new daemon.
const ADOPTION: Duration = Duration::from_secs(5);
/// How long the start waits for an engine.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
/// How long work under way may take at the end.
const LAST_WORK: Duration = Duration::from_secs(60);

/// Makes containers on an engine.
pub struct Docker {
    inner: Arc<Inner>,
    events: Mutex<Option<mpsc::Receiver<BackendEvent>>>,
}

impl std::fmt::Debug for Docker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Docker").finish_non_exhaustive()
    }
}

/// What containers and the backend share.
pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) ground: Ground,
    pub(crate) templates: Templates,
    pub(crate) default_image: String,
    pub(crate) deaths: mpsc::Sender<BackendEvent>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Held by whoever asks the engine for an image's content.
    pub(crate) seeding: tokio::sync::Mutex<()>,
    /// Shared by those who have an image that nothing stands on yet; held alone by who removes such images.
    pub(crate) imaging: tokio::sync::RwLock<()>,
    /// Held by whoever tidies up.
    pub(crate) tidying: tokio::sync::Mutex<()>,
    /// What a real engine can do, and the facts that this follows from; once it was reached.
    capabilities: Mutex<Option<(Arc<Facts>, Arc<Capabilities>)>>,
    /// What is believed before that.
    believed: Arc<Capabilities>,
    pub(crate) standing: Mutex<HashMap<SandboxId, Standing>>,
    /// What could not be removed because the engine was away.
    pub(crate) unfinished: Mutex<Vec<Removal>>,
    /// Names of the helpers that somebody works with.
    pub(crate) helpers: Mutex<HashSet<String>>,
    /// The adoptions are over: what is not standing is nobody's.
    swept: AtomicBool,
    /// Why the engine cannot be used now.
    trouble: Mutex<Option<String>>,
}

impl Inner {
    /// What containers can do, as far as is known.
    pub(crate) fn capabilities(&self) -> Arc<Capabilities> {
        let Some(facts) = self.engine.known() else { return Arc::clone(&self.believed) };
        let mut known = lock(&self.capabilities);
        if let Some((of, capabilities)) = &*known
            && Arc::ptr_eq(of, &facts)
        {
            return Arc::clone(capabilities);
        }
        let found = Arc::new(abilities::capabilities(&facts, &self.ground));
        *known = Some((facts, Arc::clone(&found)));
        found
    }

    /// What is to be known about the engine.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be reached or is too old.
    pub(crate) async fn facts(&self) -> Result<Arc<Facts>> {
        if !self.engine.is_placed() {
            let mark = self.ground.make_mark()?;
            let placed = self.engine.place(&mark).await;
            let _ = std::fs::remove_dir(&mark);
            placed?;
        }
        if !self.is_remote()
            && !self.ground.knows_engine()
            && let Some(namespace) = self.engine.mount_namespace().await
        {
            // First: what can be done follows from both.
            self.ground.learn(namespace);
        }
        self.engine.facts().await
    }

    pub(crate) fn is_swept(&self) -> bool {
        self.swept.load(Ordering::Acquire)
    }

    /// Notes why the engine cannot be used, or that it can.
    pub(crate) fn set_trouble(&self, now: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*trouble, &now) {
            (None, Some(why)) => tracing::warn!(why, "the Docker engine cannot be used"),
            (Some(_), None) => tracing::info!("the Docker engine is back"),
            _ => {}
        }
        *trouble = now;
    }

    async fn adopt(
        self: &Arc<Self>,
        id: &SandboxId,
        handle: Handle,
    ) -> Result<Arc<dyn ExecutionEnvironment>> {
        if handle.sandbox != *id {
            return Err(Error::not_found("sandbox", id));
        }
        self.stand(id)?;
        let adopted = self.adopt_standing(id, handle).await;
        if adopted.is_err() {
            self.unstand(id);
        }
        adopted
    }

    async fn adopt_standing(
        self: &Arc<Self>,
        id: &SandboxId,
        handle: Handle,
    ) -> Result<Arc<dyn ExecutionEnvironment>> {
        let paused = match self.state_of(&handle).await {
            Ok(State::Running) => Some(false),
            Ok(State::Paused) => Some(true),
            Ok(State::Gone) => {
                if let Err(error) = self.remove_everything(id, &handle.container).await {
                    tracing::warn!(sandbox = %id, %error, "what is left of a sandbox waits for the next sweep");
                }
                return Err(Error::not_found("sandbox", id));
            }
            // An engine that is away takes no sandbox with it.
            Err(Error::Unavailable { .. }) => None,
            Err(error) => return Err(error),
        };
        let guest = if handle.remote {
            self.remote_guest(&handle.container, &handle.token)
        } else {
            Guest::new(Endpoint::open(&self.ground.control(id), SOCKET, handle.token.clone())?)
        };
        // The frozen do not answer, and whether one is frozen only its engine knows: what became of a sandbox
        // meanwhile is seen once that is back.
        if paused != Some(false) {
            return Ok(Environment::start(Arc::clone(self), guest, handle, paused));
        }
        if let Err(error) = guest.ping(ADOPTION).await {
            // Its container runs, and so does its guest. A busy host may give it no turn; of a far one it is the way to
            // it that does not carry now: a process more may be beyond the sandbox's limit, or the engine slow. Should
            // it be dying, the engine tells.
            tracing::warn!(sandbox = %id, %error, "the guest of a sandbox does not answer yet; it is taken back as it is");
        }
        Ok(Environment::start(Arc::clone(self), guest, handle, paused))
    }

    /// What has become of a container. It is ours only with our labels on it. That there is none is known only where
    /// the engine says so.
    async fn state_of(&self, handle: &Handle) -> Result<State> {
        let client = self.engine.client().await?;
        let inspected = client.inspect_container(&handle.container, None::<InspectContainerOptions>);
        let found = match bounded(QUESTION, inspected).await {
            Ok(found) => found,
            Err(fault) if fault.is_missing() => return Ok(State::Gone),
            Err(fault) => return Err(fault.while_asking("look after a container")),
        };
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        if !container::is_of(&self.ground, &handle.sandbox, &labels) {
            return Err(Error::internal("take a sandbox back", "its container belongs to somebody else"));
        }
        let state = found.state.unwrap_or_default();
        Ok(match (state.running, state.paused) {
            (_, Some(true)) => State::Paused,
            (Some(true), _) => State::Running,
            _ => State::Gone,
        })
    }
}

/// What has become of a container.
#[derive(Debug, Clone, Copy)]
enum State {
    Running,
    Paused,
    Gone,
}

impl Docker {
    /// Opens the backend. An engine that is not there yet is no error: sandboxes can be made once it is.
    ///
    /// # Errors
    /// `InvalidArgument` for an address that is none; `Internal` where directories cannot be made.
    pub async fn open(config: Config) -> Result<Self> {
        let engine = Engine::new(&config.host, config.certificates.clone())?;
        let default_image = config.default_image.clone();
        let opened = tokio::task::spawn_blocking(move || Ground::open(&config));
        let ground = opened.await.map_err(|error| Error::internal("open the Docker backend", error))??;
        if !ground.is_root() {
            // What an ordinary user's daemon shows a container belongs to that user's id, which sandboxes have, too.
            engine.take_for_far();
        }
        let (deaths, events) = mpsc::channel(EVENTS);
        let inner = Arc::new(Inner {
            believed: Arc::new(abilities::capabilities(&Facts::usual(engine.is_remote()), &ground)),
            engine,
            ground,
            templates: Templates::default(),
            default_image,
            deaths,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            seeding: tokio::sync::Mutex::default(),
            imaging: tokio::sync::RwLock::default(),
            tidying: tokio::sync::Mutex::default(),
            capabilities: Mutex::default(),
            standing: Mutex::default(),
            unfinished: Mutex::default(),
            helpers: Mutex::default(),
            swept: AtomicBool::new(false),
            trouble: Mutex::default(),
        });
        let reached = tokio::time::timeout(FIRST_CONTACT, inner.facts()).await;
        match reached {
            Ok(Ok(facts)) => tracing::debug!(version = facts.version, driver = facts.driver, "Docker engine"),
            Ok(Err(error)) => *lock(&inner.trouble) = Some(error.to_string()),
            Err(_) => *lock(&inner.trouble) = Some("the engine does not answer".to_owned()),
        }
        let watcher = Arc::clone(&inner);
        inner.tasks.spawn(watcher.watch());
        Ok(Self { inner, events: Mutex::new(Some(events)) })
    }

    /// Whether a sandbox stands: it was made or adopted, and is not gone since, or is being made or removed.
    #[must_use]
    pub fn stands(&self, sandbox: &SandboxId) -> bool {
        self.inner.stands(sandbox)
    }

    /// Names of what is on this host or engine of ours and belongs to no sandbox: being made, being removed, or lost.
    /// What stays in this list is lost; the next start removes it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn strays(&self) -> Result<Vec<String>> {
        let mut found: Vec<String> = self.inner.ground.found().iter().map(ToString::to_string).collect();
        for container in self.inner.containers().await? {
            found.extend(container.labels.and_then(|labels| labels.get(LABEL_SANDBOX).cloned()));
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|name| SandboxId::parse(name).is_ok_and(|id| !self.inner.stands(&id)));
        Ok(found)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Backend for Docker {
    fn name(&self) -> BackendName {
        // The grammar of names is fixed, and so is this one.
        BackendName::parse("docker").unwrap_or_else(|_| BackendName::generate())
    }

    fn capabilities(&self) -> Arc<Capabilities> {
        self.inner.capabilities()
    }

    fn default_template(&self) -> &str {
        DEFAULT
    }

    fn trouble(&self) -> Option<String> {
        lock(&self.inner.trouble).clone()
    }

    fn remark(&self) -> Option<String> {
        let engine = &self.inner.engine;
        let why = if engine.may_be_local() && !self.inner.ground.is_root() { NO_OWNER } else { NO_DISK };
        engine.is_remote().then(|| format!("{why}: {COSTS}"))
    }

    async fn reach(&self) {
        if self.inner.engine.known().is_none() {
            // Whoever needs it hears why it cannot be reached.
            let _ = self.inner.facts().await;
        }
    }

    async fn create(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created> {
        let (template, image) = self.inner.recipe(spec.template.as_ref()).await?;
        let recipe = Recipe { template, image, own_image: false, copy_of: None };
        self.inner.create(id, spec, recipe).await
    }

    async fn settle(&self, id: &SandboxId) {
        self.inner.see_gone(id).await;
    }

    async fn adopt(&self, id: &SandboxId, handle: &Bytes) -> Result<Arc<dyn ExecutionEnvironment>> {
        self.inner.adopt(id, Handle::decode(handle)?).await
    }

    async fn remove_orphans(&self) -> Result<usize> {
        self.inner.swept.store(true, Ordering::Release);
        let found = match self.inner.containers().await {
            Ok(found) => found,
            // The first look after it is back sweeps.
            Err(Error::Unavailable { .. }) => return Ok(0),
            Err(error) => return Err(error),
        };
        let removed = self.inner.sweep(&found).await;
        self.inner.clean_ground().await?;
        self.inner.remove_unused().await;
        Ok(removed)
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>> {
        lock(&self.events).take()
    }

    async fn templates(&self) -> Result<Vec<Template>> {
        self.inner.list_templates().await
    }

    async fn import_template(
        &self,
        template: Template,
        archive: ByteStream,
        compression: Compression,
    ) -> Result<Template> {
        self.inner.import_archive(template, archive, compression).await
    }

    async fn import_template_directory(&self, template: Template, directory: &Path) -> Result<Template> {
        self.inner.import_directory(template, directory).await
    }

    async fn declare_template(&self, template: Template) -> Result<Template> {
        self.inner.declare(template)
    }

    async fn template_version(&self, id: &TemplateId) -> Result<Option<String>> {
        let (_, image) = self.inner.recipe(Some(id)).await?;
        Ok(Some(image.id))
    }

    async fn replace_template(&self, made: &TemplateId, name: &TemplateId) -> Result<Template> {
        self.inner.replace(made, name).await
    }

    async fn delete_template(&self, id: &TemplateId) -> Result<()> {
        self.inner.delete(id).await
    }

    async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(LAST_WORK, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("creations under way were left; the next start removes them");
        }
        self.inner.ground.clear();
    }
}
