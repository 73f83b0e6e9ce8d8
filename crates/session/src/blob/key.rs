//! Names of blobs.

use crate::error::{Error, Result};

const MAX_BYTES: usize = 512;

/// Checks a name: what a directory and a bucket both take, and what cannot lead out of them.
pub(super) fn check(key: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(fits);
    if key.len() <= MAX_BYTES && key.split('/').all(good) {
        return Ok(());
    }
    Err(Error::invalid(
        "key",
        "a blob's name has 1 to 512 bytes: parts of letters, digits, '.', '_' and '-' with '/' between them, \
         none of which begins with '.'",
    ))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names() {
        for good in ["a", "sessions/5e0c-2/transcript.jsonl", "A_b/c.tar.zst", &"x".repeat(512)] {
            check(good).unwrap();
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            ".a",
            "a/.b",
            "a b",
            "ä",
            "a\0",
            "a\\b",
            &"x".repeat(513),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
