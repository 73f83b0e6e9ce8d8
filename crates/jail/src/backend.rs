//! The backend itself: starts everything that jails need, and implements `Backend`.

use crate::abilities::{self, Findings};
use crate::cell::{self, Cell, Disk, Ground, SOCKET};
use crate::cgroup;
use crate::config::{Config, Storage};
use crate::create::Disks;
use crate::environment::Environment;
use crate::executable::Executable;
use crate::handle::{self, Handle};
use crate::ids::Ranges;
use crate::newborn::Shape;
use crate::reaper::Reaper;
use crate::spares::{Spares, Wanted};
use crate::storage::{self, Pool, PoolDevice};
use crate::template::{self, Templates};
use crate::zygote::{World, Zygote};
use async_trait::async_trait;
use bytes::Bytes;
use hostel_guest_client::{Endpoint, Guest};
use hostel_guest_protocol::zygote::Setup;
use hostel_sandbox::file::{ByteStream, Compression};
use hostel_sandbox::template::Template;
use hostel_sandbox::{
    Backend, BackendEvent, BackendName, Capabilities, Capability, Created, Error, ExecutionEnvironment,
    Result, SandboxId, SandboxSpec, TemplateId,
};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Deaths that may wait for the daemon to look.
const EVENTS: usize = 1024;
/// How long an old guest may take to answer a new daemon.
const ADOPTION: Duration = Duration::from_secs(5);
/// Where all daemons of a host agree on ranges of user ids.
const RANGES_DIRECTORY: &str = "/run/hostel-ids";

/// Makes jails on this host.
pub struct Jail {
    pub(crate) inner: Arc<Inner>,
    events: Mutex<Option<mpsc::Receiver<BackendEvent>>>,
}

/// What jails and the backend share.
pub(crate) struct Inner {
    pub(crate) ground: Arc<Ground>,
    pub(crate) spares: Spares,
    pub(crate) templates: Templates,
    pub(crate) reaper: Reaper,
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) disks: Disks,
    pub(crate) executable: Executable,
    pub(crate) deaths: mpsc::Sender<BackendEvent>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// The jails of this daemon, by the name of their cell.
    pub(crate) standing: Mutex<HashMap<String, Standing>>,
    /// Those of earlier daemons are among them.
    pub(crate) has_adopted: AtomicBool,
}

/// A jail and the layers it stands on.
pub(crate) struct Standing {
    sandbox: SandboxId,
    layers: Vec<String>,
}

impl std::fmt::Debug for Jail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jail").finish_non_exhaustive()
    }
}

/// The directories of the backend, made.
struct Directories {
    state: PathBuf,
    templates: PathBuf,
    cells: PathBuf,
    spill: PathBuf,
    runtime: PathBuf,
}

impl Directories {
    fn make(config: &Config) -> Result<Self> {
        let state = config.state_directory.clone();
        let found = Self {
            templates: state.join("templates"),
            cells: state.join("cells"),
            spill: state.join("spill"),
            runtime: config.runtime_directory.join("cells"),
            state,
        };
        for directory in [&found.state, &found.templates, &found.cells, &found.runtime] {
            cell::private_directory(directory)?;
        }
        // A guest reaches its own directory below by name of its parent only through the descriptor it is given.
        cell::private_directory(&found.spill)?;
        Ok(found)
    }
}

/// A name for this state directory that no other one has, kept in it.
fn instance(state: &Path) -> Result<String> {
    let file = state.join("instance");
    if let Ok(text) = std::fs::read_to_string(&file)
        && text.len() == 12
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Ok(text);
    }
    let name = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
    std::fs::write(&file, &name)
        .map_err(|error| Error::internal(format!("write {}", file.display()), error))?;
    Ok(name)
}

