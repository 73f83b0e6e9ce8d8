//! Bytes as digits, for labels and names of files.

use sha2::{Digest as _, Sha256};

/// Bytes as lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name for what may be of any length and have any characters: so many bytes of its SHA-256 in digits, at most 32.
pub(crate) fn name_of(content: impl AsRef<[u8]>, bytes: usize) -> String {
    hex(&Sha256::digest(content)[..bytes])
}
