//! A backend in memory, for tests of the daemon alone: its sandboxes live in a [`Host`] that outlives daemons.

use async_trait::async_trait;
use bytes::Bytes;
use hostel_sandbox::file::{ByteStream, Compression, FileInfo, FileKind};
use hostel_sandbox::process::{ExitReason, ExitStatus, Input, ProcessInfo, StartRequest};
use hostel_sandbox::stats::SandboxStats;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{
    Backend, BackendEvent, BackendName, Bound, Capabilities, Capability, Created, Error,
    ExecutionEnvironment, Inside, ProcessId, ResourceLimits, Result, SandboxId, SandboxSpec, Stage,
    TemplateId,
};
mod inside;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};

/// What outlives daemons.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) sandboxes: Mutex<HashMap<SandboxId, Arc<Sandbox>>>,
    pub(crate) templates: Mutex<BTreeMap<TemplateId, Template>>,
    /// Names of templates that are being imported. An import that is dropped half-way leaves its own.
    pub(crate) importing: Mutex<BTreeSet<TemplateId>>,
    /// Imports under way, and the most there ever were at a time.
    pub(crate) imports: Mutex<(usize, usize)>,
    /// Creations begun.
    pub(crate) creations: AtomicUsize,
    /// How long a creation takes, in milliseconds.
    pub(crate) creation_ms: AtomicUsize,
    /// Whether what a dropped creation made is not gone yet, and how often somebody waited for that.
    pub(crate) lingering: AtomicBool,
    pub(crate) settles: AtomicUsize,
    /// Whether `destroy` fails, and how often it was asked for.
    pub(crate) stuck: AtomicBool,
    pub(crate) destroys: AtomicUsize,
    /// Whether creations panic.
    pub(crate) panics: AtomicBool,
    /// Whether sandboxes do not say what runs in them.
    pub(crate) mute: AtomicBool,
    /// Whether creations fail.
    pub(crate) broken: AtomicBool,
    /// Whether `bind` fails.
    pub(crate) unbindable: AtomicBool,
    /// Whether `bind` refuses what it is asked for.
    pub(crate) refusing: AtomicBool,
    /// Whether `bind` waits, after it did its work.
    pub(crate) holding: AtomicBool,
    /// Whether the limit on processes cannot change while a sandbox runs.
    pub(crate) fixed_pids: AtomicBool,
    /// Whether templates cannot be listed.
    pub(crate) listless: AtomicBool,
    /// Whether it is not answered what stands behind a template's name.
    pub(crate) silent: AtomicBool,
    /// What stands behind every template's name.
    pub(crate) version: Mutex<Option<String>>,
}

impl Host {
    pub(crate) fn new() -> Arc<Self> {
        let host = Self::default();
        let id = TemplateId::parse("host").unwrap();
        host.templates.lock().unwrap().insert(id.clone(), Template::new(id, TemplateSource::Host));
        Arc::new(host)
    }

    pub(crate) fn live(&self) -> usize {
        self.sandboxes.lock().unwrap().len()
    }
}

/// The backend of one daemon.
pub(crate) struct Fake {
    name: &'static str,
    host: Arc<Host>,
    capabilities: Arc<Capabilities>,
    events: Mutex<Option<mpsc::Receiver<BackendEvent>>>,
    adopted: Mutex<BTreeSet<SandboxId>>,
    pub(crate) tell: mpsc::Sender<BackendEvent>,
}

impl Fake {
    pub(crate) fn new(host: &Arc<Host>) -> Arc<Self> {
        Self::named("fake", host)
    }

    pub(crate) fn named(name: &'static str, host: &Arc<Host>) -> Arc<Self> {
        let mut capabilities = Capabilities::default();
        for capability in Capability::ALL {
            capabilities.grant(*capability);
        }
        for (capability, why) in [
            (Capability::DiskLimit, "no quota here"),
            (Capability::NetworkAllowlist, "no proxy here"),
            (Capability::NetworkOpen, "no proxy here"),
        ] {
            capabilities.deny(capability, why);
        }
        let (tell, events) = mpsc::channel(16);
        let events = Mutex::new(Some(events));
        let capabilities = Arc::new(capabilities);
        let (host, adopted) = (Arc::clone(host), Mutex::default());
        Arc::new(Self { name, host, capabilities, events, adopted, tell })
    }
}

/// One sandbox.
pub(crate) struct Sandbox {
    host: Arc<Host>,
    id: SandboxId,
    processes: Mutex<BTreeMap<ProcessId, Arc<Process>>>,
    files: Mutex<BTreeMap<String, Bytes>>,
    pub(crate) paused: AtomicBool,
    pub(crate) limits: Mutex<ResourceLimits>,
    /// What it was bound to.
    pub(crate) bound: Mutex<Vec<SandboxSpec>>,
    /// Whether writing a file never ends, or finds nobody there.
    pub(crate) hung: AtomicBool,
    pub(crate) dead: AtomicBool,
}

