//! Values of secrets: where they come from, how they are kept, and which of them a sandbox may use where.
//!
//! A sandbox never gets a value. It gets a placeholder, and on the way to a host that the secret is bound to the
//! daemon puts the value in its place (see [`crate::Opener`]).

mod placeholder;
mod seal;
mod set;
mod source;
#[cfg(test)]
mod tests;
mod value;
mod vault;

use crate::error::{Error, Result};
use hostel_sandbox::secret::SecretRef;
use std::collections::BTreeMap;
use std::time::SystemTime;

pub use placeholder::PlaceholderKey;
pub use set::SecretSet;
pub(crate) use set::{Bound, Form};
pub use source::SecretSource;
pub use value::SecretValue;
pub use vault::{SecretInfo, Vault};

/// Longest name of a secret, in bytes.
const MAX_NAME: usize = 63;

/// What is told of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSecret {
    /// Its name.
    pub name: String,
    /// Where the value is: `vault`, `credential`, `file` or `environment`.
    pub source: &'static str,
    /// When it last changed, where that is known.
    pub updated: Option<SystemTime>,
}

/// All places where a secret may have its value.
#[derive(Debug)]
pub struct Secrets {
    vault: Option<Vault>,
    source: SecretSource,
}

impl Secrets {
    /// Looks in the vault first, then in what the operator gave the daemon.
    #[must_use]
    pub fn new(vault: Option<Vault>, source: SecretSource) -> Self {
        Self { vault, source }
    }

    /// The values given over the API, where this daemon keeps such.
    #[must_use]
    pub fn vault(&self) -> Option<&Vault> {
        self.vault.as_ref()
    }

    /// What is known of all secrets, by name, without their values; of those in several places, the one that is used.
    /// Reads directories.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn list(&self) -> Result<Vec<KnownSecret>> {
        let mut known = BTreeMap::new();
        for name in self.source.names() {
            known.entry(name.0.clone()).or_insert(KnownSecret {
                name: name.0,
                source: name.1,
                updated: name.2,
            });
        }
        if let Some(vault) = &self.vault {
            for info in vault.list()? {
                let found =
                    KnownSecret { name: info.name.clone(), source: "vault", updated: Some(info.updated) };
                known.insert(info.name, found);
            }
        }
        Ok(known.into_values().collect())
    }

    /// The value of a secret now: from the vault, systemd's credentials, files, the environment, in this order.
    /// A place that holds a damaged or unsafe value is an error; the next place is not asked then. Reads files.
    ///
    /// # Errors
    /// [`Error::SecretNotFound`] naming the places; [`Error::SecretInvalid`], [`Error::Storage`].
    pub fn resolve(&self, secret: &SecretRef) -> Result<SecretValue> {
        let name = secret.name.as_str();
        check_name(name)?;
        if let Some(vault) = &self.vault
            && let Some(value) = vault.get(name)?
        {
            return Ok(value);
        }
        if let Some(value) = self.source.get(name)? {
            return Ok(value);
        }
        let mut looked: Vec<String> = self.vault.iter().map(|_| "the vault".to_owned()).collect();
        looked.extend(self.source.places(name));
        Err(Error::SecretNotFound { name: name.to_owned(), looked: looked.join(", ") })
    }
}

/// Checks a name before it becomes part of a path: 1 to 63 letters, digits, `_` and `-`, as in a [`SecretRef`].
fn check_name(name: &str) -> Result<()> {
    hostel_sandbox::id::check_name("name", name).map_err(|_| Error::SecretInvalid {
        name: name.chars().take(MAX_NAME).collect(),
        problem: "a name has 1 to 63 letters, digits, '_' and '-', and begins with a letter or digit"
            .to_owned(),
    })
}
