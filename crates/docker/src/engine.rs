//! The connection to the engine: made when it is needed, with a deadline on every call.

use crate::abilities::Facts;
use crate::container::bind;
use crate::{tcp, tls};
use bollard::errors::Error as Cause;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use hostel_sandbox::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The oldest interface with everything that is used here (Docker 20.10): namespaces for cgroups, statistics at
/// once.
const OLDEST: (usize, usize) = (1, 41);
/// To answer a question.
pub(crate) const QUESTION: Duration = Duration::from_secs(10);
/// How long nobody waits for an engine again that did not even say what it speaks.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// After how long without an answer an engine counts as one that hangs.
const SILENCE: Duration = Duration::from_secs(3);
/// To make, start, stop or remove a container: a busy disk takes its time.
pub(crate) const WORK: Duration = Duration::from_secs(60);
/// To move files: images, archives.
pub(crate) const TRANSFER: Duration = Duration::from_secs(900);
/// What the client itself allows for the head of an answer; ours above come first.
pub(crate) const CLIENT_DEADLINE: u64 = 1000;
/// An image that there is nowhere.
const NO_IMAGE: &str = "hostel.invalid/there-is-none:none";
/// Most of what an engine says that is passed on.
const MOST_SAID: usize = 600;
/// What [`Engine::place`] does, for people.
const PLACING: &str = "ask what the engine sees of this host";

/// Why a call gave nothing.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The engine's own answer.
    Answer { status: u16, message: String },
    /// It cannot be reached, or hung up.
    Unreachable(String),
    /// It did not answer in time.
    Late(Duration),
    /// It answered what nobody understands.
    Broken(String),
}

impl Fault {
    /// Whether the engine says that there is no such thing.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Answer { status: 404, .. })
    }

    /// Whether the engine says that something is in the way: a name taken, a thing in use, a state.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Answer { status: 409, .. })
    }

    /// Whether the engine says that a container is not paused.
    pub(crate) fn is_not_paused(&self) -> bool {
        matches!(self, Self::Answer { message, .. } if message.contains("is not paused"))
    }

    /// Whether the engine says that its disk is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Answer { message, .. }
            if message.contains("no space left") || message.contains("disk quota exceeded"))
    }

    /// Whether the engine says that more memory is in use than a limit would allow.
    pub(crate) fn is_memory_in_use(&self) -> bool {
        matches!(self, Self::Answer { message, .. } if message.contains("unable to set memory limit"))
    }

    /// Whether the engine says that it does not see a file of this host.
    pub(crate) fn is_unseen_source(&self) -> bool {
        matches!(self, Self::Answer { message, .. } if message.contains("bind source path does not exist"))
    }

    /// Of a container that cannot be, of an image that there is nowhere: whether what it binds is not seen, either.
    fn tells_of_a_far_mark(self) -> Result<bool> {
        if self.is_unseen_source() {
            Ok(true)
        } else if self.is_missing() {
            Ok(false)
        } else {
            Err(self.during(PLACING))
        }
    }

    /// Whether it is no answer of the engine's but of what stands before one that is away or starts: 502, 503, 504.
    fn is_from_a_proxy(&self) -> bool {
        matches!(self, Self::Answer { status: 502..=504, .. })
    }

    /// For a caller who only asked something that every engine answers: one that does not is of no use now, whatever
    /// it says instead. A proxy has no engine, a plugin does not decide, the engine itself is in trouble.
    pub(crate) fn while_asking(self, operation: impl Into<String>) -> Error {
        match self {
            Self::Answer { status, message } => Error::Unavailable {
                what: "engine",
                detail: format!("{}: {status}, {}", operation.into(), message.trim()),
            },
            fault => fault.during(operation),
        }
    }

    /// For a caller; `operation` says what was tried.
    pub(crate) fn during(self, operation: impl Into<String>) -> Error {
        let operation = operation.into();
        let is_full = self.is_full();
        if self.is_from_a_proxy() {
            return self.while_asking(operation);
        }
        match self {
            Self::Answer { message, .. } if is_full => {
                Error::LimitReached { what: "disk", detail: format!("{operation}: {message}") }
            }
            Self::Answer { message, .. } => Error::Internal { operation, detail: message },
            Self::Unreachable(detail) => {
                Error::Unavailable { what: "engine", detail: format!("{operation}: {detail}") }
            }
            Self::Late(deadline) => Error::Unavailable {
                what: "engine",
                detail: format!("{operation}: no answer within {} s", deadline.as_secs()),
            },
            Self::Broken(detail) => {
                Error::Protocol { peer: "engine", detail: format!("{operation}: {detail}") }
            }
        }
    }
}

