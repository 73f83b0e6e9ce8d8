//! Decides for one sandbox, and tells what it decided.

use crate::address::Reach;
use crate::connections::{Basis, Connections, Listed, Live};
use crate::decision::{Decision, Kind, Protocol, Reason, Recorder, Refused};
use crate::http::Opener;
use crate::pins::Pins;
use crate::rate::{QuestionLimits, Questions, Rate, Recorded, Refusals};
use crate::resolve::Asker;
use crate::rules::{Ruleset, Seen, Verdict};
use crate::secret::SecretSet;
use crate::settings::Settings;
use hostel_sandbox::SandboxId;
use hostel_sandbox::network::NetworkMode;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many decisions are remembered.
const LATEST: usize = 1000;
/// How many decisions a watcher may be behind.
const BEHIND: usize = 1024;

/// What all sandboxes of a daemon share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) asker: Asker,
    pub(crate) reach: Reach,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) opener: Arc<Opener>,
    /// How many sandboxes were attached.
    attached: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        asker: Asker,
        reach: Reach,
        recorder: Arc<dyn Recorder>,
        opener: Arc<Opener>,
    ) -> Self {
        Self { settings, asker, reach, recorder, opener, attached: AtomicUsize::new(0) }
    }

    /// Where the next sandbox is served; nothing for where it is attached.
    pub(crate) fn runtime(&self) -> Option<&Handle> {
        let turn = self.attached.fetch_add(1, Ordering::Relaxed);
        self.settings.runtimes.get(turn.checked_rem(self.settings.runtimes.len())?)
    }
}

/// One sandbox's policy, its state, and its decisions.
pub(crate) struct Enforcer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) sandbox: SandboxId,
    rules: RwLock<Arc<Ruleset>>,
    secrets: RwLock<Arc<SecretSet>>,
    pins: Mutex<Pins>,
    pub(crate) connections: Arc<Connections>,
    latest: Mutex<VecDeque<Arc<Decision>>>,
    pub(crate) watchers: broadcast::Sender<Arc<Decision>>,
    pub(crate) slots: Arc<Semaphore>,
    /// Connections to hosts for requests.
    pub(crate) upstream: Arc<Semaphore>,
    undecided: Arc<Semaphore>,
    pub(crate) questions: Arc<Semaphore>,
    rate: Mutex<Rate>,
    asked: Mutex<Questions>,
    complained: Mutex<Option<Instant>>,
    refusals: Mutex<Refusals>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// What a decision is about, beside its outcome.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) host: Option<String>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) secret: Option<String>,
}

