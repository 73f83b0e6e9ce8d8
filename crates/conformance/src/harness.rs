//! What a case works with: sandboxes that go away by themselves, and short words for what is done in them.

use crate::failure::{Failure, Outcome, ensure};
use crate::patience::patience;
use crate::session::{Finished, Session, patiently};
use crate::{Factory, archive};
use bytes::Bytes;
use hostel_sandbox::file::{FileInfo, WriteOptions};
use hostel_sandbox::process::{AttachOptions, ProcessSpec};
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{
    Backend, Capability, Created, Error, ExecutionEnvironment, ResourceLimits, Result, SandboxId,
    SandboxSpec, TemplateId,
};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where [`Sandbox::probe`] puts the probe.
const PROBE_PATH: &str = "/tmp/hostel-probe";

/// A case's view of the backend. It remembers what the case makes and removes it at the end.
pub struct Harness {
    factory: Arc<dyn Factory>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    sandboxes: Vec<(SandboxId, Option<Arc<dyn ExecutionEnvironment>>)>,
    templates: Vec<TemplateId>,
    fresh: Vec<Arc<Harness>>,
}

/// Does something until it holds, or says what it last said after [`patience`].
pub(crate) async fn eventually<T, F: Future<Output = Outcome<T>>>(
    mut attempt: impl FnMut() -> F,
) -> Outcome<T> {
    let deadline = Instant::now() + patience();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(failure) if Instant::now() > deadline => {
                return Err(failure.while_(format!("even after {} s", patience().as_secs())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

impl Harness {
    /// A harness over a factory.
    #[must_use]
    pub fn new(factory: Arc<dyn Factory>) -> Arc<Self> {
        Arc::new(Self { factory, made: Mutex::default() })
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The factory.
    #[must_use]
    pub fn factory(&self) -> &dyn Factory {
        self.factory.as_ref()
    }

    /// The live backend.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn Backend> {
        self.factory.backend()
    }

    /// Whether the backend claims a capability.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.backend().capabilities().has(capability)
    }

    /// The usual limits, as far as the backend can hold them.
    #[must_use]
    pub fn limits(&self) -> ResourceLimits {
        let all = ResourceLimits::defaults();
        ResourceLimits {
            memory_bytes: all.memory_bytes.filter(|_| self.has(Capability::MemoryLimit)),
            // The suite moves a lot of data; how fast is not its business.
            cpu_millis: None,
            pids: all.pids.filter(|_| self.has(Capability::PidsLimit)),
            disk_bytes: all.disk_bytes.filter(|_| self.has(Capability::DiskLimit)),
            disk_inodes: None,
            open_files: all.open_files.filter(|_| self.has(Capability::OpenFilesLimit)),
            output_bytes_per_second: None,
        }
    }

    /// A specification with the usual limits.
    #[must_use]
    pub fn spec(&self) -> SandboxSpec {
        SandboxSpec { limits: self.limits(), ..SandboxSpec::default() }
    }

    /// A sandbox.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub async fn sandbox(&self) -> Outcome<Sandbox> {
        self.sandbox_with(|_| ()).await
    }

    /// A sandbox with something changed in its specification.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub async fn sandbox_with(&self, change: impl FnOnce(&mut SandboxSpec)) -> Outcome<Sandbox> {
        let mut spec = self.spec();
        change(&mut spec);
        spec.validate()?;
        Ok(patiently("a creation", self.create(&SandboxId::generate(), &spec)).await??)
    }

    /// A sandbox made from a template.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub async fn sandbox_from(&self, template: &TemplateId) -> Outcome<Sandbox> {
        self.sandbox_with(|spec| spec.template = Some(template.clone())).await
    }

    /// Makes a sandbox from a template and gives the backend's own answer.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn sandbox_from_result(&self, template: &TemplateId) -> Result<Sandbox> {
        let spec = SandboxSpec { template: Some(template.clone()), ..self.spec() };
        self.create(&SandboxId::generate(), &spec).await
    }

    /// Makes a sandbox and gives the backend's own answer.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn create(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Sandbox> {
        let created = self.backend().create(id, spec).await?;
        Ok(self.keep(created))
    }

    /// Takes a creation in charge.
    pub fn keep(&self, created: Created) -> Sandbox {
        self.keep_environment(&created.environment);
        Sandbox {
            environment: created.environment,
            handle: created.handle,
            limits: created.limits,
            probe: self.factory.probe(),
        }
    }

    fn keep_environment(&self, environment: &Arc<dyn ExecutionEnvironment>) {
        let id = environment.id().clone();
        let mut made = self.made();
        made.sandboxes.retain(|(known, _)| *known != id);
        made.sandboxes.push((id, Some(Arc::clone(environment))));
    }

    /// Remembers an id of which nothing may be left at the end, whatever became of its creation.
    pub fn watch_id(&self, id: &SandboxId) {
        self.made().sandboxes.push((id.clone(), None));
    }

    /// A template to be made by the case, removed at its end.
    pub fn template(&self, source: TemplateSource) -> Template {
        let template = Template::new(TemplateId::generate(), source);
        self.made().templates.push(template.id.clone());
        template
    }

    /// Another harness, over a backend of its own.
    ///
    /// # Errors
    /// Where none can be made.
    pub async fn fresh(&self) -> Outcome<Arc<Self>> {
        let fresh = Self::new(patiently("another backend", self.factory.fresh()).await??);
        self.made().fresh.push(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Kills the daemon's side and starts it again. Every sandbox must be adopted to be used again.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn restart(&self) -> Outcome {
        for (_, environment) in &mut self.made().sandboxes {
            *environment = None;
        }
        patiently("a restart", self.factory.restart()).await??;
        Ok(())
    }

    /// Adopts a sandbox after a restart.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn adopt(&self, sandbox: &Sandbox) -> Result<Sandbox> {
        let environment = self.backend().adopt(sandbox.environment.id(), &sandbox.handle).await?;
        self.keep_environment(&environment);
        Ok(Sandbox { environment, ..sandbox.clone() })
    }

    /// Fails if anything of a sandbox stays on the host.
    ///
    /// # Errors
    /// With what is left.
    pub async fn nothing_left(&self, id: &SandboxId) -> Outcome {
        eventually(|| async {
            let left = self.factory.leftovers(id).await;
            ensure!(left.is_empty(), "left of {id}: {left:#?}");
            Ok(())
        })
        .await
    }

    /// Removes everything the case made and looks whether it is gone.
    ///
    /// # Errors
    /// With what could not be removed.
    pub async fn clean_up(&self) -> Outcome {
        let made = std::mem::take(&mut *self.made());
        let mut first_failure = Ok(());
        for fresh in made.fresh {
            let done = Box::pin(fresh.clean_up()).await;
            fresh.factory.close().await;
            first_failure = first_failure.and(done);
        }
        if made.sandboxes.iter().any(|(_, environment)| environment.is_none()) {
            let removed = patiently("removing orphans", self.backend().remove_orphans()).await;
            first_failure = first_failure.and(removed.and_then(|result| Ok(result.map(|_| ())?)));
        }
        for (id, environment) in &made.sandboxes {
            if let Some(environment) = environment {
                let destroyed = patiently(format!("destroying {id}"), environment.destroy()).await;
                first_failure = first_failure.and(destroyed.and_then(|result| Ok(result?)));
            }
        }
        // The newest first: it may stand on those before it, and a sandbox that is just gone on any.
        for id in made.templates.iter().rev() {
            let deleted = eventually(|| async {
                match self.backend().delete_template(id).await {
                    Ok(()) | Err(Error::NotFound { .. } | Error::CapabilityMissing { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            });
            first_failure = first_failure.and(deleted.await);
        }
        for (id, _) in &made.sandboxes {
            first_failure = first_failure.and(self.nothing_left(id).await);
        }
        first_failure
    }
}

/// A sandbox and short words for what is done in it.
#[derive(Clone)]
pub struct Sandbox {
    environment: Arc<dyn ExecutionEnvironment>,
    /// What the backend needs to find it again.
    pub handle: Bytes,
    /// The limits in force.
    pub limits: ResourceLimits,
    probe: &'static [u8],
}

impl Deref for Sandbox {
    type Target = dyn ExecutionEnvironment;

    fn deref(&self) -> &Self::Target {
        self.environment.as_ref()
    }
}

/// A specification of a process.
pub(crate) fn command(argv: &[&str]) -> ProcessSpec {
    ProcessSpec { argv: argv.iter().map(|&word| word.to_owned()).collect(), ..ProcessSpec::default() }
}

/// A specification of a shell that runs a script.
pub(crate) fn script(text: &str) -> ProcessSpec {
    command(&["sh", "-c", text])
}

impl Sandbox {
    /// The environment, to be shared.
    #[must_use]
    pub fn environment(&self) -> Arc<dyn ExecutionEnvironment> {
        Arc::clone(&self.environment)
    }

    /// Starts a process and attaches to all its output, and to its standard input if it has one.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn open(&self, spec: ProcessSpec) -> Outcome<Session> {
        let options = AttachOptions { stdin: spec.stdin, ..AttachOptions::everything() };
        let attachment =
            patiently("starting a process", self.environment.inside()?.exec(spec, options.clone())).await??;
        Session::open(attachment, &options).await
    }

    /// Attaches.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn attach_with(
        &self,
        process: &hostel_sandbox::ProcessId,
        options: AttachOptions,
    ) -> Outcome<Session> {
        let attachment =
            patiently("attaching", self.environment.inside()?.attach(process, options.clone())).await??;
        Session::open(attachment, &options).await
    }

    /// Runs a process to its end.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn finish(&self, spec: ProcessSpec) -> Outcome<Finished> {
        self.open(spec).await?.finish().await
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn run(&self, argv: &[&str]) -> Outcome<Finished> {
        self.finish(command(argv)).await
    }

    /// Runs a shell script to its end, which must be success, and gives what it printed.
    ///
    /// # Errors
    /// What the backend says, or how it failed.
    pub async fn sh(&self, text: &str) -> Outcome<String> {
        Ok(self.finish(script(text)).await?.success().map_err(|failure| failure.while_(text))?.text())
    }

    /// Uploads the probe, once, and gives its path.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn probe(&self) -> Outcome<&'static str> {
        match self.environment.inside()?.stat(PROBE_PATH, true).await {
            Ok(_) => {}
            Err(Error::NotFound { .. }) => {
                let options =
                    WriteOptions { mode: Some(0o755), create_parents: true, ..WriteOptions::default() };
                self.put_with(PROBE_PATH, options, Bytes::from_static(self.probe)).await?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(PROBE_PATH)
    }

    /// Runs the probe to its end.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn run_probe(&self, arguments: &[&str]) -> Outcome<Finished> {
        let argv: Vec<&str> = std::iter::once(self.probe().await?).chain(arguments.iter().copied()).collect();
        self.run(&argv).await
    }

    /// What the probe sees.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn report(&self) -> Outcome<serde_json::Value> {
        let finished = self.run_probe(&["report"]).await?.success()?;
        Ok(serde_json::from_slice(&finished.stdout)?)
    }

    /// Writes a file as a whole.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn put(&self, path: &str, content: impl Into<Bytes>) -> Outcome<FileInfo> {
        self.put_with(path, WriteOptions::default(), content).await
    }

    /// Writes a file.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn put_with(
        &self,
        path: &str,
        options: WriteOptions,
        content: impl Into<Bytes>,
    ) -> Outcome<FileInfo> {
        let stream = archive::stream(content);
        Ok(patiently(format!("writing {path}"), self.environment.inside()?.write(path, options, stream))
            .await??)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn get(&self, path: &str) -> Outcome<Vec<u8>> {
        self.get_range(path, 0, None).await
    }

    /// Reads a piece of a file.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn get_range(&self, path: &str, offset: u64, length: Option<u64>) -> Outcome<Vec<u8>> {
        let opened =
            patiently(format!("reading {path}"), self.environment.inside()?.read(path, offset, length))
                .await?;
        let (_, stream) = opened?;
        archive::collect(stream).await
    }

    /// Whether something is at a path; links are not followed.
    ///
    /// # Errors
    /// What the backend says, other than that it is not there.
    pub async fn exists(&self, path: &str) -> Outcome<bool> {
        match self.environment.inside()?.stat(path, false).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Failure::from(error).while_(path)),
        }
    }
}
