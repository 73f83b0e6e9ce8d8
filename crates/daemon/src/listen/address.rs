//! Addresses as they are written: `unix:///path` or `tcp://127.0.0.1:port`.

use crate::error::{Error, Result};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket. An absolute path.
    Unix(PathBuf),
    /// TCP. Only loopback until there is TLS.
    Tcp(SocketAddr),
}

/// Longest path of a unix socket in bytes: `sockaddr_un` (unix(7)) without its NUL.
const MAX_SOCKET_PATH: usize = 107;

impl Address {
    /// Refuses what cannot work, and what is not safe yet.
    ///
    /// # Errors
    /// [`Error::Config`] saying what would work.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Unix(path) if !path.is_absolute() => Err(Error::Config(format!(
                "{self}: give an absolute path, as in unix:///run/hostel/hosteld.sock"
            ))),
            Self::Unix(path) if path.as_os_str().len() > MAX_SOCKET_PATH => Err(Error::Config(format!(
                "{self}: the path of a unix socket has at most {MAX_SOCKET_PATH} bytes"
            ))),
            Self::Tcp(address) if !address.ip().is_loopback() => Err(Error::Config(format!(
                "{self}: TCP is open to loopback only, because this version has no TLS: listen on \
                 tcp://127.0.0.1:{} or on a unix socket, and reach it through ssh from elsewhere",
                address.port()
            ))),
            _ => Ok(()),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let address = if let Some(path) = text.strip_prefix("unix://") {
            Self::Unix(PathBuf::from(path))
        } else if let Some(address) = text.strip_prefix("tcp://") {
            let wrong =
                |_| Error::Config(format!("{text}: write tcp://ADDRESS:PORT, as in tcp://127.0.0.1:7070"));
            Self::Tcp(address.parse().map_err(wrong)?)
        } else {
            return Err(Error::Config(format!("{text:?}: write unix:///path or tcp://127.0.0.1:port")));
        };
        address.validate()?;
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_loopback_and_absolute_paths_are_taken() {
        for good in ["unix:///run/x.sock", "tcp://127.0.0.1:0", "tcp://[::1]:7070"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["unix://x", "tcp://localhost:1", "http://x", "/run/x", ""] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        let error = "tcp://0.0.0.0:7070".parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("no TLS") && error.contains("tcp://127.0.0.1:7070"), "{error}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,60}") { let _ = text.parse::<Address>(); }
    }
}
