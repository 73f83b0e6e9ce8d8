//! What the daemon is told before it starts. Everything has a default; no file is needed.

use crate::error::{Error, Result};
use crate::listen::Address;
pub use crate::pools::MemoryPressure;
pub use crate::reach::ReachConfig;
pub use hostel_pool::Overcommit;
use hostel_sandbox::ResourceLimits;
use nix::unistd::{Uid, geteuid};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is promised by default: limits are caps that most sandboxes stay far below, so memory, processes and disk are
/// given many times over, and processors, which are shared anyway, without a bound. An idle sandbox uses less than a
/// megabyte of what it may have.
pub const OVERCOMMIT: Overcommit = Overcommit { memory: 16.0, cpu: f64::INFINITY, pids: 16.0, disk: 64.0 };
/// More threads are taken for a slip of the hand.
const MOST_THREADS: usize = 1 << 10;

/// Configuration of a daemon.
#[derive(Debug, Clone)]
pub struct Config {
    /// What outlives a reboot: records, templates.
    pub state_directory: PathBuf,
    /// What does not: sockets.
    pub runtime_directory: PathBuf,
    /// Where templates are declared: `DIRECTORY/*.toml` and `DIRECTORY/*/template.toml`.
    pub template_directories: Vec<PathBuf>,
    /// Where pools are declared: `DIRECTORY/*.toml`.
    pub pool_directories: Vec<PathBuf>,
    /// Where metrics are served for Prometheus; nowhere where absent.
    pub metrics_listen: Option<SocketAddr>,
    /// What sandboxes may reach, and through what.
    pub reach: ReachConfig,
    /// Where clients connect.
    pub listen: Vec<Address>,
    /// Most connections of clients at a time. [`build`](crate::build) takes at most half of the open files that the
    /// process may have.
    pub max_connections: usize,
    /// Most connections of one user at a time; who comes over TCP counts as one.
    pub max_connections_per_user: usize,
    /// Threads that calls run on, at least 1. Half of the processors otherwise: the rest is the sandboxes', and a call
    /// that goes from thread to thread waits for each of them to wake, which costs more than they do at a time.
    pub threads: usize,
    /// Most sandboxes that are not ended.
    pub max_sandboxes: usize,
    /// How much more than the node has may be promised to sandboxes.
    pub overcommit: Overcommit,
    /// How short the node's memory must be for pools to give it back.
    pub memory_pressure: MemoryPressure,
    /// Most watchers at a time.
    pub max_watchers: usize,
    /// Most imports of templates at a time, at least one; more wait.
    pub max_imports: usize,
    /// How long the record of an ended sandbox stays.
    pub record_retention: Duration,
    /// Limits where neither caller nor template says otherwise.
    pub default_limits: ResourceLimits,
    /// Lifetime where the caller says nothing; `None` is for ever.
    pub default_lifetime: Option<Duration>,
    /// Largest message that is received, in bytes.
    pub max_message_bytes: usize,
    /// Deadline of calls that have none and do not stream.
    pub default_deadline: Duration,
    /// How long a shutdown may take.
    pub drain_timeout: Duration,
    /// Where the Docker engine is; `None` is its usual socket.
    pub docker_host: Option<String>,
    /// The directory of certificates for TLS with it; `None` is without.
    pub docker_certificates: Option<PathBuf>,
    /// The image of containers whose creator names no template; `None` is the backend's own choice.
    pub docker_image: Option<String>,
}

