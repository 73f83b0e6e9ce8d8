//! The configuration file, in TOML. Every key has a flag of the same name.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// All keys, in the order of the documentation.
const KEYS: &[&str] = &[
    "listen",
    "daemon",
    "state-dir",
    "store",
    "blobs",
    "tokens-file",
    "template",
    "backend",
    "pool",
    "warm-agents",
    "warm-asking-agents",
    "gateway",
    "network",
    "max-idle-time-ms",
    "max-lifetime-ms",
    "max-budget-usd",
    "max-session-bytes",
    "question-timeout-ms",
];

/// What a file says; what is absent it does not say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) listen: Option<std::net::SocketAddr>,
    pub(crate) daemon: Option<String>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) store: Option<String>,
    pub(crate) blobs: Option<String>,
    pub(crate) tokens_file: Option<PathBuf>,
    pub(crate) template: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) pool: Option<String>,
    pub(crate) warm_agents: Option<u32>,
    pub(crate) warm_asking_agents: Option<u32>,
    pub(crate) gateway: Option<bool>,
    pub(crate) network: Option<Vec<String>>,
    pub(crate) max_idle_time_ms: Option<u64>,
    pub(crate) max_lifetime_ms: Option<u64>,
    pub(crate) max_budget_usd: Option<f64>,
    pub(crate) max_session_bytes: Option<u64>,
    pub(crate) question_timeout_ms: Option<u64>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] saying where it is wrong and what would be right.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
        Self::parse(&text).map_err(|problem| Error::file(path, problem))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(match nearest(unknown) {
                Some(near) => format!("{unknown}: there is no such key; did you mean {near:?}?"),
                None => format!("{unknown}: there is no such key; there are {}", KEYS.join(", ")),
            });
        }
        // From the text again, so that errors have lines.
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

/// The key that was most likely meant.
fn nearest(key: &str) -> Option<&'static str> {
    let key: String = key.chars().take(64).collect::<String>().to_ascii_lowercase().replace('_', "-");
    let most = (key.chars().count() / 3).max(1);
    let near = KEYS.iter().map(|known| (strsim::damerau_levenshtein(&key, known), *known));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_unknown_ones_are_corrected() {
        let all = "listen = '127.0.0.1:1'\ngateway = false\nnetwork = ['none']\nmax-budget-usd = 5\n";
        let file = File::parse(all).unwrap();
        assert_eq!((file.gateway, file.max_budget_usd), (Some(false), Some(5.0)));
        let wrong = File::parse("max_idle_time = 3").unwrap_err();
        assert!(wrong.contains("did you mean \"max-idle-time-ms\""), "{wrong}");
        assert!(File::parse("colour = 'red'").unwrap_err().contains("there are listen, daemon"));
        assert!(File::parse("gateway = 'on'").unwrap_err().contains("line 1"));
    }
}
