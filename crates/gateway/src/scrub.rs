//! Taking an upstream's key out of its answers.
//!
//! An upstream, or a proxy in front of it, may send back what it was sent: in an error or in a header. Where the key
//! stands there as it is, it becomes asterisks, one for each byte: a length that was told stays true. This catches
//! echoes; it is no defence against an upstream that gives its key away in another form.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use memchr::memchr_iter;
use memchr::memmem::Finder;
use std::sync::Arc;

/// Shorter keys are not looked for: one of a few letters stands in every answer by chance.
const SHORTEST: usize = 8;
const MASK: u8 = b'*';

/// A key, as it is looked for.
#[derive(Clone)]
pub(crate) struct Pattern(Arc<Finder<'static>>);

impl Pattern {
    /// `None` for a key that is too short.
    pub(crate) fn new(key: &str) -> Option<Self> {
        (key.len() >= SHORTEST).then(|| Self(Arc::new(Finder::new(key).into_owned())))
    }

    /// Masks the key in the values of headers.
    pub(crate) fn clean(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if let Some((masked, _)) = self.mask(value.as_bytes()) {
                // Asterisks may stand in every value, so there is no error.
                *value = HeaderValue::from_bytes(&masked).unwrap_or_else(|_| HeaderValue::from_static("*"));
            }
        }
    }

    /// A text with each key in it masked, and where the last one ends; `None` where it has none.
    fn mask(&self, text: &[u8]) -> Option<(Vec<u8>, usize)> {
        let mut found: Option<(Vec<u8>, usize)> = None;
        for at in self.0.find_iter(text) {
            let (masked, end) = found.get_or_insert_with(|| (text.to_vec(), 0));
            *end = at + self.0.needle().len();
            masked[at..*end].fill(MASK);
        }
        found
    }

    /// How many bytes at the end of a text may be the beginning of a key.
    fn begun(&self, text: &[u8]) -> usize {
        let key = self.0.needle();
        let tail = &text[text.len().saturating_sub(key.len() - 1)..];
        let mut ends = memchr_iter(key[0], tail).map(|at| &tail[at..]);
        ends.find(|end| key.starts_with(end)).map_or(0, <[u8]>::len)
    }
}

/// Masks a key in a stream.
pub(crate) struct Scrubber {
    pattern: Option<Pattern>,
    /// The end of what came so far, where it may be the beginning of a key: always less than a whole one.
    held: Vec<u8>,
}

impl Scrubber {
    pub(crate) fn new(pattern: Option<Pattern>) -> Self {
        Self { pattern, held: Vec::new() }
    }

    /// Takes the next piece and gives what can be passed on: all but what may be the beginning of a key. No key has an
    /// end of line, so an event is never held back. A piece with nothing of a key is not copied.
    pub(crate) fn push(&mut self, piece: Bytes) -> Bytes {
        let Some(pattern) = &self.pattern else { return piece };
        let piece = if self.held.is_empty() {
            piece
        } else {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(&piece);
            Bytes::from(joined)
        };
        let (mut text, end) = match pattern.mask(&piece) {
            None => (piece, 0),
            Some((masked, end)) => (Bytes::from(masked), end),
        };
        let passed = text.len() - pattern.begun(&text[end..]);
        self.held.extend_from_slice(&text[passed..]);
        text.truncate(passed);
        text
    }

    /// What is held back: at the end it was no key.
    pub(crate) fn rest(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "sk-ant-api03-key";

    proptest! {
        #[test]
        fn any_split_gives_what_the_whole_gives(
            key in "[ab*]{8,10}",
            // `None` stands for the key.
            parts in prop::collection::vec(
                prop_oneof![Just(None::<String>), "[ab*]{0,9}".prop_map(Some)],
                0..12,
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text: String = parts.iter().map(|part| part.as_deref().unwrap_or(&key)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let pattern = Pattern::new(&key).unwrap();
            let whole = pattern.mask(text.as_bytes()).map_or_else(|| text.clone().into_bytes(), |(whole, _)| whole);
            let mut scrubber = Scrubber::new(Some(pattern));
            let (mut out, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&text.as_bytes()[from..cut])));
                prop_assert!(scrubber.held.len() < key.len());
                prop_assert_eq!(out.len() + scrubber.held.len(), cut);
                from = cut;
            }
            out.extend_from_slice(&scrubber.rest());
            prop_assert_eq!(out, whole);
        }
    }

    #[test]
    fn keys_are_masked_wherever_they_are_split() {
        let text = format!("data: Bearer {KEY}{KEY} sk-ant-api03-ke\n\n");
        let expected = format!("data: Bearer {} sk-ant-api03-ke\n\n", "*".repeat(2 * KEY.len()));
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let mut scrubber = Scrubber::new(Pattern::new(KEY));
            let mut out = scrubber.push(Bytes::copy_from_slice(first.as_bytes())).to_vec();
            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(second.as_bytes())));
            assert_eq!(out, expected.as_bytes(), "nothing is held at the end of an event; cut at {cut}");
        }
    }

    #[test]
    fn what_has_nothing_of_a_key_is_not_copied() {
        let mut scrubber = Scrubber::new(Pattern::new(KEY));
        let piece = Bytes::from(b"data: {\"text\":\"a desk-ant, sk-ant-api03-k\"}\n\n".to_vec());
        let passed = scrubber.push(piece.clone());
        assert_eq!((passed.as_ptr(), passed.len()), (piece.as_ptr(), piece.len()));
    }

    #[test]
    fn the_beginning_of_a_key_is_no_key_at_the_end() {
        let mut scrubber = Scrubber::new(Pattern::new(KEY));
        assert_eq!(scrubber.push(Bytes::from_static(b"desk-an")), "de");
        assert_eq!(scrubber.rest(), "sk-an");
        assert_eq!(scrubber.rest(), "");
    }

    #[test]
    fn short_keys_are_not_looked_for() {
        assert!(Pattern::new("").is_none() && Pattern::new("1234567").is_none());
        assert!(Pattern::new("12345678").is_some());
        assert_eq!(Scrubber::new(None).push(Bytes::from_static(b"1234567")), "1234567");
    }
}
