//! Bytes in JSON: as text where they are UTF-8, else in base64 (RFC 4648 §4).

/// Bytes as JSON can hold them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text {
    Plain(String),
    Base64(String),
}

impl Text {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Base64(base64(bytes)),
        }
    }
}

/// Bytes in base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4_usize {
            let index = usize::try_from(bits >> (18 - 6 * position) & 63).unwrap_or(0);
            text.push(if position <= group.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(Text::of(b"ok"), Text::Plain("ok".to_owned()));
        assert_eq!(Text::of(&[0xff, 0xfe]), Text::Base64("//4=".to_owned()));
    }
}
