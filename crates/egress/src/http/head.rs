//! The strict reading of an HTTP/1.1 request's head.
//!
//! A parser of the kind that most programs use is lenient: it takes a bare line feed for a line end, or one of two
//! lengths. Two such parsers that are lenient in different ways can be made to see different requests ("request
//! smuggling"). So a head is first checked here, and what RFC 9112 does not allow is refused.

use super::denied::Denied;

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By a length in bytes; 0 where there is no body.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// Checks a whole head, with the empty line at its end.
pub(super) fn check(head: &[u8], max_headers: usize) -> Result<Framing, Denied> {
    let bad = |message: &str| Err(Denied::bad("bad_request", message));
    let Some(head) = head.strip_suffix(b"\r\n\r\n") else { return bad("the head has no end") };
    // No line feed stands without its carriage return, and the reverse: the guard has refused those.
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let old = match check_request_line(lines.next().unwrap_or_default()) {
        Some(old) => old,
        None => return bad("the first line is not a method, a target and HTTP/1.1 with one space between"),
    };
    let (mut length, mut chunked, mut hosts, mut count) = (None, false, 0_u32, 0);
    for line in lines {
        count += 1;
        if count > max_headers {
            return Err(Denied::new(
                http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "limit",
                format!("the request has more than {max_headers} headers"),
            ));
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return bad("a header goes on in the next line");
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return bad("a header has no colon");
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return bad("a header's name has characters that it cannot have");
        }
        if value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
            return bad("a header's value has control characters");
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return bad("there is more than one content-length");
            }
            length = match parse_length(value) {
                Some(value) => Some(value),
                None => return bad("the content-length is not a number"),
            };
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return bad("the transfer-encoding is not chunked, once");
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        }
    }
    match (chunked, length) {
        _ if hosts != 1 => bad("there is not exactly one host header"),
        (true, Some(_)) => bad("there are both a transfer-encoding and a content-length"),
        (true, None) if old => bad("HTTP/1.0 has no transfer-encoding"),
        (true, None) => Ok(Framing::Chunked),
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Whether the request is of HTTP/1.0; `None` where the line is not well formed.
fn check_request_line(line: &[u8]) -> Option<bool> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let token = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    let visible = !target.is_empty() && target.iter().all(|byte| matches!(byte, 0x21..=0x7e));
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return None,
    };
    (token && visible && parts.next().is_none()).then_some(old)
}

/// A length: digits only, and no more than a number of 64 bits holds.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// The characters of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
