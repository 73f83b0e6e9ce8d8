//! Taking secrets out of answers.
//!
//! A host that is sent a secret may send it back: in an error page, a debug header, an echo. What matches a value, as
//! it is or in the encodings in which programs show such things, becomes the placeholder. This catches echoes; it is
//! no defence against a host that sets out to give the secret away.

use crate::secret::Bound;
use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{GeneralPurpose, general_purpose::NO_PAD};
use bytes::Bytes;
use secrecy::zeroize::Zeroizing;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

/// What to look for, and what to put in its place.
pub(super) struct Patterns {
    all: Vec<(Zeroizing<Vec<u8>>, Bytes)>,
    /// Which bytes a pattern begins with, and which pairs, a bit for each: most of a text is passed over by these.
    first: [bool; 256],
    pairs: Vec<u64>,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns").field("count", &self.all.len()).finish()
    }
}

/// What stands at a place of the text.
enum Found<'a> {
    /// A pattern of this length, and what replaces it.
    Pattern(usize, &'a [u8]),
    /// What may become a pattern when more text comes.
    Beginning,
    Nothing,
}

impl Patterns {
    /// The values of these secrets, and whole credentials with what stands for them.
    pub(super) fn new(bound: &[Bound], credentials: Vec<(Zeroizing<Vec<u8>>, Bytes)>) -> Self {
        let mut all = credentials;
        for secret in bound {
            let placeholder = Bytes::copy_from_slice(secret.placeholder.as_bytes());
            for value in secret.values() {
                let forms = forms(value.expose());
                all.extend(forms.into_iter().map(|form| (form, placeholder.clone())));
            }
        }
        all.retain(|(pattern, _)| pattern.len() > 1);
        let (mut first, mut pairs) = ([false; 256], vec![0; 1024]);
        for (pattern, _) in &all {
            first[usize::from(pattern[0])] = true;
            let (word, bit) = place(pattern[0], pattern[1]);
            pairs[word] |= bit;
        }
        Self { all, first, pairs }
    }

    /// Whether a pattern may stand at the beginning of this.
    fn may_begin(&self, rest: &[u8]) -> bool {
        match rest {
            [one, two, ..] => {
                let (word, bit) = place(*one, *two);
                self.pairs[word] & bit != 0
            }
            [one] => self.first[usize::from(*one)],
            [] => false,
        }
    }

    /// What stands at the beginning of `rest`. The longest pattern counts, so that the result does not depend on how
    /// the text is cut; `last` says that nothing comes behind it.
    fn at(&self, rest: &[u8], last: bool) -> Found<'_> {
        let mut found = Found::Nothing;
        let mut longest = 0;
        for (pattern, replacement) in &self.all {
            if pattern.len() > rest.len() {
                if !last && pattern.starts_with(rest) {
                    return Found::Beginning;
                }
            } else if pattern.len() > longest && rest.starts_with(pattern) {
                longest = pattern.len();
                found = Found::Pattern(longest, replacement);
            }
        }
        found
    }

    /// A whole text with the secrets taken out; `None` where it has none.
    pub(super) fn clean(self: &Arc<Self>, text: &[u8]) -> Option<Bytes> {
        let cleaned = Scrubber::new(Arc::clone(self)).push(Bytes::copy_from_slice(text), true);
        (cleaned != text).then_some(cleaned)
    }
}

/// Takes secrets out of a stream.
#[derive(Debug)]
pub(super) struct Scrubber {
    patterns: Arc<Patterns>,
    /// The end of what came so far, where it may be the beginning of a pattern. Never more than a pattern's length.
    held: Zeroizing<Vec<u8>>,
}

impl Scrubber {
    pub(super) fn new(patterns: Arc<Patterns>) -> Self {
        Self { patterns, held: Zeroizing::default() }
    }

    /// Takes the next part and gives what can be passed on; with `last` that is all that is left. Only what may be
    /// the beginning of a secret is held back.
    pub(super) fn push(&mut self, chunk: Bytes, last: bool) -> Bytes {
        let text = if self.held.is_empty() {
            chunk
        } else {
            let held = std::mem::take(&mut self.held);
            Bytes::from([held.as_slice(), &chunk].concat())
        };
        let mut out = Vec::new();
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            if !self.patterns.may_begin(&text[at..]) {
                at += 1;
                continue;
            }
            match self.patterns.at(&text[at..], last) {
                Found::Nothing => at += 1,
                Found::Beginning => break,
                Found::Pattern(length, replacement) => {
                    out.extend_from_slice(&text[done..at]);
                    out.extend_from_slice(replacement);
                    at += length;
                    done = at;
                }
            }
        }
        self.held.extend_from_slice(&text[at..]);
        if out.is_empty() {
            return text.slice(done..at);
        }
        out.extend_from_slice(&text[done..at]);
        Bytes::from(out)
    }
}

