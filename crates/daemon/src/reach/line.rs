//! The line of one sandbox: sockets inside it whose other end is ours, and who serves them.

use super::equip::{MODEL_PORT, MODEL_SOCKET};
use super::{Reach, asked_error, gateway_error};
use crate::error::Result;
use crate::lock::lock;
use hostel_egress::secret::SecretSet;
use hostel_egress::{Attachment as Egress, Decision, Ruleset};
use hostel_gateway::{Access, Attachment as Model, Door};
use hostel_sandbox::{Error as DomainError, ExecutionEnvironment, ListenAddress, SandboxId, SandboxSpec};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;

/// How long it may take to lay a line. The first use of nf_tables on a host loads modules.
const LAYING: Duration = Duration::from_secs(10);

/// Decisions about a sandbox: those known, and those to come.
pub(crate) type Watch = (Vec<Arc<Decision>>, broadcast::Receiver<Arc<Decision>>);

/// The line of one sandbox. Parts are added as they are needed and stay until it ends.
#[derive(Default)]
pub(super) struct Line {
    egress: Mutex<Option<Arc<Egress>>>,
    model: Mutex<Option<Arc<Model>>>,
    /// Somebody tries again and again to lay what is missing.
    again: AtomicBool,
}

/// What is to be done with a part of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    /// It is missing though nothing about it changes, as after a restart of ours: whoever changes something else is not
    /// kept from it.
    Again,
    /// What was asked for.
    Change,
}

impl Due {
    /// `differs`: what is asked for is not what it was; `waits`: what is missing waits until the sandbox goes on.
    fn of(missing: bool, differs: bool, waits: bool) -> Self {
        match (missing, differs) {
            (false, false) => Self::Nothing,
            (true, _) if waits => Self::Nothing,
            (true, false) => Self::Again,
            (_, true) => Self::Change,
        }
    }

    /// Tells of a failure in the log, where nobody asked for what failed.
    fn or_told(self, id: &SandboxId, part: &str, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if self == Self::Again => {
                tracing::error!(sandbox = %id, part, %error, "what a sandbox reached before cannot be laid again");
                Ok(())
            }
            done => done,
        }
    }
}

/// Ends work that takes too long.
async fn in_time(work: impl Future<Output = Result<()>>) -> Result<()> {
    let late = || DomainError::DeadlineExceeded { what: "connecting the sandbox".to_owned() };
    tokio::time::timeout(LAYING, work).await.map_err(|_| late())?
}

impl Line {
    fn egress(&self) -> Option<Arc<Egress>> {
        lock(&self.egress).clone()
    }

    fn model(&self) -> Option<Arc<Model>> {
        lock(&self.model).clone()
    }

    /// Ends it with every connection.
    pub(super) async fn close(&self) {
        let (egress, model) = (lock(&self.egress).take(), lock(&self.model).take());
        if let Some(egress) = egress {
            egress.close().await;
        }
        if let Some(model) = model {
            model.close().await;
        }
    }
}

impl Reach {
    /// Lays the line that a specification asks for; whether it asks for one. Nothing runs in the sandbox before.
    ///
    /// # Errors
    /// Where it cannot be laid: the sandbox must not start then.
    pub(crate) async fn connect(
        &self,
        id: &SandboxId,
        environment: &Arc<dyn ExecutionEnvironment>,
        spec: &SandboxSpec,
    ) -> Result<bool> {
        if spec.network.is_none() && spec.model.is_none() {
            return Ok(false);
        }
        self.change(id, environment, &SandboxSpec::default(), spec).await?;
        Ok(true)
    }

    /// Makes the line be as a specification says, where that differs from the one before or where there is none yet.
    /// What is no longer allowed is cut at once; what did not change is left alone, so that its connections go on. A
    /// line cannot be laid into a sandbox that is paused: what it had before a restart of ours waits until it goes on.
    ///
    /// # Errors
    /// Where that cannot be done. That what did not change is missing, and still cannot be laid, is only told in the log.
    pub(crate) async fn change(
        &self,
        id: &SandboxId,
        environment: &Arc<dyn ExecutionEnvironment>,
        before: &SandboxSpec,
        spec: &SandboxSpec,
    ) -> Result<()> {
        let (no_egress, no_model) = self.lacks(id, spec);
        let paused = environment.inside().is_err();
        let differs = before.network != spec.network || before.secrets != spec.secrets;
        let egress = Due::of(no_egress, differs, paused && !before.network.is_none());
        let differs =
            before.model != spec.model || (!no_model && spec.model.is_some() && before.labels != spec.labels);
        let model = Due::of(no_model, differs, paused && before.model.is_some());
        if egress == Due::Nothing && model == Due::Nothing {
            return Ok(());
        }
        let line = Arc::clone(lock(&self.0.lines).entry(id.clone()).or_default());
        if egress != Due::Nothing {
            let changed = in_time(self.change_egress(id, &line, environment, before, spec)).await;
            egress.or_told(id, "network", changed)?;
        }
        if model != Due::Nothing {
            let changed = in_time(self.change_model(id, &line, environment, spec)).await;
            model.or_told(id, "model", changed)?;
        }
        Ok(())
    }

