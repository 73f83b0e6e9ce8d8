//! What a request used that went out, and whose response never told.

use super::{BYTES_PER_TOKEN, Tokens, model_name};
use serde::Deserialize;
use std::borrow::Cow;

/// More input than this no model takes, in tokens.
const MOST_INPUT: u64 = 1_000_000;

/// A body that names a model twice is not read: its dearest price counts.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    speed: Option<Cow<'a, str>>,
}

/// What a request asks for, as far as its price depends on it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub model: String,
    /// Whether it asks for the dearer speed.
    pub fast: bool,
}

/// What a request asks for, where it does so properly.
pub(crate) fn asked(body: &[u8]) -> Option<Asked> {
    let Body { model, speed } = serde_json::from_slice(body).ok()?;
    let model = model_name(&model);
    Some(Asked { model, fast: speed.as_deref() == Some("fast") })
}

/// Its prompt, at about four bytes a token, nothing of it cached.
pub(crate) fn prompt(body: &[u8]) -> Tokens {
    let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
    Tokens { input: bytes.div_ceil(BYTES_PER_TOKEN).min(MOST_INPUT), ..Tokens::default() }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_MODEL;
    use super::*;

    #[test]
    fn the_model_is_read_wherever_it_stands_but_not_twice() {
        let model = |body: &str| asked(body.as_bytes()).map(|asked| asked.model);
        assert_eq!(model(r#"{"messages":[{"model":"x"}],"model":"m\u0031"}"#).as_deref(), Some("m1"));
        for wrong in [r#"{"model":"cheap","model":"dear"}"#, r#"{"model":1}"#, "", r#"{"model":"m""#] {
            assert_eq!(model(wrong), None, "{wrong}");
        }
        assert_eq!(model(&format!(r#"{{"model":"{}"}}"#, "ä".repeat(999))).unwrap().len(), MAX_MODEL);
    }

    #[test]
    fn the_dearer_speed_is_read() {
        for (rest, fast) in [
            ("", false),
            (r#","speed":"fast""#, true),
            (r#","speed":"standard""#, false),
            (r#","speed":null"#, false),
        ] {
            let body = format!(r#"{{"model":"m"{rest}}}"#);
            assert_eq!(asked(body.as_bytes()), Some(Asked { model: "m".to_owned(), fast }), "{body}");
        }
    }

    #[test]
    fn prompts_are_estimated_within_what_models_take() {
        assert_eq!((prompt(b"").total(), prompt(b"12345").total()), (0, 2));
        assert_eq!(prompt(&vec![b'x'; 5_000_000]).input, MOST_INPUT);
    }
}
