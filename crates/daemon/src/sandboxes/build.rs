//! Builds: commands run in a sandbox of one template, whose files then become another template.
//!
//! The sandbox of a build has no record: when the daemon dies, what is left of it belongs to nobody and the next
//! start removes it.

mod log;

pub(crate) use log::{BuildEvent, Followed};

use super::create::left;
use super::ready::{Tail, shown, told};
use super::{Repeat, Sandboxes};
use crate::capacity::Room;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::store::RequestKey;
use hostel_pool::Needs;
use hostel_sandbox::process::{AttachOptions, ExitReason, ExitStatus, Output, ProcessSpec};
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{
    Backend, BackendName, Capability, Created, Error as DomainError, ExecutionEnvironment, ResourceLimits,
    SandboxId, SandboxSpec, TemplateId,
};
use log::Log;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a build that ended can be followed again.
const KEPT: Duration = Duration::from_secs(600);
/// How long a step may take that names no timeout: its sandbox takes the node's memory for as long.
const STEP: Duration = Duration::from_secs(3600);
/// Most ended builds that are kept.
const MOST_KEPT: usize = 64;

/// What to build.
#[derive(Debug, Clone)]
pub(crate) struct BuildRequest {
    /// What shall come out; its source names the base, or nothing for the default.
    pub template: Template,
    pub steps: Vec<ProcessSpec>,
    /// Where; the first backend that can where absent.
    pub backend: Option<BackendName>,
}

/// A build, and the hash of the request that began it.
type Begun = ([u8; 32], Arc<Log>);

/// Builds under way, and those that ended lately.
#[derive(Default)]
pub(super) struct Builds {
    logs: Mutex<HashMap<RequestKey, Begun>>,
    /// Names that are taken by builds under way.
    names: Mutex<HashSet<TemplateId>>,
}

impl Builds {
    /// The build of an earlier request with this id, or a new one; the flag says which.
    fn log(&self, repeat: Option<&Repeat>) -> Result<(Arc<Log>, bool)> {
        let Some(repeat) = repeat else { return Ok((Log::new(), true)) };
        let mut logs = lock(&self.logs);
        logs.retain(|_, (_, log)| log.ended_since().is_none_or(|since| since < KEPT));
        if let Some((body, log)) = logs.get(&repeat.key) {
            repeat.check(body)?;
            return Ok((Arc::clone(log), false));
        }
        if logs.len() >= MOST_KEPT {
            let oldest = logs.iter().filter_map(|(key, (_, log))| Some((log.ended_since()?, key)));
            if let Some(key) = oldest.max_by_key(|(since, _)| *since).map(|(_, key)| key.clone()) {
                logs.remove(&key);
            }
        }
        let log = Log::new();
        logs.insert(repeat.key.clone(), (repeat.body, Arc::clone(&log)));
        Ok((log, true))
    }
}

/// A name that no other build may have; given back when dropped.
struct Name {
    sandboxes: Sandboxes,
    id: TemplateId,
}

impl Drop for Name {
    fn drop(&mut self) {
        lock(&self.sandboxes.0.builds.names).remove(&self.id);
    }
}

/// A build that can begin.
struct Plan {
    backend: Arc<dyn Backend>,
    template: Template,
    /// Limits that were asked for; the base's come by themselves.
    limits: ResourceLimits,
    steps: Vec<ProcessSpec>,
    _name: Name,
}

impl Sandboxes {
    /// Begins a build, or finds the one that this request began before, and follows it from its beginning. It goes
    /// on when nobody follows; but one that nobody could find again, having no request id, then ends.
    ///
    /// # Errors
    /// `RequestIdReused`. Everything else comes from the build that is followed.
    pub(crate) fn build(
        &self,
        request: BuildRequest,
        actor: String,
        repeat: Option<Repeat>,
    ) -> Result<Followed> {
        let (log, new) = self.0.builds.log(repeat.as_ref())?;
        let abandoned = CancellationToken::new();
        let followed = log.follow(repeat.is_none().then(|| abandoned.clone()));
        if new {
            let (this, log) = (self.clone(), Arc::clone(&log));
            self.0.tasks.spawn(async move {
                let ended = tokio::select! {
                    ended = this.build_once(request, &actor, repeat, &log, &abandoned) => ended,
                    () = this.0.stop.cancelled() => Err(Error::Draining),
                };
                log.end(ended);
            });
        }
        Ok(followed)
    }

