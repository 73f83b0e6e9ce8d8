//! Lines that are bound to each other.

use sha2::{Digest, Sha256};

/// Bytes of a hash.
pub(super) type Hash = [u8; 32];

/// Where a chain has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// The last line's number; 0 before the first.
    pub(super) sequence: u64,
    /// The last line's hash.
    pub(super) hash: Hash,
}

impl Link {
    pub(super) const START: Self = Self { sequence: 0, hash: [0; 32] };

    /// The next link, for a record.
    pub(super) fn next(self, record: &str) -> Self {
        let sequence = self.sequence + 1;
        let mut hash = Sha256::new();
        hash.update(self.hash);
        hash.update(sequence.to_be_bytes());
        hash.update(record.as_bytes());
        Self { sequence, hash: hash.finalize().into() }
    }

    /// Writes a record's line after this link; returns the link that it makes.
    pub(super) fn write(self, record: &str, out: &mut Vec<u8>) -> Self {
        let next = self.next(record);
        let line = format!(
            "{{\"sequence\":{},\"previous\":\"{}\",\"hash\":\"{}\",\"record\":{record}}}\n",
            next.sequence,
            hex(&self.hash),
            hex(&next.hash),
        );
        out.extend_from_slice(line.as_bytes());
        next
    }
}

/// A line as it was read: what it says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) previous: Hash,
    pub(super) link: Link,
    pub(super) record: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line without its end. It has exactly the form in which it was written.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (number, rest) = text.strip_prefix("{\"sequence\":")?.split_once(",\"previous\":\"")?;
        let sequence: u64 = number.parse().ok().filter(|parsed: &u64| parsed.to_string() == number)?;
        let (previous, rest) = rest.split_at_checked(64)?;
        let (hash, rest) = rest.strip_prefix("\",\"hash\":\"")?.split_at_checked(64)?;
        let record = rest.strip_prefix("\",\"record\":")?.strip_suffix('}')?;
        let link = Link { sequence, hash: unhex(hash)? };
        Some(Self { previous: unhex(previous)?, link, record })
    }

    /// Whether its hash is that of its content.
    pub(super) fn is_whole(&self) -> bool {
        let Some(before) = self.link.sequence.checked_sub(1) else { return false };
        Link { sequence: before, hash: self.previous }.next(self.record) == self.link
    }
}

/// A hash in hexadecimal digits.
pub(super) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(hash)
}