impl Config {
    /// The defaults of whoever runs this: system directories for root, those of the XDG base directory
    /// specification for others.
    ///
    /// # Errors
    /// [`Error::Config`] where there is no home directory to put records in.
    pub fn for_this_user() -> Result<Self> {
        let user = geteuid();
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let (state, runtime, declared) = if user.is_root() {
            let declared = PathBuf::from("/etc/hostel");
            (PathBuf::from("/var/lib/hostel"), PathBuf::from("/run/hostel"), Some(declared))
        } else {
            (
                user_state(variable("XDG_STATE_HOME"), variable("HOME"))?,
                user_runtime(variable("XDG_RUNTIME_DIR"), user),
                user_declarations(variable("XDG_CONFIG_HOME"), variable("HOME")),
            )
        };
        let below =
            |name: &str| -> Vec<PathBuf> { declared.iter().map(|directory| directory.join(name)).collect() };
        Ok(Self {
            template_directories: below("templates.d"),
            pool_directories: below("pools.d"),
            reach: ReachConfig {
                preset_directories: below("network.d"),
                secret_directories: below("secrets.d"),
                gateway_file: below("gateway.toml").pop().filter(|file| file.exists()),
                ..ReachConfig::default()
            },
            ..Self::in_directories(&state, &runtime)
        })
    }

    /// The defaults with these directories, and the socket `hosteld.sock` in the second.
    #[must_use]
    pub fn in_directories(state: &Path, runtime: &Path) -> Self {
        Self {
            state_directory: state.to_owned(),
            runtime_directory: runtime.to_owned(),
            template_directories: Vec::new(),
            pool_directories: Vec::new(),
            metrics_listen: None,
            reach: ReachConfig::default(),
            listen: vec![Address::Unix(runtime.join("hosteld.sock"))],
            max_connections: 4096,
            max_connections_per_user: 2048,
            threads: half_of_the_processors(),
            max_sandboxes: 4096,
            overcommit: OVERCOMMIT,
            memory_pressure: MemoryPressure::default(),
            max_watchers: 1024,
            max_imports: 2,
            record_retention: Duration::from_secs(3600),
            default_limits: ResourceLimits::defaults(),
            default_lifetime: None,
            max_message_bytes: 4 << 20,
            default_deadline: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            docker_host: None,
            docker_certificates: None,
            docker_image: None,
        }
    }

    /// Puts what was given on the command line or in the environment over the defaults. A runtime directory moves
    /// the default socket with it.
    #[must_use]
    pub fn with(mut self, state: Option<PathBuf>, runtime: Option<PathBuf>, listen: Vec<Address>) -> Self {
        if let Some(state) = state {
            self.state_directory = state;
        }
        if let Some(runtime) = runtime {
            self.listen = vec![Address::Unix(runtime.join("hosteld.sock"))];
            self.runtime_directory = runtime;
        }
        if !listen.is_empty() {
            self.listen = listen;
        }
        self
    }

    /// Uses this engine and this default image for containers, where they are given.
    #[must_use]
    pub fn with_docker(mut self, host: Option<String>, image: Option<String>) -> Self {
        self.docker_host = host.filter(|host| !host.is_empty()).or(self.docker_host);
        self.docker_image = image.filter(|image| !image.is_empty()).or(self.docker_image);
        self
    }

    /// Speaks TLS with that engine, by the certificates in this directory.
    #[must_use]
    pub fn with_docker_certificates(mut self, directory: Option<PathBuf>) -> Self {
        self.docker_certificates = directory.or(self.docker_certificates);
        self
    }

    /// Looks for templates in these directories instead, where any are given.
    #[must_use]
    pub fn with_templates(mut self, directories: Vec<PathBuf>) -> Self {
        if !directories.is_empty() {
            self.template_directories = directories;
        }
        self
    }

    /// Looks for pools in these directories instead, where any are given, and promises that much.
    #[must_use]
    pub fn with_pools(mut self, directories: Vec<PathBuf>, overcommit: Option<Overcommit>) -> Self {
        if !directories.is_empty() {
            self.pool_directories = directories;
        }
        self.overcommit = overcommit.unwrap_or(self.overcommit);
        self
    }

    /// Has pools give memory back at these bounds.
    #[must_use]
    pub fn with_memory_pressure(mut self, bounds: Option<MemoryPressure>) -> Self {
        self.memory_pressure = bounds.unwrap_or(self.memory_pressure);
        self
    }

