//! Names of sessions.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a session: a uuid unless somebody chose another; 1 to 128 letters, digits, `_`, `-`, beginning with a
/// letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "5e0cf2f8-1f49-4a0b-9a0e-3b8f9a4f7c11")]
pub struct SessionId(String);

impl SessionId {
    /// A new one, that nobody has.
    #[must_use]
    pub fn generate() -> Self {
        Self(new_id())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An id that nobody has: a random uuid.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl TryFrom<String> for SessionId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if plain && (1..=128).contains(&text.len()) && !text.starts_with(['_', '-']) {
            return Ok(Self(text));
        }
        Err(Error::invalid(
            "id",
            "a session's id has 1 to 128 letters, digits, '_' and '-', and begins with a letter or digit",
        ))
    }
}

impl std::str::FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::try_from(text.to_owned())
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
