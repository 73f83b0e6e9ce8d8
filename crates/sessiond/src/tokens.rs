//! Who may use the server: opaque tokens, one a line of a file.

use crate::error::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::path::Path;
use subtle::{Choice, ConstantTimeEq as _};

/// Fewest characters of a token.
const SHORTEST: usize = 16;
/// Most characters of a token.
const LONGEST: usize = 512;
/// Most tokens: each request is compared with all.
const MOST: usize = 1000;

/// Tokens that let somebody in. Only their hashes are kept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<[u8; 32]>);

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// Reads a file with one token a line. Empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be read, others may read it, or a line is no token.
    pub fn read(path: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let failed = |problem: std::io::Error| Error::file(path, problem);
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(Error::file(path, "everybody may read or write these tokens: chmod o-rwx"));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?)
            .map_err(|problem| Error::file(path, problem))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let token = line.trim();
            if token.is_empty() || token.starts_with('#') {
                continue;
            }
            let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
            if !plain || !(SHORTEST..=LONGEST).contains(&token.len()) {
                return Err(format!(
                    "line {}: a token has {SHORTEST} to {LONGEST} printable ASCII characters without spaces",
                    index + 1
                ));
            }
            tokens.push(Sha256::digest(token).into());
        }
        match tokens.len() {
            0 => Err("there is no token in it".to_owned()),
            1..=MOST => Ok(Self(tokens)),
            many => Err(format!("{many} tokens, at most {MOST}")),
        }
    }

    /// Whether there is none, so that everybody is let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them. Takes the same time for each that is not too long.
    #[must_use]
    pub fn accept(&self, token: &str) -> bool {
        if token.len() > LONGEST {
            return false;
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&hash)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_a_file_are_accepted_and_not_shown() {
        let tokens = Tokens::parse("# ours\n\n first-token-of-two \nsecond-token-of-two\n").unwrap();
        assert!(tokens.accept("first-token-of-two") && tokens.accept("second-token-of-two"));
        for wrong in ["", "# ours", "first-token-of-tw", "first-token-of-two "] {
            assert!(!tokens.accept(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{tokens:?}"), "2 tokens");
        for wrong in ["", "# nothing", "short", "sixteen characters and spaces"] {
            assert!(Tokens::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