    /// Lets so many clients be connected, all together and of one user, where that is given.
    #[must_use]
    pub fn with_connections(mut self, all: Option<usize>, each: Option<usize>) -> Self {
        self.max_connections = all.unwrap_or(self.max_connections);
        self.max_connections_per_user = each.unwrap_or(self.max_connections_per_user);
        self
    }

    /// Runs calls on so many threads, where that is given.
    #[must_use]
    pub fn with_threads(mut self, threads: Option<usize>) -> Self {
        self.threads = threads.unwrap_or(self.threads);
        self
    }

    /// Lets sandboxes reach things as told there, where it tells.
    #[must_use]
    pub fn with_reach(mut self, told: ReachConfig) -> Self {
        self.reach = told.or(self.reach);
        self
    }

    /// Serves metrics there.
    #[must_use]
    pub fn with_metrics(mut self, listen: Option<SocketAddr>) -> Self {
        self.metrics_listen = listen.or(self.metrics_listen);
        self
    }

    /// Checks what can be checked without touching anything.
    ///
    /// # Errors
    /// [`Error::Config`] saying what would work.
    pub fn validate(&self) -> Result<()> {
        for (name, directory) in [("state", &self.state_directory), ("runtime", &self.runtime_directory)] {
            if !directory.is_absolute() {
                let shown = directory.display();
                return Err(Error::Config(format!("the {name} directory {shown} is not an absolute path")));
            }
        }
        if self.max_connections == 0 || self.max_connections_per_user == 0 {
            return Err(Error::Config("let at least one client be connected".to_owned()));
        }
        if !(1..=MOST_THREADS).contains(&self.threads) {
            return Err(Error::Config(format!("calls run on 1 to {MOST_THREADS} threads")));
        }
        if self.listen.is_empty() {
            return Err(Error::Config("give at least one address to listen on".to_owned()));
        }
        if let Some(address) = self.metrics_listen.filter(|address| !address.ip().is_loopback()) {
            let problem = format!("metrics would be open to everybody at {address}: give a loopback address");
            return Err(Error::Config(problem));
        }
        self.listen.iter().try_for_each(Address::validate)
    }
}

/// Threads that calls run on where nobody says otherwise.
#[must_use]
pub fn half_of_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// What `hosteld --check` says.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let listen: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
        writeln!(f, "state directory: {}", self.state_directory.display())?;
        writeln!(f, "runtime directory: {}", self.runtime_directory.display())?;
        write!(f, "listen: {}", listen.join(", "))
    }
}

fn user_state(state_home: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf> {
    state_home
        .or_else(|| home.map(|home| home.join(".local/state")))
        .map(|base| base.join("hostel"))
        .ok_or_else(|| Error::Config("neither XDG_STATE_HOME nor HOME is set: give --state-dir".to_owned()))
}

fn user_declarations(config_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    config_home.or_else(|| home.map(|home| home.join(".config"))).map(|base| base.join("hostel"))
}

fn user_runtime(runtime: Option<PathBuf>, user: Uid) -> PathBuf {
    runtime.map_or_else(|| PathBuf::from(format!("/tmp/hostel-{user}")), |base| base.join("hostel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_own_places() {
        let uid = Uid::from_raw(1000);
        assert_eq!(user_runtime(None, uid), Path::new("/tmp/hostel-1000"));
        assert_eq!(user_runtime(Some("/run/user/1000".into()), uid), Path::new("/run/user/1000/hostel"));
        assert_eq!(
            user_state(None, Some("/home/a".into())).unwrap(),
            Path::new("/home/a/.local/state/hostel")
        );
        assert!(user_state(None, None).is_err());
    }

    #[test]
    fn a_runtime_directory_moves_the_socket_unless_one_is_named() {
        let base = Config::in_directories(Path::new("/s"), Path::new("/r"));
        let moved = base.clone().with(None, Some("/x".into()), vec![]);
        assert_eq!(moved.listen, [Address::Unix("/x/hosteld.sock".into())]);
        let named = base.with(None, Some("/x".into()), vec![Address::Unix("/y".into())]);
        assert_eq!(named.listen, [Address::Unix("/y".into())]);
    }
}
