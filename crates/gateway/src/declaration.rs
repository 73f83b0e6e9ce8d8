//! The configuration as an operator writes it. Keys are named, never written down here.

use crate::config::{ApiFetches, Config, KeyHeader, Limits, Timeouts, Upstream};
use crate::error::{Error, Result};
use crate::price::Prices;
use reqwest::Url;
use secrecy::{SecretString, zeroize::Zeroizing};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest key that is read, in bytes.
const MAX_KEY: usize = 16 << 10;

/// The gateway's part of the daemon's configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declaration {
    /// Where requests go, in failover order.
    pub upstream: Vec<UpstreamDeclaration>,
    /// A table of prices that replaces the one that ships.
    pub prices_file: Option<PathBuf>,
    /// `refuse` (the default) or `allow`; see [`ApiFetches`].
    pub api_fetches: ApiFetches,
    /// Bounds; what is absent has its default.
    pub limits: LimitsDeclaration,
}

/// One upstream. Exactly one of the three `key_…` fields says where its key is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamDeclaration {
    /// Its name in logs, metrics and reports.
    pub name: String,
    /// `https://api.anthropic.com`, or another that speaks the same protocol.
    pub base_url: String,
    /// A file that holds the key.
    pub key_file: Option<PathBuf>,
    /// An environment variable of the daemon that holds the key.
    pub key_env: Option<String>,
    /// A systemd credential (`LoadCredential=`) that holds the key.
    pub key_credential: Option<String>,
    /// `x-api-key` (the default) or `bearer`.
    #[serde(default)]
    pub key_header: KeyHeader,
    /// Requests at the same time; 200 by default.
    pub max_concurrent: Option<usize>,
    /// See [`Timeouts::connect`].
    pub connect_timeout_seconds: Option<u64>,
    /// See [`Timeouts::first_byte`].
    pub first_byte_timeout_seconds: Option<u64>,
    /// See [`Timeouts::idle`].
    pub idle_timeout_seconds: Option<u64>,
    /// See [`Timeouts::queue`].
    pub queue_timeout_seconds: Option<u64>,
    /// See [`Upstream::http2_prior_knowledge`].
    #[serde(default)]
    pub http2_prior_knowledge: bool,
    /// A file of certificates (PEM) that are trusted besides the system's.
    pub extra_roots_file: Option<PathBuf>,
}

/// Bounds that an operator may change; see [`Limits`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsDeclaration {
    /// See [`Limits::connections`].
    pub connections: Option<usize>,
    /// See [`Limits::body_bytes`].
    pub body_bytes: Option<usize>,
    /// See [`Limits::held_bytes`].
    pub held_bytes: Option<usize>,
    /// See [`Limits::node_held_bytes`].
    pub node_held_bytes: Option<usize>,
    /// See [`Limits::keep`].
    pub keep_days: Option<u64>,
}

impl Declaration {
    /// Reads files and environment, and makes the configuration.
    ///
    /// # Errors
    /// [`Error::Configuration`] naming the key at fault; never with a secret in it.
    pub fn resolve(self, record_directory: impl Into<PathBuf>) -> Result<Config> {
        let upstreams = self
            .upstream
            .into_iter()
            .enumerate()
            .map(|(index, upstream)| upstream.resolve(&format!("upstream[{index}]")))
            .collect::<Result<_>>()?;
        let prices = match self.prices_file {
            None => Prices::shipped()?,
            Some(path) => Prices::parse(&read_text("prices_file", &path)?)?,
        };
        let defaults = Limits::default();
        let LimitsDeclaration { connections, body_bytes, held_bytes, node_held_bytes, keep_days } =
            self.limits;
        let body_bytes = body_bytes.unwrap_or(defaults.body_bytes);
        let held_bytes = held_bytes.unwrap_or(defaults.held_bytes.max(body_bytes));
        let limits = Limits {
            connections: connections.unwrap_or(defaults.connections),
            body_bytes,
            held_bytes,
            node_held_bytes: node_held_bytes.unwrap_or(defaults.node_held_bytes.max(held_bytes)),
            keep: keep_days.map_or(defaults.keep, |days| Duration::from_secs(days.saturating_mul(86_400))),
            ..defaults
        };
        let config = Config {
            upstreams,
            prices,
            api_fetches: self.api_fetches,
            record_directory: record_directory.into(),
            limits,
        };
        config.validate()?;
        Ok(config)
    }
}