/// Starts the zygote, with the pool if it can be.
fn start_zygote(
    executable: &Executable,
    directories: &Directories,
    config: &Config,
    root: bool,
) -> Result<(Zygote, World, std::result::Result<Pool, String>)> {
    let device = match config.storage {
        _ if !root => Err("the daemon runs as an ordinary user".to_owned()),
        Storage::Memory => Err("the configuration asks for memory".to_owned()),
        Storage::Auto => storage::pool_device(&directories.state, None),
        Storage::Pool(size) => Ok(storage::pool_device(&directories.state, size)
            .map_err(|error| Error::internal("make the pool", error))?),
    };
    let setup = |device: Option<&PoolDevice>| Setup {
        templates: directories.templates.display().to_string(),
        cells: directories.cells.display().to_string(),
        pool_device: device.map(|device| device.path.display().to_string()).unwrap_or_default(),
        rootless: !root,
    };
    let refused = match device {
        Ok(device) => match Zygote::start(executable, &setup(Some(&device))) {
            Ok((zygote, mut world)) => {
                let mounted =
                    world.pool.take().ok_or_else(|| "the zygote did not hand the pool over".to_owned());
                let pool = mounted
                    .and_then(|root| Pool::open(root, &device.path).map_err(|error| error.to_string()));
                return Ok((zygote, world, pool));
            }
            Err(error) if config.storage == Storage::Auto => error.to_string(),
            Err(error) => return Err(error),
        },
        Err(reason) => reason,
    };
    let (zygote, world) = Zygote::start(executable, &setup(None))?;
    Ok((zygote, world, Err(refused)))
}