impl Enforcer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        sandbox: SandboxId,
        rules: Ruleset,
        secrets: Arc<SecretSet>,
    ) -> Self {
        let limits = shared.settings.limits;
        Self {
            sandbox,
            rules: RwLock::new(Arc::new(rules)),
            secrets: RwLock::new(secrets),
            pins: Mutex::new(Pins::default()),
            connections: Arc::new(Connections::default()),
            latest: Mutex::new(VecDeque::new()),
            watchers: broadcast::Sender::new(BEHIND),
            slots: Arc::new(Semaphore::new(limits.connections)),
            upstream: Arc::new(Semaphore::new(2 * limits.connections)),
            undecided: Arc::new(Semaphore::new(limits.undecided)),
            questions: Arc::new(Semaphore::new(limits.questions)),
            rate: Mutex::new(Rate::new(limits.connections_per_second)),
            asked: Mutex::new(Questions::new()),
            complained: Mutex::new(None),
            refusals: Mutex::new(Refusals::new(limits.refusals_per_second)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shared,
        }
    }

    pub(crate) fn rules(&self) -> Arc<Ruleset> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn secrets(&self) -> Arc<SecretSet> {
        Arc::clone(&self.secrets.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether requests to a host are seen although they come in TLS.
    pub(crate) fn opens(&self, name: &str, port: u16) -> bool {
        self.rules().opens_tls(name, port) || self.secrets().binds(name)
    }

    /// Takes a new policy and cuts what is no longer allowed, or no longer seen as it must be.
    pub(crate) fn set_rules(&self, rules: Ruleset) {
        let new = Arc::new(rules);
        let old = {
            let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::clone(&new))
        };
        for live in self.connections.all() {
            let requests_changed = live.basis.name().is_some_and(|name| {
                old.about_requests(name, live.port) != new.about_requests(name, live.port)
            });
            if requests_changed || self.stands(&live).is_err() {
                live.cut.cancel();
            }
        }
    }

    /// Takes new secrets and cuts connections to the hosts for which they are others than before.
    pub(crate) fn set_secrets(&self, secrets: Arc<SecretSet>) {
        let old = {
            let mut current = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::clone(&secrets))
        };
        for live in self.connections.all() {
            if live.basis.name().is_some_and(|name| !old.gives_the_same(&secrets, name)) {
                live.cut.cancel();
            }
        }
    }

    /// Whether a connection would still be allowed as it is.
    pub(crate) fn stands(&self, live: &Live) -> Result<Verdict, Refused> {
        let rules = self.rules();
        for address in live.addresses() {
            self.shared.reach.check(address, Some(live.port), &rules)?;
        }
        match &live.basis {
            Basis::Name { name, seen } => {
                if live.protocol == Protocol::Tls && self.opens(name, live.port) {
                    return Err(Refused::new(
                        Reason::PolicyChanged,
                        format!("TLS to {name} is to be opened"),
                    ));
                }
                rules.connect(name, live.port, *seen).or_refuse(&format!("{name} port {}", live.port))
            }
            Basis::Address { address, name } => {
                if let Some(name) = name {
                    self.not_denied(name, live.port, live.protocol)?;
                } else if live.protocol != Protocol::Http {
                    // As it was decided: by the names that our answers gave for it.
                    self.none_denied(&self.pinned(*address), live.port, live.protocol)?;
                }
                rules.address(*address, live.port).or_refuse(&format!("{address} port {}", live.port))
            }
        }
    }

    /// Where addresses need no name, what is denied by a name that was looked up stays so at an address that is allowed.
    pub(crate) fn none_denied(
        &self,
        pinned: &[String],
        port: u16,
        protocol: Protocol,
    ) -> Result<(), Refused> {
        if self.rules().mode() != NetworkMode::Open {
            return Ok(());
        }
        pinned.iter().try_for_each(|name| self.not_denied(name, port, protocol))
    }

    /// A name that an address was told with must not be denied, even where the address is allowed.
    pub(crate) fn not_denied(&self, name: &str, port: u16, protocol: Protocol) -> Result<(), Refused> {
        let seen = if protocol == Protocol::Http { Seen::Requests } else { Seen::Opaque };
        let verdict = self.rules().connect(name, port, seen);
        if verdict.reason == Reason::DeniedByRule {
            verdict.or_refuse(&format!("{name} port {port}"))?;
        }
        Ok(())
    }

    /// Lists a connection, and decides it once more: a policy that changed meanwhile did not see it.
    pub(crate) fn list(
        &self,
        protocol: Protocol,
        basis: Basis,
        port: u16,
        rule: Option<String>,
    ) -> Result<Listed, Refused> {
        let listed = self.connections.add(protocol, basis, port, rule, self.stop.child_token());
        self.stands(&listed.live)?;
        Ok(listed)
    }

    pub(crate) fn pin(&self, name: &str, address: IpAddr) {
        self.lock_pins().add(name, address, Instant::now());
    }

    pub(crate) fn pinned(&self, address: IpAddr) -> Vec<String> {
        self.lock_pins().names(address, Instant::now())
    }

    fn lock_pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the next new connection has to wait.
    pub(crate) fn wait_for_rate(&self) -> Option<Duration> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }

    /// Counts a question for a name; false where it is one too many.
    pub(crate) fn may_ask(&self, name: &str) -> bool {
        let limits = self.shared.settings.limits;
        let limits = QuestionLimits {
            all: limits.questions_per_minute,
            names: limits.names_per_minute,
            below_one: limits.names_below_one_per_minute,
        };
        self.asked().take(name, limits, Instant::now())
    }

    /// Whether a name was asked for, and that recorded, in the running minute.
    pub(crate) fn was_looked_up(&self, name: &str) -> bool {
        self.asked().is_recorded(name, Instant::now())
    }

    pub(crate) fn asked(&self) -> MutexGuard<'_, Questions> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place among the connections that have not yet said what they want.
    ///
    /// # Errors
    /// Where there is none in time.
    pub(crate) async fn undecided(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let permit = Arc::clone(&self.undecided).acquire_owned();
        let permit = tokio::time::timeout(self.shared.settings.timeouts.sniff, permit).await;
        permit
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Refused::new(Reason::Limit, "too many connections have not said what they want"))
    }

    /// Whether something that can happen very often is to be told again: once a second.
    pub(crate) fn may_complain(&self) -> bool {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let may = last.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(1));
        if may {
            *last = Some(now);
        }
        may
    }

    pub(crate) fn latest(&self) -> Vec<Arc<Decision>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Records that something is allowed, before it happens.
    pub(crate) async fn allow(
        &self,
        kind: Kind,
        protocol: Protocol,
        about: About,
        verdict: Verdict,
    ) -> Result<(), Refused> {
        let mut decision = self.decision(kind, protocol, about, true, verdict.rule, verdict.reason);
        if let Err(error) = self.shared.recorder.record(&decision).await {
            tracing::error!(sandbox = %self.sandbox, %error, "a decision cannot be recorded; it is refused");
            (decision.allowed, decision.reason) = (false, Reason::AuditFailed.as_str().to_owned());
            self.tell(decision);
            return Err(Refused::new(Reason::AuditFailed, "the decision cannot be recorded"));
        }
        self.tell(decision);
        Ok(())
    }

    /// Records that something is refused; beyond some in a second, only how often.
    pub(crate) async fn refuse(
        self: &Arc<Self>,
        kind: Kind,
        protocol: Protocol,
        mut about: About,
        refused: &Refused,
    ) {
        if refused.reason == Reason::AuditFailed {
            return;
        }
        about.address = about.address.or(refused.address);
        let decision = self.decision(kind, protocol, about, false, refused.rule.clone(), refused.reason);
        let recorded = self.refusals().add(Instant::now());
        match recorded {
            Recorded::Each => self.record_refusal(&decision).await,
            Recorded::AsNumber { first } => {
                self.shared.recorder.pass_over(&decision);
                if first {
                    self.tasks.spawn(Arc::clone(self).record_number());
                }
            }
        }
        self.tell(decision);
    }

    async fn record_refusal(&self, decision: &Decision) {
        if let Err(error) = self.shared.recorder.record(decision).await {
            tracing::error!(sandbox = %self.sandbox, %error, "a refusal cannot be recorded");
        }
    }

    /// Records, a second from now or at the end, how many refusals were not recorded each.
    async fn record_number(self: Arc<Self>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let count = Some(self.refusals().take());
        let (kind, protocol) = (Kind::Connect, Protocol::Tcp);
        let decision = self.decision(kind, protocol, About::default(), false, None, Reason::Limit);
        self.record_refusal(&Decision { count, ..decision }).await;
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decision(
        &self,
        kind: Kind,
        protocol: Protocol,
        about: About,
        allowed: bool,
        rule: Option<String>,
        reason: Reason,
    ) -> Decision {
        Decision {
            time: jiff::Timestamp::now(),
            sandbox: self.sandbox.clone(),
            kind,
            allowed,
            host: about.host,
            address: about.address,
            port: about.port,
            protocol,
            method: about.method,
            path: about.path,
            secret: about.secret,
            rule,
            reason: reason.as_str().to_owned(),
            count: None,
        }
    }

    fn tell(&self, decision: Decision) {
        let decision = Arc::new(decision);
        {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            if latest.len() >= LATEST {
                latest.pop_front();
            }
            latest.push_back(Arc::clone(&decision));
        }
        // Nobody may be watching.
        let _ = self.watchers.send(decision);
    }
}
