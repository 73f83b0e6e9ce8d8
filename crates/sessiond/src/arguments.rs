//! Options of the server: by flag, else by environment, else by file, else by default.

use crate::config::{Config, default_file};
use crate::error::{Error, Result};
use crate::file::File;
use crate::logging::LogFormat;
use crate::tokens::Tokens;
use clap::{Args, FromArgMatches as _};
use hostel_session::client::Address;
use hostel_session::{StoreUrl, Usd};
use secrecy::{ExposeSecret as _, SecretString};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a session server is told.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// Where clients connect. [127.0.0.1:3333]
    #[arg(long, env = "HOSTEL_SESSIOND_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// The daemon that has the sandboxes: unix:///path or http://host:port. [this user's own]
    #[arg(long = "addr", env = "HOSTEL_ADDR", value_name = "ADDRESS")]
    pub daemon: Option<String>,
    /// Where sessions are kept. [/var/lib/hostel, for users ~/.local/state/hostel]
    #[arg(long, env = "HOSTEL_SESSIOND_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// The database: sqlite:///path or postgres://user@host/database. [sessions.db in the state directory]
    #[arg(long, env = "HOSTEL_SESSIOND_STORE", hide_env_values = true, value_name = "URL")]
    pub store: Option<SecretString>,
    /// Where files are kept that are too large for the database: a directory, or
    /// s3://bucket/prefix?region=REGION&endpoint=URL. [blobs in the state directory]
    #[arg(long, env = "HOSTEL_SESSIOND_BLOBS", value_name = "LOCATION")]
    pub blobs: Option<String>,
    /// Tokens that let clients in, one a line. Needed to listen on anything but loopback. [none]
    #[arg(long, env = "HOSTEL_SESSIOND_TOKENS_FILE", value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,
    /// The template of sandboxes whose session names none. [claude]
    #[arg(long, env = "HOSTEL_SESSIOND_TEMPLATE", value_name = "NAME")]
    pub template: Option<String>,
    /// The backend of sandboxes whose session names none. [the daemon's default]
    #[arg(long, env = "HOSTEL_SESSIOND_BACKEND", value_name = "NAME")]
    pub backend: Option<String>,
    /// The pool of sandboxes whose session names none. [any that fits]
    #[arg(long, env = "HOSTEL_SESSIOND_POOL", value_name = "NAME")]
    pub pool: Option<String>,
    /// How many agents to keep started in warm sandboxes, waiting for sessions: in a pool of the server's own, which
    /// grows with the demand up to four times that. [0]
    #[arg(long, env = "HOSTEL_SESSIOND_WARM_AGENTS", value_name = "N")]
    pub warm_agents: Option<u32>,
    /// The same for sessions whose agents ask for permissions or plan, which is fixed when an agent is started. [0]
    #[arg(long, env = "HOSTEL_SESSIOND_WARM_ASKING_AGENTS", value_name = "N")]
    pub warm_asking_agents: Option<u32>,
    /// Whether sandboxes ask models through the daemon's gateway, without a key of their own. [true]
    #[arg(long, env = "HOSTEL_SESSIOND_GATEWAY", value_name = "BOOL")]
    pub gateway: Option<bool>,
    /// What a sandbox may reach whose session says nothing: none, open, or hosts to allow. [none]
    #[arg(long, env = "HOSTEL_SESSIOND_NETWORK", value_delimiter = ',', value_name = "WORDS")]
    pub network: Vec<String>,
    /// A session that is idle for longer ends, unless it says otherwise; 0 for never. [1800000]
    #[arg(long, env = "HOSTEL_SESSIOND_MAX_IDLE_TIME_MS", value_name = "MILLISECONDS")]
    pub max_idle_time_ms: Option<u64>,
    /// A session that is older ends, unless it says otherwise; 0 for never. [86400000]
    #[arg(long, env = "HOSTEL_SESSIOND_MAX_LIFETIME_MS", value_name = "MILLISECONDS")]
    pub max_lifetime_ms: Option<u64>,
    /// A session that spent more ends, unless it says otherwise; 0 for never. [0]
    #[arg(long, env = "HOSTEL_SESSIOND_MAX_BUDGET_USD", value_name = "DOLLARS")]
    pub max_budget_usd: Option<f64>,
    /// A session whose agent had more kept, events, transcripts and tool results together, ends; 0 for no bound.
    /// [4294967296]
    #[arg(long, env = "HOSTEL_SESSIOND_MAX_SESSION_BYTES", value_name = "BYTES")]
    pub max_session_bytes: Option<u64>,
    /// A question of an agent that nobody answers for so long is denied. [300000]
    #[arg(long, env = "HOSTEL_SESSIOND_QUESTION_TIMEOUT_MS", value_name = "MILLISECONDS")]
    pub question_timeout_ms: Option<u64>,
    /// The configuration file. [/etc/hostel/sessiond.toml, for users ~/.config/hostel/sessiond.toml, where it is there]
    #[arg(long, env = "HOSTEL_SESSIOND_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How logs are written to standard error.
    #[arg(long, env = "HOSTEL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