impl Jail {
    /// Starts the backend: finds out what the host can give, starts the zygote, prepares cells.
    ///
    /// # Errors
    /// `Unavailable` where this host cannot make jails at all, `Internal` where directories cannot be made.
    pub async fn open(config: Config) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&config));
        let (jail, _) = opened.await.map_err(|error| Error::internal("open the jail backend", error))??;
        let (inner, stop) = (jail.inner.clone(), jail.inner.stop.clone());
        jail.inner.tasks.spawn(async move { inner.spares.refill(stop).await });
        Ok(jail)
    }

    /// The names of what is on this host for jails and belongs to none: being made, being removed, or lost.
    /// What stays in this list is lost; the next start removes it.
    #[must_use]
    pub fn strays(&self) -> Vec<String> {
        let standing: Vec<String> =
            self.inner.standing.lock().map(|standing| standing.keys().cloned().collect()).unwrap_or_default();
        let found = self.inner.ground.found();
        let stray = |cell: &Cell| !standing.contains(&cell.name) && !self.inner.spares.holds_name(&cell.name);
        found.into_iter().filter(stray).map(|cell| cell.name).collect()
    }

    /// Whether the jail of a sandbox stands: it was made or adopted, and not destroyed since.
    #[must_use]
    pub fn stands(&self, sandbox: &SandboxId) -> bool {
        self.inner
            .standing
            .lock()
            .is_ok_and(|standing| standing.values().any(|jail| jail.sandbox == *sandbox))
    }

    /// The names of the cells in which jails that were made ahead wait for somebody to want them.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        self.inner.spares.waiting()
    }

    fn open_blocking(config: &Config) -> Result<(Self, ())> {
        let root = rustix::process::geteuid().is_root();
        let directories = Directories::make(config)?;
        let instance = instance(&directories.state)?;
        let cgroups = cgroup::discover(&instance);
        let executable =
            Executable::new(config.guest).map_err(|error| Error::internal("load the guest", error))?;
        let (zygote, world, pool) = start_zygote(&executable, &directories, config, root)?;
        let capabilities = abilities::capabilities(&Findings {
            cgroups: cgroups.as_ref().map_err(String::as_str),
            pool: pool.as_ref().map(drop).map_err(String::as_str),
            root,
            idmap: world.idmap,
            landlock_abi: world.landlock_abi,
        });
        let ranges = root.then(|| Ranges::open(PathBuf::from(RANGES_DIRECTORY), instance)).transpose()?;
        let ground = Arc::new(Ground {
            cgroups: cgroups.ok(),
            ranges,
            pool: pool.ok().filter(|_| world.idmap),
            zygote,
            runtime: directories.runtime,
            spill: directories.spill,
            living: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        let (deaths, events) = mpsc::channel(EVENTS);
        let wanted = Wanted { cells: config.spare_cells.min(256), jails: config.spare_jails.min(16) };
        let templates = Templates::open(directories.templates, root)?;
        if let (Some(pool), Some(layers)) = (&ground.pool, templates.pool_layers()?) {
            pool.keep_layers(&layers);
        }
        let inner = Arc::new(Inner {
            spares: Spares::new(ground.clone(), tasks.clone(), wanted),
            templates,
            reaper: Reaper::new(ground.clone(), tasks.clone()),
            capabilities: Arc::new(capabilities),
            disks: Disks { pool: ground.pool.is_some(), root },
            executable,
            deaths,
            tasks,
            stop: CancellationToken::new(),
            standing: Mutex::new(HashMap::new()),
            has_adopted: AtomicBool::new(false),
            ground,
        });
        let usual = inner.templates.recipe(None)?;
        let disk = if inner.disks.pool { Disk::Empty } else { Disk::Memory };
        inner.spares.expect(&Shape { layers: usual.layers, host_usr: usual.host_usr, disk });
        Ok((Self { inner, events: Mutex::new(Some(events)) }, ()))
    }
}

impl Inner {
    /// Notes that a jail stands on a cell and on layers.
    ///
    /// # Errors
    /// `AlreadyExists` where the sandbox has a jail.
    pub(crate) fn stand(&self, sandbox: &SandboxId, cell: &Cell, layers: &[String]) -> Result<()> {
        let mut standing =
            self.standing.lock().map_err(|_| Error::internal("note a jail", "a task broke meanwhile"))?;
        if standing.values().any(|other| other.sandbox == *sandbox) {
            return Err(Error::AlreadyExists { kind: "sandbox", id: sandbox.to_string() });
        }
        standing.insert(cell.name.clone(), Standing { sandbox: sandbox.clone(), layers: layers.to_vec() });
        Ok(())
    }

    /// Whether a jail stands on a layer.
    pub(crate) fn is_stood_on(&self, layer: &str) -> bool {
        // Where that is not known it may be.
        self.standing
            .lock()
            .map_or(true, |standing| standing.values().any(|jail| jail.layers.iter().any(|own| own == layer)))
    }

    /// Notes that it no longer does.
    fn fall(&self, cell: &Cell) {
        if let Ok(mut standing) = self.standing.lock() {
            standing.remove(&cell.name);
        }
    }

    /// Notes that it no longer does, and has the cell removed.
    pub(crate) fn bury(&self, cell: Cell) {
        self.fall(&cell);
        self.reaper.bury(cell);
    }

    async fn adopt(
        self: &Arc<Self>,
        id: &SandboxId,
        handle: Handle,
    ) -> Result<Arc<dyn ExecutionEnvironment>> {
        let cell = handle.cell();
        let gone = || Error::not_found("sandbox", id);
        if handle.sandbox != *id {
            return Err(gone());
        }
        self.stand(id, &cell, &handle.layers)?;
        self.ground.keep(&cell);
        let adopting = Adopting { inner: self, cell: Some(cell.clone()) };
        let pidfd =
            match Pid::from_raw(handle.pid.cast_signed()).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
                Some(Err(errno)) if errno != Errno::SRCH => {
                    return Err(Error::internal("open a jail's first process", errno));
                }
                found => found.and_then(std::result::Result::ok),
            };
        // The number may have gone to another process since: it is ours only if it is as old as ours.
        let pidfd = pidfd.filter(|_| handle::started(handle.pid) == Some(handle.started));
        let endpoint = Endpoint::open(&self.ground.runtime_of(&cell), SOCKET, handle.token.clone());
        let (Some(pidfd), Ok(endpoint)) = (pidfd, endpoint) else {
            adopting.done();
            self.bury(cell);
            return Err(gone());
        };
        let guest = Guest::new(endpoint);
        let oom_kills = self.ground.oom_kills(&cell.name);
        let environment =
            Environment::new(id.clone(), self.clone(), guest.clone(), pidfd, handle, oom_kills)?;
        environment.recall_share();
        if environment.is_frozen() {
            adopting.done();
            return Ok(environment);
        }
        if let Err(error) = guest.ping(ADOPTION).await {
            if environment.has_ended() {
                environment.destroy().await?;
                adopting.done();
                return Err(gone());
            }
            // A busy host is no reason to end what lives.
            tracing::warn!(sandbox = %id, %error, "a guest from before the restart does not answer yet; its sandbox stays and it is asked again");
            environment.ask_until_it_answers(ADOPTION);
        }
        adopting.done();
        Ok(environment)
    }
}

/// An adoption under way. What it noted is forgotten where it fails, so that it can be tried again.
struct Adopting<'a> {
    inner: &'a Inner,
    cell: Option<Cell>,
}

impl Adopting<'_> {
    fn done(mut self) {
        self.cell = None;
    }
}

impl Drop for Adopting<'_> {
    fn drop(&mut self) {
        let Some(cell) = self.cell.take() else { return };
        self.inner.fall(&cell);
        self.inner.ground.forget(&cell);
    }
}

