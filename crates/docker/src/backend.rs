//! The backend itself: what everything shares, and `Backend`.

use crate::abilities::{self, Facts};
use crate::config::Config;
use crate::container::{LABEL_INSTANCE, LABEL_SANDBOX};
use crate::create::Recipe;
use crate::engine::{Engine, QUESTION, bounded};
use crate::environment::Environment;
use crate::ground::{Ground, SOCKET};
use crate::handle::Handle;
use crate::pause::Pause;
use crate::remote::{COSTS, NO_DISK, NO_OWNER};
use crate::removal::Removal;
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
use std::time::{Duration, Instant};
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
    standing: Mutex<HashMap<SandboxId, Standing>>,
    /// What could not be removed because the engine was away.
    pub(crate) unfinished: Mutex<Vec<Removal>>,
    /// Names of the helpers that somebody works with.
    pub(crate) helpers: Mutex<HashSet<String>>,
    /// The adoptions are over: what is not standing is nobody's.
    swept: AtomicBool,
    /// Why the engine cannot be used now.
    trouble: Mutex<Option<String>>,
}

/// A sandbox of this daemon.
#[derive(Default)]
struct Standing {
    /// Once it lives.
    container: Option<String>,
    /// It is being removed, or its death was told.
    over: bool,
    /// The image that goes with it.
    own_image: Option<String>,
    /// Its pauses.
    pause: Arc<Pause>,
    /// When the kernel last ended something in it for want of memory.
    oom: Option<Instant>,
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

    fn standing(&self) -> MutexGuard<'_, HashMap<SandboxId, Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a sandbox is being made or taken back.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn stand(&self, id: &SandboxId) -> Result<()> {
        let mut standing = self.standing();
        if standing.contains_key(id) {
            return Err(Error::AlreadyExists { kind: "sandbox", id: id.to_string() });
        }
        standing.insert(id.clone(), Standing::default());
        Ok(())
    }

    /// Notes that a sandbox lives in a container.
    pub(crate) fn live(&self, handle: &Handle, pause: &Arc<Pause>) {
        if let Some(standing) = self.standing().get_mut(&handle.sandbox) {
            standing.pause = Arc::clone(pause);
            standing.container = Some(handle.container.clone());
            standing.own_image = handle.own_image.then(|| handle.image.clone());
        }
    }

    /// Images that go with sandboxes.
    pub(crate) fn own_images(&self) -> HashSet<String> {
        self.standing().values().filter_map(|standing| standing.own_image.clone()).collect()
    }

    /// Notes that its end is no news.
    pub(crate) fn ending(&self, id: &SandboxId) {
        if let Some(standing) = self.standing().get_mut(id) {
            standing.over = true;
        }
    }

    /// Notes that it is gone.
    pub(crate) fn unstand(&self, id: &SandboxId) {
        self.standing().remove(id);
    }

    pub(crate) fn stands(&self, id: &SandboxId) -> bool {
        self.standing().contains_key(id)
    }

    /// Whether a sandbox of this daemon lives in a container.
    pub(crate) fn lives_in(&self, id: &SandboxId, container: &str) -> bool {
        self.standing().get(id).is_some_and(|one| one.container.as_deref() == Some(container))
    }

    pub(crate) fn note_oom(&self, id: &SandboxId) {
        if let Some(standing) = self.standing().get_mut(id) {
            standing.oom = Some(Instant::now());
        }
    }

    /// Marks a sandbox as dead. → how long ago memory was last wanting, if ever; `None` where its death is no news.
    pub(crate) fn take_dead(&self, id: &SandboxId, container: &str) -> Option<Option<Duration>> {
        let mut standing = self.standing();
        let found = standing.get_mut(id)?;
        let news = !found.over && found.container.as_deref() == Some(container);
        found.over |= news;
        news.then_some(found.oom.map(|at| at.elapsed()))
    }

    /// Sandboxes that should be alive, their containers, and the pauses of these.
    pub(crate) fn living(&self) -> Vec<(SandboxId, String, Arc<Pause>)> {
        let standing = self.standing();
        let living = standing.iter().filter(|(_, one)| !one.over);
        living
            .filter_map(|(id, one)| Some((id.clone(), one.container.clone()?, Arc::clone(&one.pause))))
            .collect()
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
                let _ = self.remove_everything(id, Some(&handle.container)).await;
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
            if handle.remote {
                // Its container runs, and so does its guest: it is the way to it that does not carry now. A process
                // more may be beyond the sandbox's limit, or the engine slow.
                tracing::warn!(sandbox = %id, %error, "the guest of a sandbox cannot be reached now; it is taken back as it is");
                return Ok(Environment::start(Arc::clone(self), guest, handle, paused));
            }
            tracing::warn!(sandbox = %id, %error, "a guest from before the restart does not answer; its sandbox is removed");
            let _ = self.remove_everything(id, Some(&handle.container)).await;
            return Err(Error::not_found("sandbox", id));
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
        let has = |name: &str, value: &str| labels.get(name).is_some_and(|found| found == value);
        if !has(LABEL_INSTANCE, &self.ground.instance) || !has(LABEL_SANDBOX, handle.sandbox.as_str()) {
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
