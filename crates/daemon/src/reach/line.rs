//! The line of one sandbox: sockets inside it whose other end is ours, and who serves them.

use super::equip::{MODEL_PORT, MODEL_SOCKET};
use super::{Reach, asked_error, gateway_error};
use crate::error::Result;
use crate::lock::lock;
use hostel_egress::secret::SecretSet;
use hostel_egress::{Attachment as Egress, Decision};
use hostel_gateway::{Access, Attachment as Model, Door};
use hostel_sandbox::{Error as DomainError, ExecutionEnvironment, ListenAddress, SandboxId, SandboxSpec};
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
    /// Where that cannot be done.
    pub(crate) async fn change(
        &self,
        id: &SandboxId,
        environment: &Arc<dyn ExecutionEnvironment>,
        before: &SandboxSpec,
        spec: &SandboxSpec,
    ) -> Result<()> {
        let (no_egress, no_model) = self.lacks(id, spec);
        let enters = (no_egress || no_model) && environment.inside().is_ok();
        let egress = if no_egress {
            enters || before.network.is_none()
        } else {
            before.network != spec.network || before.secrets != spec.secrets
        };
        let model = if no_model {
            enters || before.model.is_none()
        } else {
            before.model != spec.model || (spec.model.is_some() && before.labels != spec.labels)
        };
        if !egress && !model {
            return Ok(());
        }
        let line = Arc::clone(lock(&self.0.lines).entry(id.clone()).or_default());
        let laid = async {
            if egress {
                self.change_egress(id, &line, environment, spec).await?;
            }
            if model {
                self.change_model(id, &line, environment, spec).await?;
            }
            Ok(())
        };
        let late = || DomainError::DeadlineExceeded { what: "connecting the sandbox".to_owned() };
        tokio::time::timeout(LAYING, laid).await.map_err(|_| late())?
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
        spec: &SandboxSpec,
    ) -> Result<()> {
        let laid = line.egress();
        if spec.network.is_none() && laid.is_none() {
            return Ok(());
        }
        let ruleset = self.ruleset(spec)?;
        let secrets = Arc::new(self.secret_set(id, spec).await?);
        if let Some(egress) = laid {
            // Secrets first: what the new policy opens must not meet the old ones.
            egress.set_secrets(secrets);
            egress.set_policy(ruleset);
            return Ok(());
        }
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

    async fn secret_set(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<SecretSet> {
        if spec.secrets.is_empty() {
            return Ok(SecretSet::none());
        }
        let (id, wanted, this) = (id.clone(), spec.secrets.clone(), self.clone());
        let read = move || SecretSet::open(id, &wanted, Arc::clone(&this.0.secrets), &this.0.placeholders);
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
