//! Identifiers. All share one grammar so that an id is safe in a path, a cgroup name, a label and a URL.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest identifier, in bytes: a DNS label (RFC 1035 §2.3.4), so that an id can be a host name.
pub const MAX_ID_LEN: usize = 63;

/// Checks `[a-z][a-z0-9-]{0,62}` with no `-` at the end.
fn check(kind: &'static str, text: &str) -> Result<()> {
    let shape = text.len() <= MAX_ID_LEN
        && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.ends_with('-');
    if shape {
        return Ok(());
    }
    let shown: String = text.chars().take(MAX_ID_LEN).collect();
    Err(Error::invalid(
        kind,
        format!(
            "{shown:?} is not an id: use 1–{MAX_ID_LEN} lowercase letters, digits and '-', starting with a letter and not ending with '-'"
        ),
    ))
}

/// Checks a name that people give: letters, digits, `_` and `-`, 1 to 63 of them, beginning with a letter or digit.
///
/// # Errors
/// [`Error::InvalidArgument`] naming the field.
pub fn check_name(field: &str, text: &str) -> Result<()> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if plain && (1..=MAX_ID_LEN).contains(&text.len()) && !text.starts_with(['_', '-']) {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!(
            "{text:.80?} is not a name: use 1–{MAX_ID_LEN} letters, digits, '_' and '-', not beginning with '_' or '-'"
        ),
    ))
}

/// Twelve random lowercase alphanumerics: 62 bits, enough that ids never meet on one node.
fn random_suffix() -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut bits = uuid::Uuid::new_v4().as_u128();
    (0..12)
        .map(|_| {
            let index = usize::try_from(bits % 36).unwrap_or(0);
            bits /= 36;
            char::from(ALPHABET[index])
        })
        .collect()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes an id chosen by a caller.
            ///
            /// # Errors
            /// [`Error::InvalidArgument`] where the text does not follow the grammar of ids.
            pub fn parse(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                check($kind, &text)?;
                Ok(Self(text))
            }

            /// Makes a new random id.
            #[must_use]
            pub fn generate() -> Self {
                Self(format!(concat!($prefix, "{}"), random_suffix()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// Names one sandbox on one node.
    SandboxId, "sandbox_id", "sb-"
);
id!(
    /// Names one process within its sandbox. Chosen by the caller or made by us; never used twice.
    ProcessId, "process_id", "p-"
);
id!(
    /// Names a template on one node.
    TemplateId, "template", "t-"
);
id!(
    /// Names a backend: `jail`, `docker`, `e2b`, `modal`.
    BackendName, "backend", "b-"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_leave_a_directory_is_refused() {
        for bad in ["", "-a", "a-", "A", "../x", "a/b", "a%2fb", "a b", "a\0b", "1a", "ä", &"a".repeat(64)] {
            assert!(SandboxId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(SandboxId::parse("a".repeat(63)).is_ok());
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_accepts_only_the_grammar(text in ".{0,80}") {
            if let Ok(id) = ProcessId::parse(text.clone()) {
                prop_assert!(id.as_str() == text && text.is_ascii() && !text.contains(['/', '.', '\0']));
            }
        }
    }

    #[test]
    fn generated_ids_follow_the_grammar_and_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| SandboxId::generate()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| SandboxId::parse(id.as_str()).is_ok()));
    }
}