    async fn build_once(
        &self,
        request: BuildRequest,
        actor: &str,
        repeat: Option<Repeat>,
        log: &Log,
        abandoned: &CancellationToken,
    ) -> Result<()> {
        let Some(repeat) = repeat else { return self.build_now(request, actor, log, abandoned).await };
        let (key, claim) = repeat.fulfilled(request.template.id.to_string());
        if let Some(earlier) = self.0.store.claim_request(&key, claim).await? {
            repeat.check(&earlier.body)?;
            // It was built by an earlier daemon, unless that died over it.
            let found = self.backends_with(&request.template.id).await?;
            if let Some((backend, template)) = found.into_iter().next() {
                log.add(BuildEvent::Done { backend: backend.name(), template: Box::new(template) });
                return Ok(());
            }
        }
        let built = self.build_now(request, actor, log, abandoned).await;
        if built.is_err() {
            self.0.store.release_request(&repeat.key).await?;
        }
        built
    }

    async fn build_now(
        &self,
        request: BuildRequest,
        actor: &str,
        log: &Log,
        abandoned: &CancellationToken,
    ) -> Result<()> {
        let begin = Instant::now();
        if self.is_draining() {
            return Err(Error::NodeDraining);
        }
        let plan = self.plan(request).await?;
        let spec = SandboxSpec {
            backend: Some(plan.backend.name()),
            template: plan.template.source.base().cloned(),
            env: plan.template.env.clone(),
            user: plan.template.user.clone(),
            workdir: plan.template.workdir.clone(),
            limits: plan.limits.clone(),
            ..SandboxSpec::default()
        };
        let resolved = self.resolve(spec, plan.template.network.clone()).await?;
        let room = self.0.capacity.take_now(Needs::of(&resolved.spec.limits)).await?;
        let created = plan.backend.create(&SandboxId::generate(), &resolved.spec).await?;
        let sandbox = Unrecorded::new(self, created, room);
        tokio::select! {
            ran = run_steps(&sandbox.environment, &plan.steps, log) => ran?,
            () = abandoned.cancelled() => return Err(left("the build")),
        }
        let template = sandbox.environment.snapshot(plan.template.clone()).await?;
        self.template_made(plan.backend.name(), template.clone());
        tracing::info!(
            template = %template.id, op = "build", actor, duration = ?begin.elapsed(), "template made"
        );
        log.add(BuildEvent::Done { backend: plan.backend.name(), template: Box::new(template) });
        Ok(())
    }

    /// Finds the backend and the base, and takes the name.
    async fn plan(&self, request: BuildRequest) -> Result<Plan> {
        let BuildRequest { mut template, steps, backend } = request;
        let base = template.source.base().cloned();
        let (backend, base) = self.builder(backend, base.as_ref()).await?;
        let taken = || DomainError::AlreadyExists { kind: "template", id: template.id.to_string() };
        if self.template_in(&backend, &template.id).await?.is_some()
            || !lock(&self.0.builds.names).insert(template.id.clone())
        {
            return Err(taken().into());
        }
        let name = Name { sandboxes: self.clone(), id: template.id.clone() };
        let limits = template.limits.clone();
        template.inherit(&base);
        template.source = TemplateSource::Built { base: base.id };
        Ok(Plan { backend, template, limits, steps: with_deadlines(steps), _name: name })
    }

