//! The value of a secret, in memory.

use crate::error::{Error, Result};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;

/// Shortest value, in bytes. Shorter ones stand in answers by chance, and removing them would garble these.
const MIN_VALUE: usize = 8;
/// Longest value, in bytes: it must fit in a header.
pub(super) const MAX_VALUE: usize = 8 * 1024;

/// A secret's value: shown by nothing, wiped when the last copy goes, and cheap to clone.
#[derive(Debug, Clone)]
pub struct SecretValue(Arc<SecretString>);

impl SecretValue {
    /// Takes a value from its bytes. One line end at the end is dropped, as files have it.
    ///
    /// # Errors
    /// [`Error::SecretInvalid`] where it is not one line of 8 to 8192 printable ASCII characters, since only such go
    /// into a header (RFC 9110 §5.5).
    pub fn new(name: &str, bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let invalid =
            |problem: &str| Error::SecretInvalid { name: name.to_owned(), problem: problem.to_owned() };
        if !(MIN_VALUE..=MAX_VALUE).contains(&bytes.len()) {
            return Err(invalid("its value has 8 to 8192 characters"));
        }
        if !bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
            || bytes.starts_with(b" ")
            || bytes.ends_with(b" ")
        {
            return Err(invalid("its value is one line of printable ASCII, with no space at its ends"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("its value is not text"))?;
        Ok(Self(Arc::new(SecretString::from(text))))
    }

    /// The value itself. What is made of it must not be logged and must not outlive the request.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A copy that is wiped when dropped.
    pub(crate) fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.expose().as_bytes().to_vec())
    }
}