impl From<Cause> for Fault {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::DockerResponseServerError { status_code, message } => {
                Self::Answer { status: status_code, message: message.chars().take(MOST_SAID).collect() }
            }
            Cause::DockerStreamError { error } => {
                Self::Answer { status: 500, message: error.chars().take(MOST_SAID).collect() }
            }
            Cause::RequestTimeoutError => Self::Late(Duration::from_secs(CLIENT_DEADLINE)),
            Cause::JsonDataError { .. } | Cause::JsonSerdeError { .. } | Cause::StrParseError { .. } => {
                Self::Broken(cause.to_string())
            }
            other => Self::Unreachable(causes(&other)),
        }
    }
}

/// An error with everything below it: the topmost often says nothing.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        below = cause.source();
    }
    text
}

/// How the engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Unix(String),
    Tcp(String),
    /// With TLS, by the certificates in a directory.
    Tls(String, PathBuf),
}

/// Ports of engines, as the `docker` command has them.
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

impl Address {
    fn read(host: &str, certificates: Option<PathBuf>) -> Result<Self> {
        if let Some(path) = host.strip_prefix("unix://") {
            return Ok(Self::Unix(path.to_owned()));
        }
        if host.starts_with('/') {
            return Ok(Self::Unix(host.to_owned()));
        }
        let invalid = |problem: String| Err(Error::invalid("docker_host", problem));
        let tcp = ["tcp://", "http://", "https://"].into_iter().find_map(|scheme| host.strip_prefix(scheme));
        let Some(tcp) = tcp.map(|rest| rest.trim_end_matches('/')).filter(|rest| !rest.is_empty()) else {
            return invalid(format!("{host:?} is neither unix:///PATH nor tcp://HOST:PORT"));
        };
        match certificates {
            Some(directory) => Ok(Self::Tls(with_port(tcp, TLS_PORT), directory)),
            None if host.starts_with("https://") => {
                invalid(format!("{host:?} wants TLS: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"))
            }
            None => Ok(Self::Tcp(with_port(tcp, PORT))),
        }
    }
}