    /// The backend that has the base and can snapshot: the one named, or the first.
    async fn builder(
        &self,
        named: Option<BackendName>,
        base: Option<&TemplateId>,
    ) -> Result<(Arc<dyn Backend>, Template)> {
        let candidates: Vec<_> = match &named {
            Some(name) => {
                vec![self.0.backends.get(name).ok_or_else(|| DomainError::not_found("backend", name))?]
            }
            None => self.0.backends.all().cloned().collect(),
        };
        let mut refused = None;
        for backend in candidates {
            let found = match self.template_for(&backend, base).await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                // One backend that does not answer must not hide that another has it.
                Err(error) => {
                    refused.get_or_insert(error);
                    continue;
                }
            };
            match backend.capabilities().require(Capability::Snapshot) {
                Ok(()) => return Ok((backend, Template::clone(&found))),
                Err(error) => refused = Some(error.into()),
            }
        }
        let missing = || {
            let name = base.map_or("host", TemplateId::as_str);
            DomainError::not_found("template", name).into()
        };
        Err(refused.unwrap_or_else(missing))
    }
}

/// A sandbox that nobody else knows; destroyed on every way out, also when the build is dropped.
struct Unrecorded {
    environment: Arc<dyn ExecutionEnvironment>,
    sandboxes: Sandboxes,
    /// What it takes of the node until it is destroyed.
    room: Option<Room>,
}

impl Unrecorded {
    fn new(sandboxes: &Sandboxes, created: Created, room: Room) -> Self {
        Self { environment: created.environment, sandboxes: sandboxes.clone(), room: Some(room) }
    }
}

impl Drop for Unrecorded {
    fn drop(&mut self) {
        let (environment, room) = (Arc::clone(&self.environment), self.room.take());
        self.sandboxes.0.tasks.spawn(async move {
            if let Err(error) = environment.destroy().await {
                tracing::warn!(%error, "the sandbox of a build could not be removed; the next start does it");
            }
            drop(room);
        });
    }
}

fn with_deadlines(mut steps: Vec<ProcessSpec>) -> Vec<ProcessSpec> {
    for step in &mut steps {
        step.timeout.get_or_insert(STEP);
    }
    steps
}

async fn run_steps(
    environment: &Arc<dyn ExecutionEnvironment>,
    steps: &[ProcessSpec],
    log: &Log,
) -> Result<()> {
    for (index, step) in (0u32..).zip(steps) {
        let begin = Instant::now();
        log.add(BuildEvent::StepStarted { index, command: step.argv.clone() });
        let mut tail = Tail::default();
        let exit = match run_step(environment, index, step, log, &mut tail).await {
            Ok(exit) => exit,
            Err(error) => return Err(failed(index, step, None, format!("cannot be run: {error}"))),
        };
        if exit.reason != ExitReason::Exited || exit.code != Some(0) {
            return Err(failed(index, step, Some(exit.shell_code()), told(&exit, &tail.text())));
        }
        log.add(BuildEvent::StepFinished { index, command: step.argv.clone(), duration: begin.elapsed() });
    }
    Ok(())
}

async fn run_step(
    environment: &Arc<dyn ExecutionEnvironment>,
    index: u32,
    step: &ProcessSpec,
    log: &Log,
    tail: &mut Tail,
) -> hostel_sandbox::Result<ExitStatus> {
    let options = AttachOptions { stdout_from: Some(0), stderr_from: Some(0), ..AttachOptions::default() };
    let mut attachment = environment.inside()?.exec(step.clone(), options).await?;
    while let Some(output) = attachment.output.recv().await {
        match output? {
            Output::Data { stream, data, .. } => {
                tail.add(&data);
                log.add(BuildEvent::Output { index, stream, data });
            }
            Output::Exited(exit) => return Ok(exit),
            _ => {}
        }
    }
    Err(DomainError::internal("run a step of a build", "its output ended without its exit"))
}

fn failed(index: u32, step: &ProcessSpec, exit_code: Option<i32>, how: String) -> Error {
    let message = format!("step {} of the build, {:?}, {how}", index + 1, shown(&step.argv));
    Error::CommandFailed { reason: "BUILD_FAILED", message, step: Some(index), exit_code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_ends() {
        let brief = ProcessSpec { timeout: Some(Duration::from_secs(5)), ..ProcessSpec::default() };
        let steps = with_deadlines(vec![ProcessSpec::default(), brief]);
        let timeouts: Vec<_> = steps.iter().map(|step| step.timeout).collect();
        assert_eq!(timeouts, [Some(STEP), Some(Duration::from_secs(5))]);
    }
}
