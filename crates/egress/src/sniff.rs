//! Looks at the first bytes of a connection, within bounds of size and time.

use crate::head::{self, Head};
use crate::hello::{self, Hello, Read};
use std::io;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How a connection begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum First {
    Tls(Hello),
    Http(Head),
    /// Neither TLS nor HTTP.
    Other,
    /// Nothing came for a while; the server may be the one to speak first.
    Quiet,
    /// The client is gone.
    Closed,
    /// Not in time.
    Late,
    Bad(&'static str),
}

/// What the bytes look like so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    Unsure,
    Tls,
    Http,
    Other,
}

/// Bounds of a look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Most bytes.
    pub(crate) bytes: usize,
    /// Until when.
    pub(crate) deadline: Instant,
    /// How long a client may say nothing before it is taken to wait for the server.
    pub(crate) quiet: Option<Duration>,
}

/// Reads until it is known how the connection begins. What was read is in `buffer`, which may hold bytes already.
pub(crate) async fn sniff(stream: &TcpStream, buffer: &mut Vec<u8>, bounds: Bounds) -> First {
    loop {
        if let Some(first) = judge(buffer) {
            return first;
        }
        if buffer.len() >= bounds.bytes {
            return First::Bad("a head that is too large");
        }
        let deadline = match bounds.quiet {
            Some(quiet) if buffer.is_empty() => bounds.deadline.min(Instant::now() + quiet),
            _ => bounds.deadline,
        };
        match tokio::time::timeout_at(deadline, read_more(stream, buffer, bounds.bytes)).await {
            Ok(Ok(0)) if buffer.is_empty() => return First::Closed,
            Ok(Ok(0)) => return First::Bad("a head that is cut"),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return First::Closed,
            Err(_) if buffer.is_empty() && deadline < bounds.deadline => return First::Quiet,
            Err(_) => return First::Late,
        }
    }
}

/// Reads once, to at most `limit` bytes in the buffer. Cancelling loses nothing.
pub(crate) async fn read_more(stream: &TcpStream, buffer: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
    stream
        .async_io(Interest::READABLE, || {
            let mut part = [0; 4096];
            let room = part.len().min(limit.saturating_sub(buffer.len()));
            let count = stream.try_read(&mut part[..room])?;
            buffer.extend_from_slice(&part[..count]);
            Ok(count)
        })
        .await
}

/// What the bytes say, if they are enough.
fn judge(bytes: &[u8]) -> Option<First> {
    match looks(bytes) {
        Looks::Unsure => None,
        Looks::Other => Some(First::Other),
        Looks::Tls => match hello::read(bytes) {
            Read::Done(hello) => Some(First::Tls(hello)),
            Read::More => None,
            Read::Bad(why) => Some(First::Bad(why)),
        },
        Looks::Http => match head::read(bytes) {
            Read::Done(head) => Some(First::Http(head)),
            Read::More => None,
            Read::Bad(why) => Some(First::Bad(why)),
        },
    }
}

/// Generous with HTTP: whatever a lenient server could take for a request must not pass as something else.
fn looks(bytes: &[u8]) -> Looks {
    match bytes {
        [] | [22] => return Looks::Unsure,
        [22, 3, ..] => return Looks::Tls,
        [22, ..] => return Looks::Other,
        _ => {}
    }
    let start = bytes.iter().position(|byte| !parts(*byte)).unwrap_or(bytes.len());
    let line = &bytes[start..];
    let end = line.iter().position(|byte| *byte == b'\n');
    let line = &line[..end.unwrap_or(line.len())];
    let before_version = |byte: u8| !byte.is_ascii_graphic();
    if line.windows(6).any(|part| before_version(part[0]) && part[1..].eq_ignore_ascii_case(b"HTTP/")) {
        return Looks::Http;
    }
    // A line that is not whole can still become a request if it begins with a word. Some servers take any method.
    let mut word = line.split(|byte| parts(*byte)).next().unwrap_or_default().iter();
    if end.is_none() && word.all(|byte| byte.is_ascii_graphic() || !byte.is_ascii()) {
        Looks::Unsure
    } else {
        Looks::Other
    }
}

/// What a lenient server may take for the space between words: also vertical tabs, form feeds, and the separators that
/// some languages count as space (of Latin-1 too: Python's `str.split`).
fn parts(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0x0b | 0x1c..=0x1f | 0x85 | 0xa0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_be_a_request_is_one() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "\r\n\r\nGET / HTTP/1.1",
            "get / http/1.1\n",
            "FOO\tx\tHTTP/1.0\r\n",
            "PRI * HTTP/2.0\r\n",
            " GET /\u{e9}\r HTTP/1.1\r\n",
            "GET\u{b}/\u{b}HTTP/1.1\r\n",
            "\u{b}GET\u{c}/\u{1f}HTTP/1.1\n",
            "SSH-2.0-OpenSSH_9.2 HTTP/1.1",
        ] {
            assert_eq!(looks(text.as_bytes()), Looks::Http, "{text:?}");
        }
        for text in ["", "GET /", "\r\n", "GET / HTTP", "GET /\u{e9}", "GET\u{b}/", "\u{b}"] {
            assert_eq!(looks(text.as_bytes()), Looks::Unsure, "{text:?}");
        }
        for text in
            ["SSH-2.0-OpenSSH_9.2\r\n", "EHLO example.com\r\n", "\u{0}\u{1}", "GET /\r\n", "AMQP\u{0}\u{0}"]
        {
            assert_eq!(looks(text.as_bytes()), Looks::Other, "{text:?}");
        }
        // As Python's servers part words.
        assert_eq!(looks(b"GET\xa0/\x85HTTP/1.1\r\n"), Looks::Http);
        assert_eq!(looks(b"G\xe9T "), Looks::Unsure);
        assert_eq!(looks(&[22, 3, 1]), Looks::Tls);
    }

    proptest! {
        #[test]
        fn more_bytes_never_unmake_a_request(before in "[\\r\\n]{0,3}[!-~]{1,9} [!-~]{1,30} HTTP/1.[01]\r\n", cut in 0usize..60) {
            let bytes = before.as_bytes();
            prop_assert!(matches!(looks(&bytes[..cut.min(bytes.len())]), Looks::Unsure | Looks::Http));
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = judge(&bytes);
        }
    }
}