    /// Lays the line of a sandbox from before a restart of ours, or that goes on after a pause, as far as it is not there.
    /// One whose policy has become `none` has connections refused again, rather than left unanswered. → whether nothing is
    /// missing that could be there; why is told in the log.
    pub(crate) async fn restore(
        &self,
        id: &SandboxId,
        environment: &Arc<dyn ExecutionEnvironment>,
        spec: &SandboxSpec,
    ) -> bool {
        if environment.inside().is_err() {
            return true;
        }
        let refused = spec.network.is_none() && self.0.unenforceable.is_none();
        if refused && let Err(error) = in_time(self.refuse_again(id, environment)).await {
            tracing::warn!(sandbox = %id, %error, "connections of a sandbox without a network are left unanswered");
        }
        let laid = self.change(id, environment, spec, spec).await.is_ok();
        laid && self.lacks(id, spec) == (false, false)
    }

    /// Refuses all connections of a sandbox whose network was taken away before a restart of ours. One that never
    /// had one stays without a line.
    async fn refuse_again(&self, id: &SandboxId, environment: &Arc<dyn ExecutionEnvironment>) -> Result<()> {
        if self.line(id).is_some_and(|line| line.egress().is_some()) {
            return Ok(());
        }
        // One that cannot be entered never had a line.
        let Ok(namespace) = environment.network_namespace().await else { return Ok(()) };
        let doors = self.0.namespaces.open_again(namespace).await;
        let Some(doors) = doors.map_err(|error| DomainError::internal("open a namespace", error))? else {
            return Ok(());
        };
        let none = Arc::new(SecretSet::none());
        let egress = self.0.egress.attach(id.clone(), Ruleset::none(), none, doors).map_err(asked_error)?;
        let line = Arc::clone(lock(&self.0.lines).entry(id.clone()).or_default());
        *lock(&line.egress) = Some(Arc::new(egress));
        Ok(())
    }

    /// Whether nobody tries yet to lay the line of this sandbox again and again; who asks does from now on.
    pub(crate) fn begin_again(&self, id: &SandboxId) -> bool {
        self.line(id).is_some_and(|line| !line.again.swap(true, Ordering::AcqRel))
    }

    /// Nobody tries any more.
    pub(crate) fn end_again(&self, id: &SandboxId) {
        if let Some(line) = self.line(id) {
            line.again.store(false, Ordering::Release);
        }
    }

    /// Which parts of its line a sandbox should have and has not: the network, the model.
    fn lacks(&self, id: &SandboxId, spec: &SandboxSpec) -> (bool, bool) {
        let line = self.line(id);
        let egress = line.as_ref().and_then(|line| line.egress());
        let model = line.as_ref().and_then(|line| line.model());
        (!spec.network.is_none() && egress.is_none(), spec.model.is_some() && model.is_none())
    }

    async fn change_egress(
        &self,
        id: &SandboxId,
        line: &Line,
        environment: &Arc<dyn ExecutionEnvironment>,
        before: &SandboxSpec,
        spec: &SandboxSpec,
    ) -> Result<()> {
        let laid = line.egress();
        if spec.network.is_none() && laid.is_none() {
            return Ok(());
        }
        let same = before.network == spec.network;
        let secrets = Arc::new(self.secret_set(id, before, spec).await?);
        if let Some(egress) = laid {
            let ruleset = if same { None } else { Some(self.ruleset(spec)?) };
            // Secrets first: what the new policy opens must not meet the old ones.
            egress.set_secrets(secrets);
            if let Some(ruleset) = ruleset {
                egress.set_policy(ruleset);
            }
            return Ok(());
        }
        let ruleset = match self.ruleset(spec) {
            // A list of rules that was removed since: what it said nobody knows.
            Err(error) if same => {
                tracing::error!(sandbox = %id, %error, "a sandbox reaches nothing any more; give it another network policy");
                Ruleset::none()
            }
            ruleset => ruleset?,
        };
        self.establish_trust(environment.inside()?).await?;
        let namespace = environment.network_namespace().await?;
        let doors = self.0.namespaces.open(namespace).await.map_err(|error| {
            DomainError::missing(
                spec.network.needs(),
                format!("the network policy cannot be enforced: {error}"),
            )
        })?;
        let egress = self.0.egress.attach(id.clone(), ruleset, secrets, doors).map_err(asked_error)?;
        *lock(&line.egress) = Some(Arc::new(egress));
        Ok(())
    }

