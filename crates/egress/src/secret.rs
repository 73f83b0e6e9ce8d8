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

pub use placeholder::PlaceholderKey;
pub use set::SecretSet;
pub(crate) use set::{Bound, Form};
pub use source::SecretSource;
pub use value::SecretValue;
pub use vault::{SecretInfo, Vault};

/// Longest name of a secret, in bytes.
const MAX_NAME: usize = 63;

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
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if plain && (1..=MAX_NAME).contains(&name.len()) && !name.starts_with(['_', '-']) {
        return Ok(());
    }
    Err(Error::SecretInvalid {
        name: name.chars().take(MAX_NAME).collect(),
        problem: "a name has 1 to 63 letters, digits, '_' and '-', and begins with a letter or digit"
            .to_owned(),
    })
}