struct Process {
    request: Option<StartRequest>,
    info: Mutex<ProcessInfo>,
    ended: watch::Sender<Option<ExitStatus>>,
    output: Mutex<Vec<u8>>,
}

impl Host {
    async fn make(
        self: &Arc<Self>,
        id: &SandboxId,
        spec: &SandboxSpec,
        files: BTreeMap<String, Bytes>,
    ) -> Result<Created> {
        self.creations.fetch_add(1, Ordering::SeqCst);
        let wait = self.creation_ms.load(Ordering::SeqCst) as u64;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::Unavailable { what: "engine", detail: "out of order".to_owned() });
        }
        let sandbox = Arc::new(Sandbox {
            host: Arc::clone(self),
            id: id.clone(),
            processes: Mutex::default(),
            files: Mutex::new(files),
            paused: AtomicBool::new(false),
            limits: Mutex::new(spec.limits.clone()),
            bound: Mutex::default(),
            hung: AtomicBool::new(false),
            dead: AtomicBool::new(false),
        });
        self.sandboxes.lock().unwrap().insert(id.clone(), Arc::clone(&sandbox));
        Ok(Created {
            environment: sandbox,
            handle: handle_of(id, &spec.limits),
            limits: spec.limits.clone(),
            weaknesses: vec![],
            stages: vec![Stage { name: "clone", duration: Duration::from_micros(5) }],
        })
    }
}

#[async_trait]
impl Backend for Fake {
    fn name(&self) -> BackendName {
        BackendName::parse(self.name).unwrap()
    }

    fn capabilities(&self) -> Arc<Capabilities> {
        Arc::clone(&self.capabilities)
    }