/// The host with its port, or this one.
fn with_port(host: &str, port: u16) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    // An IPv6 address has colons of its own, and brackets.
    if has_port && !(host.contains('[') && host.ends_with(']')) {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

/// The engine.
pub(crate) struct Engine {
    address: Address,
    client: Mutex<Option<Docker>>,
    /// When it was last too slow to say what it speaks.
    hung: Mutex<Option<Instant>>,
    /// Of the last connection over which it was asked: which that was, and what it said.
    facts: Mutex<Option<(u64, Arc<Facts>)>>,
    /// Which connection this is. An engine that comes back may have been given other settings.
    connection: AtomicU64,
    remote: OnceLock<bool>,
}

impl Engine {
    /// An engine that nobody has talked to yet.
    ///
    /// # Errors
    /// `InvalidArgument` for an address of another kind.
    pub(crate) fn new(host: &str, certificates: Option<PathBuf>) -> Result<Self> {
        let address = Address::read(host, certificates)?;
        let (client, hung, facts) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { address, client, hung, facts, connection: AtomicU64::new(0), remote: OnceLock::new() })
    }

    /// Whether it may be on this host: only those are reached by a file.
    pub(crate) fn may_be_local(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// Whether it does not share this host's files; a guess before it was reached.
    pub(crate) fn is_remote(&self) -> bool {
        self.remote.get().copied().unwrap_or_else(|| !self.may_be_local())
    }

    /// Has it taken for one that does not share this host's files, whatever it shares.
    pub(crate) fn take_for_far(&self) {
        let _ = self.remote.set(true);
    }

    /// Whether [`Self::is_remote`] is known.
    pub(crate) fn is_placed(&self) -> bool {
        !self.may_be_local() || self.remote.get().is_some()
    }

    /// Finds out whether the engine sees a directory of this host, by asking for a container that cannot be: the
    /// engine looks for what it shall bind before it looks for the image.
    ///
    /// # Errors
    /// `Unavailable`; `Internal` for any other answer, after which it is still not known.
    pub(crate) async fn place(&self, mark: &Path) -> Result<()> {
        let host_config =
            HostConfig { mounts: Some(vec![bind(mark, "/mark", true)]), ..HostConfig::default() };
        let body = ContainerCreateBody {
            image: Some(NO_IMAGE.to_owned()),
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        };
        let client = self.client().await?;
        let options = CreateContainerOptionsBuilder::default().build();
        match bounded(QUESTION, client.create_container(Some(options), body)).await {
            Err(fault) => {
                let _ = self.remote.set(fault.tells_of_a_far_mark()?);
                Ok(())
            }
            Ok(_) => Err(Error::internal(PLACING, "it made a container")),
        }
    }

    /// The mount namespace of the process at the other end of the socket.
    pub(crate) async fn mount_namespace(&self) -> Option<PathBuf> {
        let Address::Unix(path) = &self.address else { return None };
        let connected = tokio::time::timeout(QUESTION, tokio::net::UnixStream::connect(path)).await;
        let process = connected.ok()?.ok()?.peer_cred().ok()?.pid()?;
        std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok()
    }

    /// What was found out last about the engine, which may be away now; `None` before it was first reached.
    pub(crate) fn known(&self) -> Option<Arc<Facts>> {
        self.lock_facts().as_ref().map(|(_, facts)| Arc::clone(facts))
    }

    fn lock_facts(&self) -> MutexGuard<'_, Option<(u64, Arc<Facts>)>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be known about the engine; asked once for each connection.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be reached or is too old.
    pub(crate) async fn facts(&self) -> Result<Arc<Facts>> {
        let connection = self.connection.load(Ordering::Acquire);
        let client = self.client().await?;
        if let Some((of, known)) = &*self.lock_facts()
            && *of == connection
        {
            return Ok(Arc::clone(known));
        }
        let info =
            bounded(QUESTION, client.info()).await.map_err(|fault| fault.while_asking("ask the engine"))?;
        let found = Facts::read(&info, self.is_remote());
        let mut known = self.lock_facts();
        // What is the same stays what it is: what follows from it is worked out once.
        let facts = match known.take() {
            Some((_, facts)) if *facts == found => facts,
            _ => Arc::new(found),
        };
        *known = Some((connection, Arc::clone(&facts)));
        Ok(facts)
    }

    /// A client, connected where it was not.
    ///
    /// # Errors
    /// `Unavailable` saying why, for people.
    pub(crate) async fn client(&self) -> Result<Docker> {
        let kept = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = kept {
            return Ok(client);
        }
        let unavailable = |detail: String| Error::Unavailable { what: "engine", detail };
        // Those who ask for one container after the other would each wait for it in turn.
        let hung = *self.hung.lock().unwrap_or_else(PoisonError::into_inner);
        if hung.is_some_and(|since| since.elapsed() < LEFT_ALONE) {
            return Err(unavailable("the Docker engine did not answer a moment ago".to_owned()));
        }
        let made = match &self.address {
            Address::Unix(path) if !Path::new(path).exists() => {
                let detail = format!("no Docker engine: {path} is not there; start one, or set DOCKER_HOST");
                return Err(unavailable(detail));
            }
            Address::Unix(path) => Docker::connect_with_unix(path, CLIENT_DEADLINE, API_DEFAULT_VERSION),
            Address::Tcp(host) => Ok(tcp::connect(host)?),
            Address::Tls(host, certificates) => Ok(tls::connect(host, certificates)?),
        };
        let made = made.map_err(|cause| unavailable(causes(&cause)))?;
        let mut unanswered = Unanswered { engine: self, since: Some(Instant::now()) };
        let negotiated = bounded(QUESTION, made.negotiate_version()).await;
        if !matches!(negotiated, Err(Fault::Late(_))) {
            unanswered.was_answered();
        }
        let client = negotiated.map_err(|fault| fault.while_asking("connect to the Docker engine"))?;
        let spoken = client.client_version();
        if (spoken.major_version, spoken.minor_version) < OLDEST {
            return Err(unavailable(format!(
                "the Docker engine speaks API {spoken}, at least {}.{} is needed (Docker 20.10)",
                OLDEST.0, OLDEST.1
            )));
        }
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    /// Forgets the connection: the next call finds out anew what the engine speaks, and what it is.
    pub(crate) fn forget(&self) {
        self.connection.fetch_add(1, Ordering::AcqRel);
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A question that the engine did not answer yet. Who waited for it long, and went, or was told that it is late, leaves
/// word that the engine hangs.
struct Unanswered<'a> {
    engine: &'a Engine,
    /// When it was asked, until it answers.
    since: Option<Instant>,
}

impl Unanswered<'_> {
    fn was_answered(&mut self) {
        *self.engine.hung.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.since = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let is_connected = self.engine.client.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        // Somebody else was answered meanwhile; or nobody waited long enough to know.
        if is_connected || self.since.is_none_or(|since| since.elapsed() < SILENCE) {
            return;
        }
        *self.engine.hung.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// Waits for the engine, but not for ever.
pub(crate) async fn bounded<T>(
    deadline: Duration,
    work: impl Future<Output = std::result::Result<T, Cause>>,
) -> std::result::Result<T, Fault> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result.map_err(Fault::from),
        Err(_) => Err(Fault::Late(deadline)),
    }
}

#[cfg(test)]
mod tests;
