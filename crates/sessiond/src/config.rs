//! What the server is told before it starts. Everything has a default; no file is needed.

use crate::error::{Error, Result};
use crate::tokens::Tokens;
use hostel_session::{BlobLocation, HostConfig, StoreUrl};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The port that the sessions' documentation has everywhere.
pub const DEFAULT_PORT: u16 = 3333;

/// Configuration of a session server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the store's files are, when it is of files.
    pub state_directory: PathBuf,
    /// Where sessions are kept; `sessions.db` in the state directory where nobody says.
    pub store: StoreUrl,
    /// Where files are kept that are too large for the store; `blobs` in the state directory where nobody says.
    pub blobs: BlobLocation,
    /// How sessions are hosted.
    pub host: HostConfig,
    /// Who may use the server; empty for everybody who reaches it, which only loopback may have.
    pub tokens: Tokens,
    /// Most connections at a time.
    pub max_connections: usize,
    /// How long a shutdown may take.
    pub drain_timeout: Duration,
}

impl Config {
    /// The defaults with this state directory.
    #[must_use]
    pub fn in_directory(state: &Path) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            state_directory: state.to_owned(),
            store: StoreUrl::sqlite(state.join("sessions.db")),
            blobs: BlobLocation::Directory(state.join("blobs")),
            host: HostConfig::default(),
            tokens: Tokens::default(),
            max_connections: 4096,
            drain_timeout: Duration::from_secs(20),
        }
    }

    /// The defaults of whoever runs this: `/var/lib/hostel` for root, that of the XDG base directory specification for
    /// others.
    ///
    /// # Errors
    /// [`Error::Config`] where there is no home directory to keep sessions in.
    pub fn for_this_user() -> Result<Self> {
        if is_root() {
            return Ok(Self::in_directory(Path::new("/var/lib/hostel")));
        }
        let below = |base: Option<PathBuf>, rest: &str| base.map(|base| base.join(rest));
        let state = below(directory("XDG_STATE_HOME"), "hostel")
            .or_else(|| below(directory("HOME"), ".local/state/hostel"))
            .ok_or_else(|| {
                Error::Config("there is no HOME to keep sessions in: give --state-dir".to_owned())
            })?;
        Ok(Self::in_directory(&state))
    }

    /// Refuses what cannot work, and what is not safe.
    ///
    /// # Errors
    /// [`Error::Config`] saying what would work.
    pub fn validate(&self) -> Result<()> {
        if !self.listen.ip().is_loopback() && self.tokens.is_empty() {
            return Err(Error::Config(format!(
                "{} can be reached by others, who may then do everything: give --tokens-file, or listen on \
                 127.0.0.1:{}",
                self.listen,
                self.listen.port()
            )));
        }
        if !self.state_directory.is_absolute() {
            let shown = self.state_directory.display();
            return Err(Error::Config(format!("state-dir: {shown} is no absolute path")));
        }
        if let BlobLocation::Directory(directory) = &self.blobs
            && !directory.is_absolute()
        {
            return Err(Error::Config(format!("blobs: {} is no absolute path", directory.display())));
        }
        Ok(())
    }
}

/// What `--check` says.
impl fmt::Display for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "the daemon's".to_owned());
        let time = |time: Option<Duration>| time.map_or("none".to_owned(), |time| format!("{time:?}"));
        let host = &self.host;
        writeln!(formatter, "listen            {}", self.listen)?;
        writeln!(formatter, "tokens            {}", if self.tokens.is_empty() { "none" } else { "needed" })?;
        writeln!(formatter, "daemon            {}", host.daemon)?;
        writeln!(formatter, "state directory   {}", self.state_directory.display())?;
        writeln!(formatter, "store             {}", self.store)?;
        writeln!(formatter, "blobs             {}", self.blobs)?;
        writeln!(formatter, "template          {}", host.template)?;
        writeln!(formatter, "backend           {}", word(&host.backend))?;
        writeln!(formatter, "pool              {}", host.pool.as_deref().unwrap_or("any that fits"))?;
        let (silent, asking) = (host.warm_agents, host.warm_asking_agents);
        writeln!(formatter, "warm agents       {silent}, and {asking} that ask")?;
        writeln!(formatter, "gateway           {}", if host.gateway { "on" } else { "off" })?;
        writeln!(formatter, "network           {}", host.network.join(", "))?;
        writeln!(formatter, "idle at most      {}", time(host.max_idle_time))?;
        writeln!(formatter, "lifetime at most  {}", time(host.max_lifetime))?;
        let budget = host.max_budget.map_or("none".to_owned(), |budget| budget.to_string());
        writeln!(formatter, "budget at most    {budget}")?;
        let bytes = host.max_session_bytes.map_or("unbounded".to_owned(), |bytes| format!("{bytes} bytes"));
        writeln!(formatter, "kept at most      {bytes}")?;
        write!(formatter, "question timeout  {:?}", host.question_timeout)
    }
}

/// Where the configuration file is looked for.
pub(crate) fn default_file() -> Option<PathBuf> {
    if is_root() {
        return Some(PathBuf::from("/etc/hostel/sessiond.toml"));
    }
    let config = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")))?;
    Some(config.join("hostel/sessiond.toml"))
}

fn directory(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_let_in_only_with_tokens() {
        let mut config = Config::in_directory(Path::new("/var/lib/hostel"));
        config.validate().unwrap();
        config.listen = "0.0.0.0:3333".parse().unwrap();
        let refused = config.validate().unwrap_err().to_string();
        assert!(refused.contains("--tokens-file") && refused.contains("127.0.0.1:3333"), "{refused}");
        assert!(config.to_string().contains("listen            0.0.0.0:3333"), "{config}");
    }
}
