//! What stands in a sandbox for a secret.

use super::seal::load_or_make_key;
use crate::error::Result;
use crate::state_file;
use hostel_sandbox::id::SandboxId;
use ring::hmac;
use std::fmt;
use std::fmt::Write as _;
use std::path::Path;

/// Bytes of randomness in a placeholder: nobody guesses another sandbox's.
const RANDOM: usize = 16;

/// The key that placeholders are derived from, so that a sandbox keeps its own when the daemon starts again.
pub struct PlaceholderKey(hmac::Key);

impl fmt::Debug for PlaceholderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlaceholderKey(..)")
    }
}

impl PlaceholderKey {
    /// Reads `placeholder.key` in the state directory, or makes it.
    ///
    /// # Errors
    /// [`crate::Error::Storage`] where it cannot be read or made, or is not private.
    pub fn load_or_create(directory: &Path) -> Result<Self> {
        state_file::make_directory(directory)?;
        let key = load_or_make_key(&directory.join("placeholder.key"), true)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The placeholder of a secret in a sandbox: `hostel-secret-NAME-` and 32 hexadecimal digits. Always the same.
    #[must_use]
    pub fn placeholder(&self, sandbox: &SandboxId, name: &str) -> String {
        // Neither part can hold a NUL, so no two pairs give the same text.
        let tag = hmac::sign(&self.0, format!("{sandbox}\0{name}").as_bytes());
        let mut text = format!("hostel-secret-{name}-");
        for byte in tag.as_ref().iter().take(RANDOM) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}
