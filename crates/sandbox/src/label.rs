//! Labels and the selectors over them.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Labels of a sandbox or pool.
pub type Labels = BTreeMap<String, String>;

/// Most labels on one object.
pub const MAX_LABELS: usize = 64;
/// Longest key or value, in bytes.
pub const MAX_LABEL_LEN: usize = 256;

/// Checks number, length and characters of labels.
///
/// # Errors
/// [`Error::InvalidArgument`] naming the label.
pub fn validate(labels: &Labels) -> Result<()> {
    if labels.len() > MAX_LABELS {
        return Err(Error::invalid("labels", format!("{} labels, at most {MAX_LABELS}", labels.len())));
    }
    for (key, value) in labels {
        let key_ok = !key.is_empty() && key.len() <= MAX_LABEL_LEN && key.chars().all(is_key_char);
        if !key_ok {
            return Err(Error::invalid(
                "labels",
                format!("{:.80?} is not a label key: use letters, digits, '.', '-', '_', '/'", key),
            ));
        }
        if value.len() > MAX_LABEL_LEN || value.chars().any(char::is_control) {
            return Err(Error::invalid(
                format!("labels.{key}"),
                "a value has at most 256 bytes and no control characters",
            ));
        }
    }
    Ok(())
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/')
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Equals(String, String),
    Differs(String, String),
    Exists(String),
    Missing(String),
}

/// A conjunction over labels in the equality syntax of Kubernetes: `tier=web,env!=prod,gpu,!old`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Condition>);

impl Selector {
    /// Reads a selector; the empty text selects everything.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the part at fault.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > 4096 {
            return Err(Error::invalid("label_selector", "longer than 4096 bytes"));
        }
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(condition)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether the labels fulfil every condition. A missing key differs from every value.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Equals(key, value) => labels.get(key) == Some(value),
            Condition::Differs(key, value) => labels.get(key) != Some(value),
            Condition::Exists(key) => labels.contains_key(key),
            Condition::Missing(key) => !labels.contains_key(key),
        })
    }
}

fn condition(part: &str) -> Result<Condition> {
    let key = |key: &str| {
        let key = key.trim();
        if key.is_empty() || !key.chars().all(is_key_char) {
            return Err(Error::invalid(
                "label_selector",
                format!("{part:?}: write key=value, key!=value, key or !key"),
            ));
        }
        Ok(key.to_owned())
    };
    if let Some((left, right)) = part.split_once("!=") {
        return Ok(Condition::Differs(key(left)?, right.trim().to_owned()));
    }
    if let Some((left, right)) = part.split_once('=') {
        return Ok(Condition::Equals(key(left)?, right.trim_start_matches('=').trim().to_owned()));
    }
    match part.strip_prefix('!') {
        Some(rest) => Ok(Condition::Missing(key(rest)?)),
        None => Ok(Condition::Exists(key(part)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn selectors_select() {
        let labels: Labels = [("tier", "web"), ("gpu", "")].map(|(k, v)| (k.into(), v.into())).into();
        for (text, expected) in [
            ("", true),
            ("tier=web", true),
            ("tier==web, gpu", true),
            ("tier!=web", false),
            ("env!=prod", true),
            ("!old", true),
            ("!gpu", false),
            ("env=prod", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        assert!(Selector::parse("=x").is_err() && Selector::parse("a b").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,60}") { let _ = Selector::parse(&text); }
    }
}
