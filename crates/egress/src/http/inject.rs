//! Putting secrets into a request's headers.

use super::denied::Denied;
use crate::secret::{Bound, Form};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use secrecy::zeroize::Zeroizing;

/// Base64 as senders write it, with its padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const BASIC: &[u8] = b"basic ";
/// Most bytes of `Basic` credentials with placeholders in a request: each place of the answer is compared with all.
const MAX_CREDENTIALS: usize = 2048;

/// What was put in.
#[derive(Default)]
pub(super) struct Filled {
    /// The names of the secrets that are in the request now.
    pub(super) used: Vec<String>,
    /// `Basic` credentials as they are sent, each with what the sandbox had written.
    pub(super) credentials: Vec<(Zeroizing<Vec<u8>>, Bytes)>,
}

/// Puts these secrets into the headers.
///
/// # Errors
/// The answer where a secret is needed and has no value.
pub(super) fn fill(headers: &mut HeaderMap, bound: &[Bound]) -> Result<Filled, Denied> {
    let mut filled = Filled::default();
    let mut use_value = |secret: &Bound| match &secret.value {
        Some(value) => {
            if !filled.used.contains(&secret.name) {
                filled.used.push(secret.name.clone());
            }
            Ok(value.clone())
        }
        None => {
            let message = format!("the secret {:?} has no value on this node now", secret.name);
            Err(Denied::gateway("secret_unavailable", message))
        }
    };
    let mut credentials = Vec::new();
    for header in headers.values_mut() {
        let mut text: Option<Zeroizing<Vec<u8>>> = None;
        for secret in bound.iter().filter(|secret| secret.form == Form::Placeholder) {
            let now = text.as_deref().map_or(header.as_bytes(), Vec::as_slice);
            if !holds(now, &secret.placeholder) {
                continue;
            }
            let value = use_value(secret)?;
            text = fill_in(now, &secret.placeholder, value.expose()).map(Zeroizing::new).or(text);
        }
        if let Some(text) = text {
            if is_basic(&text) {
                let written =
                    Bytes::copy_from_slice(header.as_bytes().get(BASIC.len()..).unwrap_or_default());
                let before: usize = credentials.iter().map(|(_, written): &(_, Bytes)| written.len()).sum();
                if before + written.len() > MAX_CREDENTIALS {
                    return Err(Denied::bad("bad_request", "Basic credentials with a secret are too long"));
                }
                credentials.push((Zeroizing::new(text[BASIC.len()..].to_vec()), written));
            }
            *header = sensitive(&text)?;
        }
    }
    for secret in bound {
        let Form::Header(name, before, after) = &secret.form else { continue };
        let value = use_value(secret)?;
        let text = Zeroizing::new([before, value.expose(), after].concat());
        headers.insert(name.clone(), sensitive(text.as_bytes())?);
    }
    filled.credentials = credentials;
    Ok(filled)
}

/// A header's value that HPACK does not index and Debug does not show.
fn sensitive(text: &[u8]) -> Result<HeaderValue, Denied> {
    let mut value = HeaderValue::from_bytes(text)
        .map_err(|_| Denied::bad("bad_request", "a header's value has characters that it cannot have"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_basic(text: &[u8]) -> bool {
    text.get(..BASIC.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(BASIC))
}

fn holds(text: &[u8], placeholder: &str) -> bool {
    fill_in(text, placeholder, "").is_some()
}

/// Puts a value in place of the placeholder, in plain text and inside the base64 of `Basic` credentials (RFC 7617).
/// `None` where the placeholder is not there.
fn fill_in(text: &[u8], placeholder: &str, value: &str) -> Option<Vec<u8>> {
    let plain = replace(text, placeholder.as_bytes(), value.as_bytes());
    if plain.is_some() || !is_basic(text) {
        return plain;
    }
    let (scheme, credentials) = text.split_at(BASIC.len());
    let decoded = Zeroizing::new(LENIENT.decode(credentials.trim_ascii()).ok()?);
    let filled = Zeroizing::new(replace(&decoded, placeholder.as_bytes(), value.as_bytes())?);
    Some([scheme, STANDARD.encode(&*filled).as_bytes()].concat())
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|part| part == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    if rest.len() == text.len() {
        return None;
    }
    out.extend_from_slice(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_plain_and_in_basic_credentials() {
        assert_eq!(fill_in(b"Bearer PH", "PH", "v").unwrap(), b"Bearer v");
        assert_eq!(fill_in(b"a=PH; b=PH", "PH", "v").unwrap(), b"a=v; b=v");
        assert_eq!(fill_in(b"Bearer other", "PH", "v"), None);
        let sent = [b"bAsIc ", STANDARD.encode("user:PH").trim_end_matches('=').as_bytes()].concat();
        let filled = fill_in(&sent, "PH", "value").unwrap();
        assert_eq!(STANDARD.decode(&filled[6..]).unwrap(), b"user:value");
        assert_eq!(fill_in(b"Basic !!!", "PH", "v"), None);
        assert_eq!(fill_in(b"Basic", "PH", "v"), None);
    }
}
