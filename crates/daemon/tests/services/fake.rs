//! A backend in memory, for tests of the daemon alone: its sandboxes live in a [`Host`] that outlives daemons.

use async_trait::async_trait;
use bytes::Bytes;
use hostel_sandbox::file::{
    ByteStream, Compression, FileEvent, FileEventKind, FileInfo, FileKind, WriteOptions,
};
use hostel_sandbox::process::{
    AttachOptions, Attachment, ExitReason, ExitStatus, Input, Output, OutputStream, ProcessInfo, ProcessSpec,
    StartRequest, TerminalSize,
};
use hostel_sandbox::stats::SandboxStats;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{
    Backend, BackendEvent, BackendName, Capabilities, Capability, Created, Error, ExecutionEnvironment,
    ProcessId, ResourceLimits, Result, SandboxId, SandboxSpec, Stage, TemplateId,
};
use std::collections::{BTreeMap, HashMap};
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
    /// Creations begun.
    pub(crate) creations: AtomicUsize,
    /// How long a creation takes, in milliseconds.
    pub(crate) creation_ms: AtomicUsize,
    /// Whether `destroy` fails.
    pub(crate) stuck: AtomicBool,
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
    host: Arc<Host>,
    capabilities: Capabilities,
    events: Mutex<Option<mpsc::Receiver<BackendEvent>>>,
    pub(crate) tell: mpsc::Sender<BackendEvent>,
}

impl Fake {
    pub(crate) fn new(host: &Arc<Host>) -> Arc<Self> {
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
        Arc::new(Self { host: Arc::clone(host), capabilities, events: Mutex::new(Some(events)), tell })
    }
}

/// One sandbox.
pub(crate) struct Sandbox {
    host: Arc<Host>,
    id: SandboxId,
    processes: Mutex<BTreeMap<ProcessId, Arc<Process>>>,
    files: Mutex<BTreeMap<String, Bytes>>,
    pub(crate) paused: AtomicBool,
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
        let sandbox = Arc::new(Sandbox {
            host: Arc::clone(self),
            id: id.clone(),
            processes: Mutex::default(),
            files: Mutex::new(files),
            paused: AtomicBool::new(false),
        });
        self.sandboxes.lock().unwrap().insert(id.clone(), Arc::clone(&sandbox));
        Ok(Created {
            environment: sandbox,
            handle: Bytes::from(format!("handle of {id}")),
            limits: spec.limits.clone(),
            weaknesses: vec![],
            stages: vec![Stage { name: "clone", duration: Duration::from_micros(5) }],
        })
    }
}

