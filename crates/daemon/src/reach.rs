//! What sandboxes reach beyond themselves: the network by policy, secrets that they never hold, models through the
//! gateway.
//!
//! A backend makes sandboxes with nothing but loopback, whatever their policy. Here they get a [`Line`]: sockets inside
//! them whose other end is ours. A sandbox whose specification asks for nothing has no line, and costs nothing.

mod config;
mod equip;
mod line;
mod threads;
mod trust;

pub use config::ReachConfig;
pub(crate) use line::Watch;

use crate::error::{Error, Result};
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::state_directory;
use async_trait::async_trait;
use hostel_egress::audit::AuditLog;
use hostel_egress::authority::Authority;
use hostel_egress::namespace::Namespaces;
use hostel_egress::secret::{PlaceholderKey, SecretSource, Secrets, Vault};
use hostel_egress::{Decision, Egress, Opener, OpenerSettings, Presets, Recorder, Ruleset};
use hostel_gateway::Gateway;
use hostel_sandbox::{Error as DomainError, NetworkMode, SandboxId, SandboxSpec};
use line::Line;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use threads::Threads;

/// What sandboxes reach. Clones share it.
#[derive(Clone)]
pub(crate) struct Reach(Arc<Inner>);

struct Inner {
    namespaces: Namespaces,
    /// Why network policies cannot be enforced on this host, where they cannot.
    unenforceable: Option<String>,
    egress: Egress,
    presets: Presets,
    authority: Arc<Authority>,
    secrets: Arc<Secrets>,
    placeholders: PlaceholderKey,
    /// Nothing where no upstream is configured.
    gateway: Option<Gateway>,
    audit: PathBuf,
    lines: Mutex<HashMap<SandboxId, Arc<Line>>>,
    /// Where connections and requests of sandboxes are served.
    threads: Threads,
}

impl Reach {
    /// Reads what is configured and opens what is kept.
    ///
    /// # Errors
    /// [`Error::Config`] for files that cannot be read or make no sense; [`Error::Store`] for what is kept.
    pub(crate) async fn open(config: &ReachConfig, state_directory: &Path, metrics: Metrics) -> Result<Self> {
        let presets = Presets::read(&config.preset_directories).map_err(config_error)?;
        let directory = state_directory.join("egress");
        state_directory::make(&directory, 0o700)?;
        let authority = Arc::new(Authority::load_or_create(&directory).map_err(kept_error)?);
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let vault = Vault::open(&directory, credentials.as_deref()).map_err(kept_error)?;
        let secrets = Secrets::new(Some(vault), SecretSource::new(config.secret_directories.clone()));
        let audit = directory.join("audit.jsonl");
        let log = AuditLog::open(config.audit(&audit)).map_err(kept_error)?;
        let threads = Threads::start()?;
        let opener = Opener::new(Arc::clone(&authority), config.roots()?, OpenerSettings::default())
            .map_err(config_error)?;
        let counted = Arc::new(Counted { log, metrics });
        let egress = Egress::new(config.settings(threads.egress()), counted, Arc::new(opener))
            .map_err(config_error)?;
        let gateway = match config.gateway(state_directory)? {
            Some(gateway) => Some(threads.on_gateway(Gateway::open(gateway)).await?.map_err(config_error)?),
            None => None,
        };
        let namespaces = Namespaces::start().map_err(config_error)?;
        let unenforceable = namespaces.probe().await.err();
        if let Some(why) = &unenforceable {
            tracing::info!(why, "sandboxes can have no network here but loopback");
        }
        Ok(Self(Arc::new(Inner {
            namespaces,
            unenforceable,
            egress,
            presets,
            placeholders: PlaceholderKey::load_or_create(&directory).map_err(kept_error)?,
            authority,
            secrets: Arc::new(secrets),
            gateway,
            audit,
            lines: Mutex::default(),
            threads,
        })))
    }

    /// Refuses what this node cannot give: lists of rules, secrets and models that it does not know.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument`, `WrongState` (`NO_MODEL_UPSTREAM`).
    pub(crate) fn check(&self, spec: &SandboxSpec) -> Result<()> {
        self.check_change(&SandboxSpec::default(), spec)
    }

