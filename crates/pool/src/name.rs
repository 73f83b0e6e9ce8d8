//! Names of pools.

use hostel_sandbox::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes.
const MAX_LEN: usize = 63;

/// Names a pool on its node: `[a-z][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolName(String);

impl PoolName {
    /// Takes a name that somebody chose.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] of field `name` where the text does not follow the grammar.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let shape = text.len() <= MAX_LEN
            && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if shape {
            return Ok(Self(text));
        }
        let shown: String = text.chars().take(MAX_LEN).collect();
        Err(Error::invalid(
            "name",
            format!(
                "{shown:?} is not a pool's name: use 1–{MAX_LEN} lowercase letters, digits and '-', a letter first"
            ),
        ))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PoolName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for PoolName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<PoolName> for String {
    fn from(name: PoolName) -> Self {
        name.0
    }
}

impl AsRef<str> for PoolName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "web-2", "a-", &"a".repeat(63)] {
            assert_eq!(good.parse::<PoolName>().unwrap().to_string(), good);
        }
        for bad in ["", "1a", "-a", "A", "a_b", "a/b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<PoolName>().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<PoolName>("\"../x\"").is_err());
    }
}