#[async_trait]
impl Backend for Fake {
    fn name(&self) -> BackendName {
        BackendName::parse("fake").unwrap()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn create(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Created> {
        self.host.make(id, spec, BTreeMap::new()).await
    }

    async fn adopt(&self, id: &SandboxId, handle: &Bytes) -> Result<Arc<dyn ExecutionEnvironment>> {
        assert_eq!(handle, format!("handle of {id}").as_bytes());
        match self.host.sandboxes.lock().unwrap().get(id) {
            Some(sandbox) => Ok(Arc::clone(sandbox) as Arc<dyn ExecutionEnvironment>),
            None => Err(Error::not_found("sandbox", id)),
        }
    }

    async fn remove_orphans(&self) -> Result<usize> {
        Ok(0)
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>> {
        self.events.lock().unwrap().take()
    }

    async fn templates(&self) -> Result<Vec<Template>> {
        Ok(self.host.templates.lock().unwrap().values().cloned().collect())
    }

    async fn import_template(
        &self,
        mut template: Template,
        mut archive: ByteStream,
        _: Compression,
    ) -> Result<Template> {
        let mut size = 0;
        while let Some(bytes) = archive.recv().await {
            size += bytes?.len() as u64;
        }
        template.size_bytes = Some(size);
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

    async fn delete_template(&self, id: &TemplateId) -> Result<()> {
        let removed = self.host.templates.lock().unwrap().remove(id);
        removed.map(|_| ()).ok_or_else(|| Error::not_found("template", id))
    }

    async fn shutdown(&self) {}
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
        Ok(limits.clone())
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

    /// `echo WORDS` ends at once, `flood BYTES` writes, `sleep` and `cat` run until they are ended.
    async fn start(&self, spec: ProcessSpec) -> Result<ProcessInfo> {
        let id = spec.id.clone().unwrap_or_else(ProcessId::generate);
        let info = ProcessInfo {
            id: id.clone(),
            argv: spec.argv.clone(),
            pid: 7,
            terminal: spec.terminal.is_some(),
            start_time: SystemTime::now(),
            exit: None,
            stdout: 0..0,
            stderr: 0..0,
            stdin_offset: 0,
            user: spec.user.clone().unwrap_or_else(|| "root".to_owned()),
            cwd: spec.cwd.clone().unwrap_or_else(|| "/".to_owned()),
        };
        let process = Arc::new(Process {
            request: spec.request,
            info: Mutex::new(info.clone()),
            ended: watch::Sender::new(None),
            output: Mutex::default(),
        });
        if !["echo", "flood", "sleep", "cat"].contains(&spec.argv[0].as_str()) {
            return Err(Error::invalid("argv", format!("no program {:?}", spec.argv[0])));
        }
        {
            let mut processes = self.processes.lock().unwrap();
            let asked = spec.request.and_then(|request| {
                processes.values().find(|other| other.request.is_some_and(|one| one.key == request.key))
            });
            if let Some(started) = asked {
                let other = Error::AlreadyExists { kind: StartRequest::KIND, id: id.to_string() };
                let same = started.request == spec.request;
                return if same { Ok(started.info.lock().unwrap().clone()) } else { Err(other) };
            }
            if processes.contains_key(&id) {
                return Err(Error::AlreadyExists { kind: "process", id: id.to_string() });
            }
            processes.insert(id, Arc::clone(&process));
        }
        match spec.argv[0].as_str() {
            "echo" => {
                *process.output.lock().unwrap() = format!("{}\n", spec.argv[1..].join(" ")).into_bytes();
                process.end(Some(0), None, ExitReason::Exited);
            }
            "flood" => {
                *process.output.lock().unwrap() = vec![b'x'; spec.argv[1].parse().unwrap()];
                process.end(Some(3), None, ExitReason::Exited);
            }
            _ => {}
        }
        Ok(info)
    }

    async fn attach(&self, id: &ProcessId, options: AttachOptions) -> Result<Attachment> {
        let process = self.find(id)?;
        let (input, mut inputs) = mpsc::channel::<Input>(8);
        let (outputs, output) = mpsc::channel(8);
        let mut ended = process.ended.subscribe();
        #[expect(clippy::disallowed_methods, reason = "ends with its channels")]
        tokio::spawn(async move {
            let mut info = process.info.lock().unwrap().clone();
            info.stdout.end = process.output.lock().unwrap().len() as u64;
            let mut offset = options.stdout_from.unwrap_or(info.stdout.end);
            let _ = outputs.send(Ok(Output::Opened(info))).await;
            loop {
                let data = process.output.lock().unwrap()[offset as usize..].to_vec();
                for chunk in data.chunks(256 << 10) {
                    let data = Bytes::copy_from_slice(chunk);
                    let stream = OutputStream::Stdout;
                    if outputs.send(Ok(Output::Data { stream, offset, data })).await.is_err() {
                        return;
                    }
                    offset += chunk.len() as u64;
                }
                let exit = ended.borrow_and_update().clone();
                if let Some(exit) = exit {
                    let _ = outputs.send(Ok(Output::Exited(exit))).await;
                    return;
                }
                tokio::select! {
                    biased;
                    Some(input) = inputs.recv() => {
                        if let Some(offset) = process.take(input) {
                            let _ = outputs.send(Ok(Output::StdinAccepted { offset })).await;
                        }
                    }
                    _ = ended.changed() => {}
                    () = outputs.closed() => return,
                }
            }
        });
        Ok(Attachment { input, output })
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        Ok(self
            .processes
            .lock()
            .unwrap()
            .values()
            .map(|process| process.info.lock().unwrap().clone())
            .collect())
    }

    async fn process(&self, id: &ProcessId) -> Result<ProcessInfo> {
        Ok(self.find(id)?.info.lock().unwrap().clone())
    }

    async fn signal(&self, id: &ProcessId, signal: i32) -> Result<()> {
        self.find(id)?.end(None, Some(signal), ExitReason::Signaled);
        Ok(())
    }

    async fn resize(&self, id: &ProcessId, _: TerminalSize) -> Result<()> {
        self.find(id).map(|_| ())
    }

    async fn wait(&self, id: &ProcessId) -> Result<ExitStatus> {
        let mut ended = self.find(id)?.ended.subscribe();
        let status = ended.wait_for(Option::is_some).await.unwrap();
        Ok(status.clone().unwrap())
    }

    async fn stat(&self, path: &str, _: bool) -> Result<FileInfo> {
        self.info(path)
    }

    async fn list(&self, path: &str, after: Option<&str>, limit: usize) -> Result<Vec<FileInfo>> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let names: Vec<String> = self.files.lock().unwrap().keys().cloned().collect();
        let wanted = names.iter().filter(|name| {
            name.strip_prefix(&below).is_some_and(|name| after.is_none_or(|after| name > after))
        });
        wanted.take(limit).map(|name| self.info(name)).collect()
    }

    async fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<(FileInfo, ByteStream)> {
        let info = self.info(path)?;
        let content = self.files.lock().unwrap()[path].clone();
        let start = (offset as usize).min(content.len());
        let end = length.map_or(content.len(), |length| (start + length as usize).min(content.len()));
        let (sender, bytes) = mpsc::channel(1);
        sender.try_send(Ok(content.slice(start..end))).unwrap();
        Ok((info, bytes))
    }

    async fn write(&self, path: &str, options: WriteOptions, mut content: ByteStream) -> Result<FileInfo> {
        let mut whole = match options.offset {
            Some(offset) => {
                let old = self.files.lock().unwrap().get(path).cloned().unwrap_or_default();
                old.slice(..offset as usize).to_vec()
            }
            None => Vec::new(),
        };
        if options.must_not_exist && self.info(path).is_ok() {
            return Err(Error::AlreadyExists { kind: "file", id: path.to_owned() });
        }
        while let Some(bytes) = content.recv().await {
            whole.extend_from_slice(&bytes?);
        }
        self.files.lock().unwrap().insert(path.to_owned(), whole.into());
        self.info(path)
    }

    async fn make_directory(&self, path: &str, _: bool, _: Option<u32>) -> Result<FileInfo> {
        self.files.lock().unwrap().insert(path.to_owned(), Bytes::new());
        self.info(path)
    }

    async fn rename(&self, from: &str, to: &str, _: bool) -> Result<FileInfo> {
        let content =
            self.files.lock().unwrap().remove(from).ok_or_else(|| Error::not_found("file", from))?;
        self.files.lock().unwrap().insert(to.to_owned(), content);
        self.info(to)
    }

    async fn remove(&self, path: &str, _: bool) -> Result<()> {
        let removed = self.files.lock().unwrap().remove(path);
        removed.map(|_| ()).ok_or_else(|| Error::not_found("file", path))
    }

    async fn watch(&self, path: &str, _: bool) -> Result<mpsc::Receiver<Result<FileEvent>>> {
        let (sender, events) = mpsc::channel(4);
        let event = FileEvent { kind: FileEventKind::Created, path: format!("{path}/new") };
        sender.try_send(Ok(event)).unwrap();
        // Kept open until the receiver goes away.
        #[expect(clippy::disallowed_methods, reason = "ends with its channel")]
        tokio::spawn(async move { sender.closed().await });
        Ok(events)
    }

    async fn import(&self, _: &str, _: Compression, mut archive: ByteStream) -> Result<u64> {
        let mut entries = 0;
        while let Some(bytes) = archive.recv().await {
            bytes?;
            entries += 1;
        }
        Ok(entries)
    }

    async fn export(&self, _: &str, _: Compression) -> Result<ByteStream> {
        let (sender, bytes) = mpsc::channel(1);
        sender.try_send(Ok(Bytes::from(vec![1; 600 << 10]))).unwrap();
        Ok(bytes)
    }
}