    /// The same for a sandbox that is there. What does not change is not asked about: a list of rules that was removed
    /// since must not keep it from getting other labels.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn check_change(&self, before: &SandboxSpec, spec: &SandboxSpec) -> Result<()> {
        if !spec.network.is_none() && before.network != spec.network {
            self.ruleset(spec)?;
            if let Some(why) = &self.0.unenforceable {
                return Err(DomainError::missing(spec.network.needs(), why.clone()).into());
            }
        }
        if !spec.secrets.is_empty() && spec.network.mode == NetworkMode::None {
            let problem = "a secret goes to hosts that the network policy must allow, and it allows none";
            return Err(DomainError::invalid("secrets", problem).into());
        }
        if spec.model.is_some() && before.model != spec.model {
            self.gateway()?;
        }
        Ok(())
    }

    /// The gateway.
    ///
    /// # Errors
    /// `WrongState` (`NO_MODEL_UPSTREAM`) where no upstream is configured.
    pub(crate) fn gateway(&self) -> Result<&Gateway> {
        self.0.gateway.as_ref().ok_or_else(|| {
            let message = "this node has no upstream for models: give the daemon ANTHROPIC_API_KEY, or upstreams \
                           in gateway.toml";
            DomainError::wrong_state("NO_MODEL_UPSTREAM", message).into()
        })
    }

    /// Forgets what a sandbox spent on models that is gone: another may get its id.
    pub(crate) async fn forget(&self, id: &SandboxId) {
        if let Some(gateway) = &self.0.gateway {
            gateway.forget(id).await;
        }
    }

    /// The same of all sandboxes but these.
    pub(crate) async fn forget_all_but(&self, known: Vec<SandboxId>) {
        if let Some(gateway) = &self.0.gateway
            && let Err(error) = gateway.forget_all_but(known).await
        {
            tracing::warn!(%error, "what sandboxes that are gone spent on models is not forgotten");
        }
    }

    /// Why network policies cannot be enforced on this host; nothing where they can.
    pub(crate) fn unenforceable(&self) -> Option<&str> {
        self.0.unenforceable.as_deref()
    }

    /// Values of secrets.
    pub(crate) fn secrets(&self) -> &Arc<Secrets> {
        &self.0.secrets
    }

    /// Where the audit log is.
    pub(crate) fn audit(&self) -> &Path {
        &self.0.audit
    }

    fn ruleset(&self, spec: &SandboxSpec) -> Result<Ruleset> {
        Ruleset::new(&spec.network, &self.0.presets).map_err(asked_error)
    }

    fn line(&self, id: &SandboxId) -> Option<Arc<Line>> {
        lock(&self.0.lines).get(id).cloned()
    }

    /// Ends every line. Sandboxes reach nothing until the next daemon takes them up.
    pub(crate) async fn shutdown(&self) {
        let lines: Vec<_> = lock(&self.0.lines).drain().collect();
        futures::future::join_all(lines.iter().map(|(_, line)| line.close())).await;
        if let Some(gateway) = &self.0.gateway {
            gateway.shutdown().await;
        }
        self.0.threads.end().await;
    }
}

/// The audit log, and the numbers.
struct Counted {
    log: AuditLog,
    metrics: Metrics,
}

#[async_trait]
impl Recorder for Counted {
    async fn record(&self, decision: &Decision) -> hostel_egress::Result<()> {
        // What is recorded as a number was counted when it was passed over.
        if decision.count.is_none() {
            self.metrics.decided(decision);
        }
        self.log.record(decision).await
    }

    fn pass_over(&self, decision: &Decision) {
        self.metrics.decided(decision);
    }
}

fn config_error(error: impl std::fmt::Display) -> Error {
    Error::Config(error.to_string())
}

fn kept_error(error: impl std::fmt::Display) -> Error {
    Error::store("open", error)
}

/// What the gateway refuses.
pub(crate) fn gateway_error(error: hostel_gateway::Error) -> Error {
    use hostel_gateway::Error as Gateway;
    match error {
        Gateway::Domain(error) => error.into(),
        Gateway::BudgetNotFound { name } => DomainError::not_found("budget", name).into(),
        Gateway::BudgetExists { name } => DomainError::AlreadyExists { kind: "budget", id: name }.into(),
        other => DomainError::internal("model gateway", other).into(),
    }
}

/// What a caller asked for and cannot have.
pub(crate) fn asked_error(error: hostel_egress::Error) -> Error {
    use hostel_egress::Error as Egress;
    match error {
        Egress::Policy(error) => error.into(),
        Egress::UnknownPreset { name, .. } => DomainError::not_found("network preset", name).into(),
        Egress::SecretNotFound { name, .. } => DomainError::not_found("secret", name).into(),
        Egress::SecretInvalid { name, problem } => {
            DomainError::invalid(format!("secrets.{name}"), problem).into()
        }
        other => DomainError::internal("egress", other).into(),
    }
}
