//! Reads the first head of HTTP on a connection, only to know whom it is for. The connection is served by
//! [`crate::http`], which reads it again and decides each request.

use crate::hello::Read;

/// Most header fields that are looked at.
const MAX_FIELDS: usize = 128;

/// The first request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    /// Whether a body follows.
    pub(crate) body: bool,
    /// Bytes of the head with the empty line.
    pub(crate) length: usize,
}

/// Reads a head.
pub(crate) fn read(bytes: &[u8]) -> Read<Head> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Read::More,
        Err(_) => return Read::Bad("not an HTTP/1.1 request"),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Read::Bad("not an HTTP/1.1 request");
    };
    let mut head =
        Head { method: method.to_owned(), target: target.to_owned(), host: None, body: false, length };
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("host") {
            if head.host.is_some() {
                return Read::Bad("two Host fields");
            }
            let Ok(host) = std::str::from_utf8(field.value) else {
                return Read::Bad("a Host that is not a host");
            };
            head.host = Some(host.trim().to_owned());
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = true;
        } else if field.name.eq_ignore_ascii_case("content-length") {
            head.body |= field.value.trim_ascii() != b"0";
        }
    }
    Read::Done(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_are_read() {
        let text = b"GET /a HTTP/1.1\r\nHost: Example.com\r\n\r\nrest";
        let Read::Done(head) = read(text) else { panic!() };
        assert_eq!((head.method.as_str(), head.host.as_deref()), ("GET", Some("Example.com")));
        assert_eq!(&text[head.length..], b"rest");
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: a\r\n"), Read::More);
        assert!(matches!(read(b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"), Read::Bad(_)));
        assert!(matches!(read(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"), Read::Bad(_)));
        assert!(matches!(read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Read::Bad(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[b"GET / HTTP/1.1\r\n", &bytes[..]].concat());
        }
    }
}
