//! SOCKS 5 without authentication (RFC 1928): CONNECT to names and addresses.

use crate::destination::Destination;
use crate::hello::Read;
use std::net::IpAddr;

/// No authentication is the only method (RFC 1928 §3).
pub(crate) const CHOOSE_NONE: [u8; 2] = [5, 0];
/// No method that was offered is acceptable.
pub(crate) const NO_METHOD: [u8; 2] = [5, 0xff];

/// What a request is answered with (RFC 1928 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Succeeded = 0,
    NotAllowed = 2,
    HostUnreachable = 4,
    Refused = 5,
    CommandNotSupported = 7,
}

impl Answer {
    /// The answer as bytes. The bound address is of no use to anybody and is left out.
    pub(crate) fn bytes(self) -> [u8; 10] {
        [5, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }
}

/// Reads the greeting: its length, and whether no authentication is offered.
pub(crate) fn greeting(bytes: &[u8]) -> Read<(usize, bool)> {
    match bytes {
        [] | [5] => Read::More,
        [5, count, methods @ ..] => match methods.get(..usize::from(*count)) {
            Some(methods) => Read::Done((2 + methods.len(), methods.contains(&0))),
            None => Read::More,
        },
        _ => Read::Bad("not SOCKS 5"),
    }
}

/// A request: whom it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Whether the command is CONNECT.
    pub(crate) connect: bool,
    pub(crate) destination: Destination,
    pub(crate) port: u16,
    /// Bytes of the request.
    pub(crate) length: usize,
}

/// Reads a request.
pub(crate) fn request(bytes: &[u8]) -> Read<Request> {
    let (command, kind, rest) = match bytes {
        [5, command, 0, kind, rest @ ..] => (*command, *kind, rest),
        [5, _, 0] | [5, _] | [5] | [] => return Read::More,
        _ => return Read::Bad("not a SOCKS 5 request"),
    };
    let (host, used) = match kind {
        1 => match rest.first_chunk::<4>() {
            Some(address) => (Some(Destination::Address(IpAddr::from(*address))), 4),
            None => return Read::More,
        },
        4 => match rest.first_chunk::<16>() {
            Some(address) => (Some(Destination::Address(IpAddr::from(*address).to_canonical())), 16),
            None => return Read::More,
        },
        3 => match rest.split_first().and_then(|(length, rest)| rest.get(..usize::from(*length))) {
            Some(name) => (std::str::from_utf8(name).ok().and_then(Destination::parse), 1 + name.len()),
            None => return Read::More,
        },
        _ => return Read::Bad("not a kind of address"),
    };
    let Some(port) = rest.get(used..used + 2) else { return Read::More };
    let port = u16::from_be_bytes([port[0], port[1]]);
    match host {
        Some(destination) if port != 0 => {
            Read::Done(Request { connect: command == 1, destination, port, length: 4 + used + 2 })
        }
        _ => Read::Bad("not a host and port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_read() {
        assert_eq!(greeting(&[5, 2, 0, 2]), Read::Done((4, true)));
        assert_eq!(greeting(&[5, 1, 2]), Read::Done((3, false)));
        assert_eq!(greeting(&[4, 1]), Read::Bad("not SOCKS 5"));
        let bytes = [&[5, 1, 0, 3, 11][..], b"Example.COM", &[1, 187]].concat();
        let Read::Done(request) = request(&bytes) else { panic!() };
        assert_eq!((request.destination.to_string().as_str(), request.port), ("example.com", 443));
        assert_eq!((request.length, request.connect), (bytes.len(), true));
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = greeting(&bytes);
            let _ = request(&bytes);
            if let Read::Done(done) = request(&[&[5, 1, 0], &bytes[..]].concat()) {
                prop_assert!(done.length <= bytes.len() + 3);
            }
        }
    }
}