impl Arguments {
    /// What the environment says, for a program whose flags are not ours.
    ///
    /// # Errors
    /// [`Error::Config`] for a variable that is wrong.
    pub fn from_environment() -> Result<Self> {
        let command = Self::augment_args(clap::Command::new("hostel-sessiond"));
        let wrong = |error: clap::Error| Error::Config(error.to_string());
        let matches = command.try_get_matches_from(["hostel-sessiond"]).map_err(wrong)?;
        Self::from_arg_matches(&matches).map_err(wrong)
    }

    /// The configuration that they mean, over the file and the defaults of whoever runs this.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::File`], saying what would work.
    pub fn configure(self) -> Result<Config> {
        let file = match &self.config {
            Some(path) => File::read(path)?,
            None => default_file()
                .filter(|path| path.exists())
                .map_or(Ok(File::default()), |path| File::read(&path))?,
        };
        let seed = Seed::from_environment()?;
        let config = self.over(file, seed)?;
        config.validate()?;
        Ok(config)
    }

    fn over(self, file: File, seed: Seed) -> Result<Config> {
        let mut config = match self.state_dir.or(file.state_dir) {
            Some(directory) => Config::in_directory(&directory),
            None => Config::for_this_user()?,
        };
        config.listen = self.listen.or(file.listen).unwrap_or(config.listen);
        if let Some(store) = self.store.or(file.store.map(SecretString::from)) {
            config.store = store.expose_secret().parse::<StoreUrl>()?;
        }
        if let Some(blobs) = self.blobs.or(file.blobs) {
            config.blobs = blobs.parse()?;
        }
        if let Some(path) = self.tokens_file.or(file.tokens_file) {
            config.tokens = Tokens::read(&path)?;
        }
        let host = &mut config.host;
        if let Some(daemon) = self.daemon.filter(|text| !text.is_empty()).or(file.daemon) {
            host.daemon =
                daemon.parse::<Address>().map_err(|error| Error::Config(format!("addr: {error}")))?;
        }
        host.template = self.template.or(file.template).unwrap_or_else(|| host.template.clone());
        host.backend = self.backend.or(file.backend);
        host.pool = self.pool.or(file.pool);
        host.warm_agents = self.warm_agents.or(file.warm_agents).unwrap_or(host.warm_agents);
        host.warm_asking_agents =
            self.warm_asking_agents.or(file.warm_asking_agents).unwrap_or(host.warm_asking_agents);
        host.gateway = self.gateway.or(file.gateway).unwrap_or(host.gateway);
        if let Some(network) = Some(self.network).filter(|network| !network.is_empty()).or(file.network) {
            host.network = network;
        }
        if let Some(time) = self.max_idle_time_ms.or(file.max_idle_time_ms).or(seed.max_idle_time_ms) {
            host.max_idle_time = bound(time);
        }
        if let Some(time) = self.max_lifetime_ms.or(file.max_lifetime_ms).or(seed.max_lifetime_ms) {
            host.max_lifetime = bound(time);
        }
        if let Some(dollars) = self.max_budget_usd.or(file.max_budget_usd).or(seed.max_budget_usd) {
            let wrong = || Error::Config(format!("max-budget-usd: {dollars} is no amount of dollars"));
            host.max_budget =
                Some(Usd::from_dollars(dollars).ok_or_else(wrong)?).filter(|usd| usd.micros() > 0);
        }
        if let Some(bytes) = self.max_session_bytes.or(file.max_session_bytes) {
            host.max_session_bytes = Some(bytes).filter(|bytes| *bytes > 0);
        }
        if let Some(time) = self.question_timeout_ms.or(file.question_timeout_ms) {
            let none = || Error::Config("question-timeout-ms: must be more than 0".to_owned());
            host.question_timeout = bound(time).ok_or_else(none)?;
        }
        Ok(config)
    }
}

