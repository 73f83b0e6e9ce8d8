//! Values that the operator gives the daemon: files, systemd credentials, environment variables.

use super::check_name;
use super::value::{MAX_VALUE, SecretValue};
use crate::error::{Error, Result};
use crate::state_file::{self, Privacy};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the names of the variables begin with.
const PREFIX: &str = "HOSTEL_SECRET_";

/// What the names of systemd credentials begin with that are secrets for sandboxes. The daemon's others, as the key of
/// a model's provider, are none.
const CREDENTIAL_PREFIX: &str = "hostel-secret-";

/// Where the operator keeps values. Files are read anew at each question, so that a changed one is used.
#[derive(Debug)]
pub struct SecretSource {
    directories: Vec<PathBuf>,
    credentials: Option<PathBuf>,
    environment: BTreeMap<String, SecretString>,
}

impl SecretSource {
    /// Looks in `directories` for a file of the secret's name, usually `/etc/hostel/secrets.d`; in
    /// `$CREDENTIALS_DIRECTORY` (systemd.exec(5)) for `hostel-secret-` and its name; and in this process's environment for `HOSTEL_SECRET_NAME`, with
    /// the name in upper case and `_` for `-`.
    #[must_use]
    pub fn new(directories: Vec<PathBuf>) -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
                .filter(|pair| pair.0.starts_with(PREFIX))
        });
        Self::from_parts(directories, credentials, variables)
    }

    /// The same with a credentials directory and an environment of the caller's.
    #[must_use]
    pub fn from_parts(
        directories: Vec<PathBuf>,
        credentials: Option<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let environment =
            environment.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect();
        Self { directories, credentials, environment }
    }

    /// The value of this secret, where one is here.
    pub(super) fn get(&self, name: &str) -> Result<Option<SecretValue>> {
        check_name(name)?;
        if let Some(directory) = &self.credentials
            && let Some(value) = read(&credential(directory, name), name, Privacy::Group)?
        {
            return Ok(Some(value));
        }
        for directory in &self.directories {
            if let Some(value) = read_private(directory, name)? {
                return Ok(Some(value));
            }
        }
        match self.environment.get(&variable(name)) {
            Some(value) => {
                use secrecy::ExposeSecret as _;
                SecretValue::new(name, value.expose_secret().as_bytes()).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The names that have a value here, with the kind of place and when it last changed; a place that is asked first
    /// comes first. Variables are told in lower case, as their names were lost.
    pub(super) fn names(&self) -> Vec<(String, &'static str, Option<SystemTime>)> {
        let mut names = Vec::new();
        let places = self.credentials.iter().map(|directory| (directory, "credential", CREDENTIAL_PREFIX));
        let files = self.directories.iter().map(|directory| (directory, "file", ""));
        for (directory, source, prefix) in places.chain(files) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let changed = entry.metadata().and_then(|about| about.modified()).ok();
                let file = entry.file_name();
                let name = file.to_str().and_then(|file| file.strip_prefix(prefix));
                if let Some(name) = name.filter(|name| check_name(name).is_ok()) {
                    names.push((name.to_owned(), source, changed));
                }
            }
        }
        let variables = self.environment.keys().filter_map(|variable| variable.strip_prefix(PREFIX));
        names.extend(variables.map(|name| (name.to_ascii_lowercase(), "environment", None)));
        names
    }

    /// Where it looks, in words for an error.
    pub(super) fn places(&self, name: &str) -> Vec<String> {
        let credentials = self.credentials.iter().map(|directory| credential(directory, name));
        let files = credentials.chain(self.directories.iter().map(|directory| directory.join(name)));
        let mut places: Vec<String> = files.map(|path| path.display().to_string()).collect();
        places.push(format!("the variable {}", variable(name)));
        places
    }
}

fn credential(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{CREDENTIAL_PREFIX}{name}"))
}

fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn read_private(directory: &Path, name: &str) -> Result<Option<SecretValue>> {
    let Ok(about) = std::fs::metadata(directory) else { return Ok(None) };
    if about.mode() & 0o022 != 0 {
        let problem =
            format!("has mode {:03o}; others could put secrets in it: chmod 700", about.mode() & 0o7777);
        return Err(Error::storage(directory, problem));
    }
    read(&directory.join(name), name, Privacy::Owner)
}

fn read(path: &Path, name: &str, privacy: Privacy) -> Result<Option<SecretValue>> {
    let most = MAX_VALUE as u64 + 2;
    state_file::read(path, privacy, most)?.map(|content| SecretValue::new(name, &content)).transpose()
}
