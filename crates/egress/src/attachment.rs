//! Sandboxes whose traffic is decided here.

use crate::address::Reach;
use crate::connections::Connection;
use crate::decision::{Decision, Kind, Protocol, Reason, Recorder, Refused};
use crate::dns;
use crate::enforcer::{About, Enforcer, Shared};
use crate::error::{Error, Result};
use crate::http::Opener;
use crate::namespace::Doors;
use crate::resolve::Asker;
use crate::rules::Ruleset;
use crate::secret::SecretSet;
use crate::settings::Settings;
use crate::{proxy, transparent};
use hostel_sandbox::SandboxId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio_util::sync::DropGuard;

/// Decides what leaves the sandboxes of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Shared>);

impl Egress {
    /// Makes it. Inside a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Resolver`] where the host's name servers cannot be read.
    pub fn new(settings: Settings, recorder: Arc<dyn Recorder>, opener: Arc<Opener>) -> Result<Self> {
        let asker = Asker::new(&settings.names, settings.timeouts.resolve)?;
        let reach = Reach::new(&settings.reachable, &settings.forbidden);
        Ok(Self(Arc::new(Shared::new(settings, asker, reach, recorder, opener))))
    }

    /// Serves the doors of a sandbox until the attachment is closed or dropped. Inside a Tokio runtime, where
    /// [`Settings::runtimes`] names none.
    ///
    /// # Errors
    /// [`Error::Io`] where a socket cannot be used; then nothing is served.
    pub fn attach(
        &self,
        sandbox: SandboxId,
        rules: Ruleset,
        secrets: Arc<SecretSet>,
        doors: Doors,
    ) -> Result<Attachment> {
        // Sockets and tasks belong to the runtime in which they are made.
        let _inside = self.0.runtime().map(Handle::enter);
        let wrong = |error| Error::io("cannot serve a door of a sandbox", error);
        let transparent = doors.transparent.map(TcpListener::from_std).transpose().map_err(wrong)?;
        let proxy = doors.proxy.map(TcpListener::from_std).transpose().map_err(wrong)?;
        let udp = doors.dns_udp.map(UdpSocket::from_std).transpose().map_err(wrong)?;
        let tcp = doors.dns_tcp.map(TcpListener::from_std).transpose().map_err(wrong)?;
        let enforcer = Arc::new(Enforcer::new(Arc::clone(&self.0), sandbox, rules, secrets));
        if let Some(listener) = transparent {
            enforcer.tasks.spawn(accept(Arc::clone(&enforcer), listener, Door::Transparent));
        }
        if let Some(listener) = proxy {
            enforcer.tasks.spawn(accept(Arc::clone(&enforcer), listener, Door::Proxy));
        }
        if let Some(socket) = udp {
            enforcer.tasks.spawn(dns::serve_udp(Arc::clone(&enforcer), socket));
        }
        if let Some(listener) = tcp {
            enforcer.tasks.spawn(accept(Arc::clone(&enforcer), listener, Door::Dns));
        }
        let guard = enforcer.stop.clone().drop_guard();
        Ok(Attachment { enforcer, _guard: guard })
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// One sandbox that is served. Dropping it cuts everything.
pub struct Attachment {
    enforcer: Arc<Enforcer>,
    _guard: DropGuard,
}

impl Attachment {
    /// Puts another policy in force, and cuts at once what it does not allow.
    pub fn set_policy(&self, rules: Ruleset) {
        self.enforcer.set_rules(rules);
    }

    /// Puts other secrets in force; connections to hosts that get others than before are cut.
    pub fn set_secrets(&self, secrets: Arc<SecretSet>) {
        self.enforcer.set_secrets(secrets);
    }

    /// The latest decisions, at most 1000, the oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Arc<Decision>> {
        self.enforcer.latest()
    }

    /// Decisions from now on. Who is more than 1024 behind misses the oldest, and is told so.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<Decision>> {
        self.enforcer.watchers.subscribe()
    }

    /// The open connections, the oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.enforcer.connections.shown(&self.enforcer.sandbox)
    }

    /// Cuts everything and waits for it, for at most [`crate::Timeouts::close`].
    pub async fn close(&self) {
        self.enforcer.stop.cancel();
        self.enforcer.tasks.close();
        let ended =
            tokio::time::timeout(self.enforcer.shared.settings.timeouts.close, self.enforcer.tasks.wait());
        if ended.await.is_err() {
            let left = self.enforcer.tasks.len();
            tracing::warn!(sandbox = %self.enforcer.sandbox, left, "connections did not end in time");
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("sandbox", &self.enforcer.sandbox).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
enum Door {
    Transparent,
    Proxy,
    Dns,
}

/// How long to wait when the host has no descriptors left.
const BREATH: Duration = Duration::from_millis(50);

async fn accept(enforcer: Arc<Enforcer>, listener: TcpListener, door: Door) {
    let stop = enforcer.stop.clone();
    let all = async {
        loop {
            if let Some(wait) = enforcer.wait_for_rate() {
                tokio::time::sleep(wait).await;
                continue;
            }
            match listener.accept().await {
                Ok((client, _)) => take(&enforcer, client, door).await,
                Err(error) => {
                    tracing::debug!(sandbox = %enforcer.sandbox, %error, "a connection cannot be accepted");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = all => {}
    }
}

async fn take(enforcer: &Arc<Enforcer>, client: TcpStream, door: Door) {
    let Ok(slot) = Arc::clone(&enforcer.slots).try_acquire_owned() else {
        // Reset, so that nobody waits for an answer.
        let _ = client.set_zero_linger();
        drop(client);
        if enforcer.may_complain() {
            let most = enforcer.shared.settings.limits.connections;
            let refused = Refused::new(Reason::Limit, format!("{most} connections are open"));
            enforcer.refuse(Kind::Connect, Protocol::Tcp, About::default(), &refused).await;
        }
        return;
    };
    let _ = client.set_nodelay(true);
    enforcer.bound_buffers(&client);
    let enforcer = Arc::clone(enforcer);
    let tasks = enforcer.tasks.clone();
    tasks.spawn(async move {
        let stop = enforcer.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = one(enforcer, client, door) => {}
        }
        drop(slot);
    });
}

async fn one(enforcer: Arc<Enforcer>, client: TcpStream, door: Door) {
    let undecided = match enforcer.undecided().await {
        Ok(undecided) => undecided,
        Err(refused) => {
            if enforcer.may_complain() {
                enforcer.refuse(Kind::Connect, Protocol::Tcp, About::default(), &refused).await;
            }
            return;
        }
    };
    match door {
        Door::Transparent => Box::pin(transparent::serve(enforcer, client, undecided)).await,
        Door::Proxy => Box::pin(proxy::serve(enforcer, client, undecided)).await,
        Door::Dns => dns::serve_tcp(enforcer, client, undecided).await,
    }
}