/// Limits by the names that the hosting patterns' documentation has for them, below all else.
#[derive(Debug, Default)]
struct Seed {
    max_idle_time_ms: Option<u64>,
    max_lifetime_ms: Option<u64>,
    max_budget_usd: Option<f64>,
}

impl Seed {
    fn from_environment() -> Result<Self> {
        Ok(Self {
            max_idle_time_ms: variable("DEFAULT_MAX_IDLE_TIME_MS")?,
            max_lifetime_ms: variable("DEFAULT_MAX_LIFETIME_MS")?,
            max_budget_usd: variable("DEFAULT_MAX_BUDGET_USD")?,
        })
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Result<Option<T>> {
    let Some(text) = std::env::var_os(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Error::Config(format!("{name}: {text:?} is no number")))
}

/// Milliseconds, 0 for no bound.
fn bound(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_over_the_file_and_the_file_over_the_documented_names() {
        let flags = Arguments {
            max_idle_time_ms: Some(1),
            state_dir: Some("/s".into()),
            gateway: Some(false),
            ..Arguments::default()
        };
        let file = File {
            max_idle_time_ms: Some(2),
            max_lifetime_ms: Some(0),
            max_session_bytes: Some(0),
            pool: Some("warm".into()),
            blobs: Some("s3://bucket/hostel?region=eu-west-1".into()),
            ..File::default()
        };
        let seed = Seed { max_idle_time_ms: Some(3), max_lifetime_ms: Some(3), max_budget_usd: Some(5.0) };
        let config = flags.over(file, seed).unwrap();
        assert_eq!(config.blobs.to_string(), "s3://bucket/hostel");
        let host = config.host;
        assert_eq!(host.max_idle_time, Some(Duration::from_millis(1)));
        assert_eq!((host.max_lifetime, host.pool.as_deref(), host.gateway), (None, Some("warm"), false));
        assert_eq!((host.max_budget, host.max_session_bytes), (Usd::from_dollars(5.0), None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let daemon = Arguments {
            daemon: Some("nowhere".into()),
            state_dir: Some("/s".into()),
            ..Arguments::default()
        };
        let wrong = daemon.over(File::default(), Seed::default()).unwrap_err().to_string();
        assert!(wrong.contains("addr") && wrong.contains("unix:///path"), "{wrong}");
        for blobs in ["ftp://here", "relative"] {
            let flags =
                Arguments { blobs: Some(blobs.into()), state_dir: Some("/s".into()), ..Arguments::default() };
            let config = flags.over(File::default(), Seed::default());
            let wrong = config.and_then(|config| config.validate()).unwrap_err().to_string();
            assert!(wrong.contains("blobs:"), "{wrong}");
        }
        let budget =
            Arguments { max_budget_usd: Some(-1.0), state_dir: Some("/s".into()), ..Arguments::default() };
        assert!(
            budget.over(File::default(), Seed::default()).unwrap_err().to_string().contains("max-budget-usd")
        );
    }
}