    async fn create(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created> {
        self.host.make(id, spec, BTreeMap::new()).await
    }

    async fn settle(&self, _: &SandboxId) {
        self.host.settles.fetch_add(1, Ordering::SeqCst);
        while self.host.lingering.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn adopt(&self, id: &SandboxId, handle: &Bytes) -> Result<Arc<dyn ExecutionEnvironment>> {
        match self.host.sandboxes.lock().unwrap().get(id) {
            Some(sandbox) => {
                let limits = sandbox.limits.lock().unwrap();
                assert_eq!(*handle, handle_of(id, &limits), "the newest handle is kept");
                self.adopted.lock().unwrap().insert(id.clone());
                Ok(Arc::clone(sandbox) as Arc<dyn ExecutionEnvironment>)
            }
            None => Err(Error::not_found("sandbox", id)),
        }
    }

    async fn remove_orphans(&self) -> Result<usize> {
        let (mut sandboxes, adopted) = (self.host.sandboxes.lock().unwrap(), self.adopted.lock().unwrap());
        let before = sandboxes.len();
        sandboxes.retain(|id, _| adopted.contains(id));
        Ok(before - sandboxes.len())
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>> {
        self.events.lock().unwrap().take()
    }

    async fn templates(&self) -> Result<Vec<Template>> {
        if self.host.listless.load(Ordering::SeqCst) {
            return Err(Error::internal("list images", "the engine answered 500"));
        }
        Ok(self.host.templates.lock().unwrap().values().cloned().collect())
    }

    async fn import_template(
        &self,
        mut template: Template,
        archive: ByteStream,
        _: Compression,
    ) -> Result<Template> {
        let exists = || Error::AlreadyExists { kind: "template", id: template.id.to_string() };
        if !self.host.importing.lock().unwrap().insert(template.id.clone()) {
            return Err(exists());
        }
        {
            let mut imports = self.host.imports.lock().unwrap();
            imports.0 += 1;
            imports.1 = imports.1.max(imports.0);
        }
        let size = size_of(archive).await;
        self.host.imports.lock().unwrap().0 -= 1;
        self.host.importing.lock().unwrap().remove(&template.id);
        template.size_bytes = Some(size?);
        let mut templates = self.host.templates.lock().unwrap();
        if templates.contains_key(&template.id) {
            return Err(Error::AlreadyExists { kind: "template", id: template.id.to_string() });
        }
        templates.insert(template.id.clone(), template.clone());
        Ok(template)
    }

    async fn import_template_directory(&self, template: Template, _: &Path) -> Result<Template> {
        self.host.templates.lock().unwrap().insert(template.id.clone(), template.clone());
        Ok(template)
    }

    async fn template_version(&self, _: &TemplateId) -> Result<Option<String>> {
        while self.host.silent.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(self.host.version.lock().unwrap().clone())
    }

    async fn replace_template(&self, made: &TemplateId, name: &TemplateId) -> Result<Template> {
        let mut templates = self.host.templates.lock().unwrap();
        let mut template = templates.remove(made).ok_or_else(|| Error::not_found("template", made))?;
        template.id = name.clone();
        templates.insert(name.clone(), template.clone());
        Ok(template)
    }

    async fn delete_template(&self, id: &TemplateId) -> Result<()> {
        let removed = self.host.templates.lock().unwrap().remove(id);
        removed.map(|_| ()).ok_or_else(|| Error::not_found("template", id))
    }

    async fn shutdown(&self) {}
}

/// What the next daemon learns of a sandbox.
fn handle_of(id: &SandboxId, limits: &ResourceLimits) -> Bytes {
    Bytes::from(format!("{id} with {limits:?}"))
}

async fn size_of(mut archive: ByteStream) -> Result<u64> {
    let mut size = 0;
    while let Some(bytes) = archive.recv().await {
        size += bytes?.len() as u64;
    }
    Ok(size)
}

impl Sandbox {
    fn find(&self, id: &ProcessId) -> Result<Arc<Process>> {
        self.processes.lock().unwrap().get(id).cloned().ok_or_else(|| Error::not_found("process", id))
    }

    fn info(&self, path: &str) -> Result<FileInfo> {
        let files = self.files.lock().unwrap();
        let content = files.get(path).ok_or_else(|| Error::not_found("file", path))?;
        Ok(FileInfo {
            path: path.to_owned(),
            kind: FileKind::File,
            size: content.len() as u64,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: SystemTime::now(),
            link_target: None,
        })
    }
}

impl Process {
    /// Takes one input; where it was for standard input, up to where that is accepted now.
    fn take(&self, input: Input) -> Option<u64> {
        match input {
            Input::Stdin { data, .. } => {
                let mut output = self.output.lock().unwrap();
                output.extend_from_slice(&data);
                let accepted = output.len() as u64;
                self.info.lock().unwrap().stdin_offset = accepted;
                return Some(accepted);
            }
            Input::CloseStdin => self.end(Some(0), None, ExitReason::Exited),
            Input::Signal(signal) => self.end(None, Some(signal), ExitReason::Signaled),
            Input::Resize(_) | Input::Ack { .. } => {}
        }
        None
    }

    fn end(&self, code: Option<i32>, signal: Option<i32>, reason: ExitReason) {
        let status = ExitStatus {
            reason,
            code,
            signal,
            oom_kills: 0,
            cpu_time: Duration::from_millis(1),
            max_rss_bytes: 4096,
            time: SystemTime::now(),
        };
        let mut info = self.info.lock().unwrap();
        if info.exit.is_none() {
            info.stdout.end = self.output.lock().unwrap().len() as u64;
            info.exit = Some(status.clone());
            self.ended.send_replace(Some(status));
        }
    }
}

#[async_trait]
impl ExecutionEnvironment for Sandbox {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    async fn destroy(&self) -> Result<()> {
        self.host.destroys.fetch_add(1, Ordering::SeqCst);
        if self.host.stuck.load(Ordering::SeqCst) {
            return Err(Error::internal("unmount", "busy"));
        }
        for process in self.processes.lock().unwrap().values() {
            process.end(None, None, ExitReason::SandboxGone);
        }
        self.host.sandboxes.lock().unwrap().remove(&self.id);
        Ok(())
    }

    async fn pause(&self) -> Result<()> {
        self.paused.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    async fn update_limits(&self, limits: &ResourceLimits) -> Result<ResourceLimits> {
        let mut held = self.limits.lock().unwrap();
        *held = limits.or(&held);
        Ok(held.clone())
    }

    fn can_become(&self, changes: &ResourceLimits) -> bool {
        changes.pids.is_none() || !self.host.fixed_pids.load(Ordering::SeqCst)
    }

    async fn bind(&self, spec: &SandboxSpec) -> Result<Bound> {
        self.bound.lock().unwrap().push(spec.clone());
        if self.host.unbindable.load(Ordering::SeqCst) {
            return Err(Error::Unavailable { what: "guest", detail: "it does not answer".to_owned() });
        }
        if self.host.refusing.load(Ordering::SeqCst) {
            return Err(Error::wrong_state("LIMIT_BELOW_USE", "more is in use"));
        }
        let limits = self.update_limits(&spec.limits).await?;
        while self.host.holding.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Bound { handle: handle_of(&self.id, &limits), limits })
    }

    async fn snapshot(&self, template: Template) -> Result<Template> {
        let mut templates = self.host.templates.lock().unwrap();
        if templates.contains_key(&template.id) {
            return Err(Error::AlreadyExists { kind: "template", id: template.id.to_string() });
        }
        templates.insert(template.id.clone(), template.clone());
        Ok(template)
    }

    async fn fork(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created> {
        let files = self.files.lock().unwrap().clone();
        self.host.make(id, spec, files).await
    }

    async fn stats(&self) -> Result<SandboxStats> {
        Ok(SandboxStats { memory_bytes: Some(1 << 20), ..SandboxStats::unknown() })
    }

    fn inside(&self) -> Result<&dyn Inside> {
        if self.paused.load(Ordering::SeqCst) {
            return Err(Error::wrong_state("SANDBOX_STATE", "the sandbox is paused; resume it first"));
        }
        Ok(self)
    }
}