/// The place of a pair of bytes among the bits of all pairs.
fn place(one: u8, two: u8) -> (usize, u64) {
    let pair = usize::from(one) << 8 | usize::from(two);
    (pair / 64, 1 << (pair % 64))
}

/// The forms in which a value may stand in an answer.
fn forms(value: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![Zeroizing::new(value.as_bytes().to_vec())];
    for (upper, keep) in
        [(true, "-_.~"), (false, "-_.~"), (true, "-_.!~*'()"), (true, "-_.~/:@"), (true, "*-._")]
    {
        forms.push(percent(value, upper, keep, false));
        forms.push(percent(value, upper, keep, true));
    }
    // In JSON (RFC 8259 §7) two characters must be escaped, and a slash may be; in HTML five are.
    let json = value.replace('\\', "\\\\").replace('"', "\\\"");
    forms.push(Zeroizing::new(json.replace('/', "\\/").into_bytes()));
    forms.push(Zeroizing::new(json.into_bytes()));
    let html = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    forms.push(Zeroizing::new(html.replace('"', "&quot;").replace('\'', "&#39;").into_bytes()));
    forms.push(Zeroizing::new(html.into_bytes()));
    // By number, as Go, Gson and .NET write them in JSON, and Go, Handlebars, Mustache and Python in HTML.
    let named = [('\\', "\\\\"), ('"', "\\\"")];
    for set in ["&<>", "&<>='", "&<>'\"+`"] {
        forms.push(numbered(value, set, &named, |code| format!("\\u{code:04x}")));
        forms.push(numbered(value, set, &named, |code| format!("\\u{code:04X}")));
    }
    let named = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;")];
    forms.push(numbered(value, "+'\"", &named, |code| format!("&#{code};")));
    for set in ["'", "'`=", "'`=/"] {
        forms.push(numbered(value, set, &named, |code| format!("&#x{code:X};")));
        forms.push(numbered(value, set, &named, |code| format!("&#x{code:x};")));
    }
    for alphabet in [STANDARD, URL_SAFE] {
        for offset in 0..3 {
            forms.push(inside_base64(value, &alphabet, offset));
        }
        // Alone, to its end: longer than what is the same in every surrounding.
        let engine = GeneralPurpose::new(&alphabet, NO_PAD);
        forms.push(Zeroizing::new(engine.encode(value).into_bytes()));
    }
    forms.sort_by(|one, other| one.as_slice().cmp(other.as_slice()));
    forms.dedup();
    forms
}

/// The value in percent-encoding (RFC 3986 §2.1), or in the form encoding of the web with `+` for a space.
fn percent(value: &str, upper: bool, keep: &str, plus: bool) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(String::with_capacity(3 * value.len()));
    for character in value.chars() {
        // Values are ASCII; writing to a String cannot fail.
        let _ = match character {
            ' ' if plus => text.write_char('+'),
            _ if character.is_ascii_alphanumeric() || keep.contains(character) => text.write_char(character),
            _ if upper => write!(text, "%{:02X}", u32::from(character)),
            _ => write!(text, "%{:02x}", u32::from(character)),
        };
    }
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}

/// The value with the characters of `set` written by their number, and others as `named` says.
fn numbered(
    value: &str,
    set: &str,
    named: &[(char, &str)],
    number: impl Fn(u32) -> String,
) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(8 * value.len()));
    for character in value.chars() {
        let name = named.iter().find(|(own, _)| *own == character);
        match name {
            _ if set.contains(character) => text.extend_from_slice(number(u32::from(character)).as_bytes()),
            Some((_, name)) => text.extend_from_slice(name.as_bytes()),
            // Values are ASCII.
            None => text.push(u8::try_from(character).unwrap_or(b'?')),
        }
    }
    text
}

/// What is always the same in the base64 of a text in which the value stands `offset` bytes behind a multiple of
/// three, as behind a user's name in `Basic` credentials: the characters that hold bits of the value only.
fn inside_base64(value: &str, alphabet: &Alphabet, offset: usize) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(vec![0; offset]);
    text.extend_from_slice(value.as_bytes());
    let encoded = Zeroizing::new(GeneralPurpose::new(alphabet, NO_PAD).encode(&*text).into_bytes());
    // Each character holds six bits.
    let begin = (offset * 8).div_ceil(6);
    let end = text.len() * 8 / 6;
    Zeroizing::new(encoded.get(begin..end).unwrap_or_default().to_vec())
}
