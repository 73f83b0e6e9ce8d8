//! Named lists of rules that operators keep in files.

use crate::error::{Error, Result};
use hostel_sandbox::network::{MAX_RULES, NetworkRule};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The presets of a daemon by their names. `model-api` is always there, unless a file of that name replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presets(BTreeMap<String, Vec<NetworkRule>>);

/// The largest preset file, in bytes.
const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "rule")]
    rules: Vec<toml::Spanned<Rule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    action: hostel_sandbox::network::RuleAction,
    host: hostel_sandbox::network::HostPattern,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    methods: Vec<String>,
    path_prefix: Option<String>,
    #[serde(default)]
    open_tls: bool,
}

impl Default for Presets {
    fn default() -> Self {
        let host = hostel_sandbox::network::HostPattern::Name("api.anthropic.com".to_owned());
        let rule = NetworkRule { ports: vec![443], ..NetworkRule::allow(host) };
        Self(BTreeMap::from([("model-api".to_owned(), vec![rule])]))
    }
}

impl Presets {
    /// Reads every `NAME.toml` of some directories; those of later directories replace earlier ones. A directory
    /// that is not there holds nothing. A file is a list of `[[rule]]` tables with the keys of a policy's rule.
    ///
    /// # Errors
    /// [`Error::Preset`] with file, line and key; [`Error::Io`] where something cannot be read.
    pub fn read(directories: &[PathBuf]) -> Result<Self> {
        let mut presets = Self::default();
        for directory in directories {
            let entries = match std::fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(format!("cannot list {}", directory.display()), error)),
            };
            for entry in entries {
                let path = entry
                    .map_err(|error| Error::io(format!("cannot list {}", directory.display()), error))?
                    .path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    let (name, rules) = read_file(&path)?;
                    presets.0.insert(name, rules);
                }
            }
        }
        Ok(presets)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The rules of a preset.
    ///
    /// # Errors
    /// [`Error::UnknownPreset`], which says what there is.
    pub fn rules(&self, name: &str) -> Result<&[NetworkRule]> {
        self.0.get(name).map(Vec::as_slice).ok_or_else(|| Error::UnknownPreset {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }
}

fn read_file(path: &Path) -> Result<(String, Vec<NetworkRule>)> {
    let problem = |place: String, problem: String| Error::Preset { place, problem };
    let shown = path.display().to_string();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    if hostel_sandbox::id::check_name("name", &stem).is_err() {
        return Err(problem(shown, "a preset's name has 1 to 63 letters, digits, '_' and '-'".to_owned()));
    }
    let length =
        std::fs::metadata(path).map_err(|error| Error::io(format!("cannot read {shown}"), error))?.len();
    if length > MAX_FILE {
        return Err(problem(shown, format!("it has {length} bytes, at most {MAX_FILE}")));
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| Error::io(format!("cannot read {shown}"), error))?;
    let at = |position: usize| {
        let line = text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1;
        format!("{shown}:{line}")
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let place = error.span().map_or_else(|| shown.clone(), |span| at(span.start));
        let key = error.span().and_then(|span| key_at(&text, span.start));
        problem(
            key.map_or_else(|| place.clone(), |key| format!("{place}: {key}")),
            error.message().to_owned(),
        )
    })?;
    if file.rules.len() > MAX_RULES {
        return Err(problem(shown, format!("{} rules, at most {MAX_RULES}", file.rules.len())));
    }
    let mut rules = Vec::with_capacity(file.rules.len());
    for rule in file.rules {
        let place = at(rule.span().start);
        let Rule { action, host, ports, methods, path_prefix, open_tls } = rule.into_inner();
        let rule = NetworkRule { action, host, ports, methods, path_prefix, open_tls };
        rule.validate().map_err(|wrong| problem(place, wrong))?;
        rules.push(rule);
    }
    Ok((stem, rules))
}

/// The key on whose line a position is.
fn key_at(text: &str, position: usize) -> Option<String> {
    let start = text.get(..position)?.rfind('\n').map_or(0, |index| index + 1);
    let line = text.get(start..)?.lines().next()?;
    let key = line.split_once('=')?.0.trim();
    (!key.is_empty()).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_read_and_errors_say_where() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let read = || Presets::read(&[directory.path().to_owned(), "/nowhere/at/all".into()]);
        write(
            "registry.toml",
            "[[rule]]\nhost = \"*.example.com\"\nports = [443]\n\n[[rule]]\nhost = \"example.com\"\n",
        );
        let presets = read().unwrap();
        assert_eq!(presets.names().collect::<Vec<_>>(), ["model-api", "registry"]);
        assert_eq!(presets.rules("registry").unwrap().len(), 2);

        for (text, place, word) in [
            ("[[rule]]\nhost = \"a..b\"\n", "bad.toml:2: host", "host name"),
            ("[[rule]]\nhost = \"example.com\"\nport = [1]\n", "bad.toml:3: port", "unknown field"),
            ("\n[[rule]]\nhost = \"example.com\"\nports = [0]\n", "bad.toml:2", "ports"),
        ] {
            write("bad.toml", text);
            let error = read().unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(word), "{error}");
        }
    }
}