    async fn secret_set(
        &self,
        id: &SandboxId,
        before: &SandboxSpec,
        spec: &SandboxSpec,
    ) -> Result<SecretSet> {
        if spec.secrets.is_empty() {
            return Ok(SecretSet::none());
        }
        let open = if before.secrets == spec.secrets { SecretSet::open_again } else { SecretSet::open };
        let (id, wanted, this) = (id.clone(), spec.secrets.clone(), self.clone());
        let read = move || open(id, &wanted, Arc::clone(&this.0.secrets), &this.0.placeholders);
        let opened = tokio::task::spawn_blocking(read).await;
        opened.map_err(|panic| DomainError::internal("read secrets", panic))?.map_err(asked_error)
    }

    async fn change_model(
        &self,
        id: &SandboxId,
        line: &Line,
        environment: &Arc<dyn ExecutionEnvironment>,
        spec: &SandboxSpec,
    ) -> Result<()> {
        let laid = line.model();
        match (&spec.model, laid) {
            (None, None) => {}
            (None, Some(model)) => {
                lock(&line.model).take();
                model.close().await;
            }
            (Some(access), Some(model)) => {
                model.set_budget(access.budget.clone()).map_err(gateway_error)?;
                model.set_labels(spec.labels.clone()).map_err(gateway_error)?;
            }
            (Some(access), None) => {
                let inside = environment.inside()?;
                let socket = ListenAddress::Unix { path: MODEL_SOCKET.to_owned(), mode: 0o666 };
                let unix = inside.listen(&socket).await?;
                let tcp = inside.listen(&ListenAddress::Tcp { port: MODEL_PORT }).await?;
                let access = Access {
                    token: self.model_token(id).into(),
                    labels: spec.labels.clone(),
                    budget: access.budget.clone(),
                };
                let doors = vec![Door::Unix(unix.into()), Door::Tcp(tcp.into())];
                let model = self.gateway()?.attach(id.clone(), access, doors).map_err(gateway_error)?;
                *lock(&line.model) = Some(Arc::new(model));
            }
        }
        Ok(())
    }

    /// Ends the line of a sandbox, where it has one.
    pub(crate) async fn disconnect(&self, id: &SandboxId) {
        let line = lock(&self.0.lines).remove(id);
        if let Some(line) = line {
            line.close().await;
        }
    }

    /// The newest decisions about a sandbox and its open connections; nothing where it has no line.
    pub(crate) fn decisions(&self, id: &SandboxId) -> (Vec<Arc<Decision>>, usize) {
        let egress = self.line(id).and_then(|line| line.egress());
        egress.map_or_else(Default::default, |egress| (egress.recent(), egress.connections().len()))
    }

    /// Decisions about a sandbox as they are made; nothing where it has no line.
    pub(crate) fn watch(&self, id: &SandboxId) -> Option<Watch> {
        let egress = self.line(id)?.egress()?;
        // First listening, then looking: what is made in between may come twice, and is never missed.
        let to_come = egress.watch();
        Some((egress.recent(), to_come))
    }
}

#[cfg(test)]
mod tests {
    use super::Due;

    #[test]
    fn what_did_not_change_keeps_nobody_from_anything() {
        let (missing, differs, waits) = (true, true, true);
        assert_eq!(Due::of(false, false, false), Due::Nothing);
        assert_eq!(Due::of(false, differs, false), Due::Change);
        // After a restart of ours.
        assert_eq!(Due::of(missing, false, false), Due::Again);
        assert_eq!(Due::of(missing, differs, false), Due::Change);
        // And with the sandbox paused.
        assert_eq!(Due::of(missing, false, waits), Due::Nothing);
        assert_eq!(Due::of(missing, differs, waits), Due::Nothing);
    }
}
