//! What a program asks to be connected to.

use hostel_sandbox::network::normal_name;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host by name or by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// In the form of [`normal_name`].
    Name(String),
    /// In canonical form: never an IPv4 address inside an IPv6 one.
    Address(IpAddr),
}

impl Destination {
    /// Reads a host without a port, and without brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical()));
        }
        normal_name(text).ok().map(Self::Name)
    }

    /// Reads `host`, `host:port`, `[address]` or `[address]:port`. No user, no zone, nothing around it.
    pub(crate) fn parse_with_port(text: &str) -> Option<(Self, Option<u16>)> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']')?;
            let address: Ipv6Addr = inside.parse().ok()?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return None,
            };
            (Self::Address(IpAddr::V6(address).to_canonical()), port)
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (Self::parse(host)?, port)
        };
        match port {
            None => Some((host, None)),
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse::<u16>().ok().filter(|port| *port != 0).map(|port| (host, Some(port)))
            }
            Some(_) => None,
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Address(address) => Some(*address),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_read_strictly() {
        let parse = |text| Destination::parse_with_port(text).map(|(host, port)| (host.to_string(), port));
        assert_eq!(parse("API.Example.com.:443"), Some(("api.example.com".to_owned(), Some(443))));
        assert_eq!(parse("[::ffff:10.0.0.1]:80"), Some(("10.0.0.1".to_owned(), Some(80))));
        assert_eq!(parse("10.0.0.1"), Some(("10.0.0.1".to_owned(), None)));
        for text in [
            "",
            ":443",
            "a:b",
            "a:0",
            "a:65536",
            "a:1:2",
            "u@a:443",
            "[::1]x",
            "[a]:1",
            "127.1:80",
            "0x7f.1:80",
            "0177.0.0.1:80",
            "2130706433:80",
            "a b:1",
            "a:+1",
            "::1",
            "[fe80::1%lo]:1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_read(text in "\\PC{0,60}") {
            let _ = Destination::parse_with_port(&text);
        }
    }
}
