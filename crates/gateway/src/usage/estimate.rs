//! What a request used that went out, and whose response never told.

use super::{BYTES_PER_TOKEN, MAX_MODEL, Tokens};
use serde::Deserialize;
use std::borrow::Cow;

/// More input than this no model takes, in tokens.
const MOST_INPUT: u64 = 1_000_000;

/// A body that names a model twice is not read: its dearest price counts.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
}

/// The model that a request names, where it does so properly.
pub(crate) fn asked_model(body: &[u8]) -> Option<String> {
    let Asked { model } = serde_json::from_slice(body).ok()?;
    Some(model[..model.floor_char_boundary(MAX_MODEL)].to_owned())
}

/// Its prompt, at about four bytes a token, nothing of it cached.
pub(crate) fn prompt(body: &[u8]) -> Tokens {
    let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
    Tokens { input: bytes.div_ceil(BYTES_PER_TOKEN).min(MOST_INPUT), ..Tokens::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_read_wherever_it_stands_but_not_twice() {
        assert_eq!(asked_model(br#"{"messages":[{"model":"x"}],"model":"m\u0031"}"#).as_deref(), Some("m1"));
        for wrong in [r#"{"model":"cheap","model":"dear"}"#, r#"{"model":1}"#, "", r#"{"model":"m""#] {
            assert_eq!(asked_model(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(
            asked_model(format!(r#"{{"model":"{}"}}"#, "ä".repeat(999)).as_bytes()).unwrap().len(),
            MAX_MODEL
        );
    }

    #[test]
    fn prompts_are_estimated_within_what_models_take() {
        assert_eq!((prompt(b"").total(), prompt(b"12345").total()), (0, 2));
        assert_eq!(prompt(&vec![b'x'; 5_000_000]).input, MOST_INPUT);
    }
}