#[async_trait]
impl Backend for Jail {
    fn name(&self) -> BackendName {
        // The grammar of names is fixed, and so is this one.
        BackendName::parse("jail").unwrap_or_else(|_| BackendName::generate())
    }

    fn capabilities(&self) -> Arc<Capabilities> {
        Arc::clone(&self.inner.capabilities)
    }

    async fn create(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created> {
        let (recipe, _held) = self.inner.templates.hold(spec.template.as_ref())?;
        self.inner.create(id, spec, recipe, None).await
    }

    async fn adopt(&self, id: &SandboxId, handle: &Bytes) -> Result<Arc<dyn ExecutionEnvironment>> {
        self.inner.adopt(id, Handle::decode(handle)?).await
    }

    async fn remove_orphans(&self) -> Result<usize> {
        let inner = self.inner.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let mine = inner.ground.ranges.as_ref().map(Ranges::ours).unwrap_or_default();
            let mut removed = 0;
            for mut cell in inner.ground.found() {
                if inner.ground.is_kept(&cell) {
                    continue;
                }
                cell.range = cell.range.filter(|range| mine.contains(range));
                inner.ground.end_without_groups(&cell);
                inner.ground.remove(&cell);
                removed += 1;
            }
            inner.ground.give_back_ranges();
            removed
        });
        let removed = removed.await;
        self.inner.has_adopted.store(true, Ordering::Release);
        self.inner.clone().remove_replaced().await;
        removed.map_err(|error| Error::internal("remove what earlier daemons left", error))
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>> {
        self.events.lock().ok()?.take()
    }

    async fn templates(&self) -> Result<Vec<Template>> {
        self.inner.templates.list()
    }

    async fn import_template(
        &self,
        mut template: Template,
        archive: ByteStream,
        compression: Compression,
    ) -> Result<Template> {
        self.inner.capabilities.require(Capability::TemplateImport)?;
        let below = self.inner.templates.below(&mut template)?;
        let directory = self.inner.templates.reserve(&template.id)?;
        let imported =
            template::import_archive(&self.inner.executable, &directory, archive, compression).await;
        self.inner.finish_import(template, below, imported).await
    }

    async fn import_template_directory(&self, mut template: Template, source: &Path) -> Result<Template> {
        self.inner.capabilities.require(Capability::TemplateImport)?;
        let below = self.inner.templates.below(&mut template)?;
        let directory = self.inner.templates.reserve(&template.id)?;
        let imported = template::import_directory(&self.inner.executable, &directory, source).await;
        self.inner.finish_import(template, below, imported).await
    }

    async fn declare_template(&self, template: Template) -> Result<Template> {
        self.inner.templates.declare(template)
    }

    async fn delete_template(&self, id: &TemplateId) -> Result<()> {
        let files = self.inner.templates.remove(id, |layer| self.inner.is_stood_on(layer))?;
        self.inner.remove_files(files).await?;
        // It may have been what stood on others.
        self.inner.clone().remove_replaced().await;
        Ok(())
    }

    async fn replace_template(&self, made: &TemplateId, name: &TemplateId) -> Result<Template> {
        let template = self.inner.templates.replace(made, name)?;
        self.inner.clone().remove_replaced().await;
        Ok(template)
    }

    async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        let inner = self.inner.clone();
        let stopped = tokio::task::spawn_blocking(move || {
            inner.ground.zygote.stop();
            if let Some(cgroups) = &inner.ground.cgroups {
                cgroups.close();
            }
            if let Some(ranges) = &inner.ground.ranges {
                ranges.close();
            }
        });
        let _ = stopped.await;
    }
}

impl Inner {
    async fn finish_import(
        self: &Arc<Self>,
        template: Template,
        below: Option<(template::Recipe, template::Held)>,
        imported: Result<()>,
    ) -> Result<Template> {
        let id = template.id.clone();
        let (below, _held) = below.unzip();
        let added = imported.and_then(|()| {
            let mut layers = vec![format!("templates/{id}/rootfs")];
            let host_usr = below.as_ref().is_some_and(|below| below.host_usr);
            layers.extend(below.into_iter().flat_map(|below| below.layers));
            self.templates.add(template::Recipe { template, layers, host_usr })
        });
        if added.is_err() {
            // There may be millions of files.
            let this = Arc::clone(self);
            let removed = tokio::task::spawn_blocking(move || this.templates.give_up(&id)).await;
            removed.map_err(|error| Error::internal("remove what was imported", error))?;
        }
        added
    }
}
