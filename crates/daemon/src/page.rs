//! Pages: how many at a time, and opaque tokens that say where the next begins.

use crate::status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tonic::Status;

/// Where nothing is asked for.
const DEFAULT: usize = 50;
/// The most there is at a time.
const MOST: usize = 1000;
/// Bytes of the digest in a token: enough to notice tokens of other listings and damage.
const DIGEST: usize = 12;

/// What `page_size` means: 0 is 50, above 1000 is 1000.
///
/// # Errors
/// INVALID_ARGUMENT where it is negative.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(crate) fn size(asked: i32) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(DEFAULT),
        Ok(size) => Ok(size.min(MOST)),
        Err(_) => Err(status::invalid("page_size", "must not be negative")),
    }
}

/// A token for the page after `position`, of the listing that `filter` describes.
pub(crate) fn token(position: &impl Serialize, filter: &[&str]) -> String {
    let position = serde_json::to_vec(position).unwrap_or_default();
    let mut bytes = digest(&position, filter).to_vec();
    bytes.extend_from_slice(&position);
    hex(&bytes)
}

/// The position in a token; `None` for the first page.
///
/// # Errors
/// INVALID_ARGUMENT where it is none of ours, was changed, or belongs to a listing with another filter.
#[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
pub(crate) fn position<T: DeserializeOwned>(token: &str, filter: &[&str]) -> Result<Option<T>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        status::invalid(
            "page_token",
            "not a token of this listing: pass next_page_token with the same filters",
        )
    };
    let bytes = unhex(token).filter(|bytes| bytes.len() > DIGEST).ok_or_else(wrong)?;
    let (seal, position) = bytes.split_at(DIGEST);
    if digest(position, filter) != seal {
        return Err(wrong());
    }
    serde_json::from_slice(position).map(Some).map_err(|_| wrong())
}

fn digest(position: &[u8], filter: &[&str]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    hash.update(b"hostel page 1");
    for part in filter.iter().map(|part| part.as_bytes()).chain([position]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut seal = [0; DIGEST];
    seal.copy_from_slice(&hash.finalize()[..DIGEST]);
    seal
}

/// Bytes as lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|digit| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_bounded() {
        assert_eq!((size(0).unwrap(), size(7).unwrap(), size(5000).unwrap()), (50, 7, 1000));
        assert!(size(-1).is_err());
    }

    proptest! {
        #[test]
        fn tokens_round_trip_and_belong_to_their_filter(name in ".{0,40}", filter in ".{0,20}", other in ".{0,20}") {
            let made = token(&name, &[&filter]);
            prop_assert_eq!(position::<String>(&made, &[&filter]).unwrap(), Some(name));
            if filter != other {
                prop_assert!(position::<String>(&made, &[&other]).is_err());
            }
        }

        #[test]
        fn a_changed_token_is_refused(name in ".{1,20}", at in 0usize..200, digit in "[0-9a-f]") {
            let made = token(&name, &[]);
            let at = at % made.len();
            let mut changed = made.clone();
            changed.replace_range(at..=at, &digit);
            if changed != made {
                prop_assert!(position::<String>(&changed, &[]).is_err());
            }
        }

        #[test]
        fn reading_never_panics(text in ".{0,60}") { let _ = position::<String>(&text, &[]); }
    }
}