impl UpstreamDeclaration {
    fn resolve(self, field: &str) -> Result<Upstream> {
        let base_url = Url::parse(&self.base_url)
            .map_err(|error| Error::configuration(format!("{field}.base_url"), error.to_string()))?;
        let key = self.key(field)?;
        let defaults = Timeouts::default();
        let seconds = |given: Option<u64>, default: Duration| {
            given.map_or(default, |given| Duration::from_secs(given.max(1)))
        };
        let extra_roots = match &self.extra_roots_file {
            None => Vec::new(),
            Some(path) => vec![read_text(&format!("{field}.extra_roots_file"), path)?.into_bytes()],
        };
        let mut upstream = Upstream::new(self.name, base_url, key);
        upstream.key_header = self.key_header;
        upstream.max_concurrent = self.max_concurrent.unwrap_or(upstream.max_concurrent);
        upstream.timeouts = Timeouts {
            connect: seconds(self.connect_timeout_seconds, defaults.connect),
            first_byte: seconds(self.first_byte_timeout_seconds, defaults.first_byte),
            idle: seconds(self.idle_timeout_seconds, defaults.idle),
            queue: seconds(self.queue_timeout_seconds, defaults.queue),
        };
        upstream.http2_prior_knowledge = self.http2_prior_knowledge;
        upstream.extra_roots = extra_roots;
        Ok(upstream)
    }

    fn key(&self, field: &str) -> Result<SecretString> {
        let credential = |name: &str| {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(Error::configuration(format!("{field}.key_credential"), "is not a name"));
            }
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                let detail = "systemd gave this process no credentials (CREDENTIALS_DIRECTORY is not set)";
                Error::configuration(format!("{field}.key_credential"), detail)
            })?;
            read_text(&format!("{field}.key_credential"), &Path::new(&directory).join(name))
        };
        let text = match (&self.key_file, &self.key_env, &self.key_credential) {
            (Some(path), None, None) => read_text(&format!("{field}.key_file"), path)?,
            (None, Some(name), None) => std::env::var(name).map_err(|_| {
                let detail = format!("the environment variable {name:?} is not set, or is not text");
                Error::configuration(format!("{field}.key_env"), detail)
            })?,
            (None, None, Some(name)) => credential(name)?,
            _ => {
                let detail = "give exactly one of key_file, key_env and key_credential";
                return Err(Error::configuration(format!("{field}.key_file"), detail));
            }
        };
        let text = Zeroizing::new(text);
        let key = text.trim();
        if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let detail = "the key is empty, too long, or has characters that no header can carry";
            return Err(Error::configuration(format!("{field}.key"), detail));
        }
        Ok(SecretString::from(key))
    }
}

fn read_text(field: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::configuration(field, format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn resolve(text: &str) -> Result<Config> {
        let declaration: Declaration =
            toml::from_str(text).map_err(|error| Error::configuration("file", error.to_string()))?;
        declaration.resolve("records")
    }

    #[test]
    fn keys_are_read_from_where_they_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, "sk-real\n").unwrap();
        let text = format!(
            "[[upstream]]\nname='a'\nbase_url='https://api.example.com/anthropic'\nkey_header='bearer'\n\
             first_byte_timeout_seconds=5\nkey_file={:?}\n[limits]\nbody_bytes=1000",
            file.display().to_string()
        );
        let config = resolve(&text).unwrap();
        let upstream = &config.upstreams[0];
        assert_eq!(upstream.key.expose_secret(), "sk-real");
        assert_eq!(upstream.key_header, KeyHeader::Bearer);
        assert_eq!(upstream.timeouts.first_byte, Duration::from_secs(5));
        assert_eq!(config.limits.body_bytes, 1000);
        assert!(!format!("{config:?}").contains("sk-real"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let upstream = |rest: &str| format!("[[upstream]]\nname='a'\nbase_url='http://example.com'\n{rest}");
        for (text, part) in [
            (upstream(""), "exactly one"),
            (upstream("key='sk-inline'"), "unknown field"),
            (upstream("key_env='HOSTEL_NO_SUCH_VARIABLE'"), "HOSTEL_NO_SUCH_VARIABLE"),
            (upstream("key_env='A'\nkey_file='b'"), "exactly one"),
            (upstream("key_credential='../x'"), "is not a name"),
            (upstream("key_env='PATH'\nmax_concurrent=0"), "max_concurrent"),
            ("[[upstream]]\nname='a'\nbase_url='ftp://x'\nkey_env='PATH'".to_owned(), "base_url"),
            ("prices_file='/no/such/file'".to_owned(), "prices_file"),
            ("[limits]\nnode_held_bytes=1000".to_owned(), "node_held_bytes"),
        ] {
            let error = resolve(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("sk-inline") || text.contains("sk-inline"), "{error}");
        }
        assert!(resolve("").unwrap().upstreams.is_empty());
    }
}
