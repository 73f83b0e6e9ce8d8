//! Where a daemon listens, as `HOSTEL_ADDR` and `--addr` spell it.

use crate::error::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The environment variable that names the daemon for clients.
pub const ADDRESS_VARIABLE: &str = "HOSTEL_ADDR";

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix:///path`: a unix socket.
    Unix(PathBuf),
    /// `http://host:port`: TCP without encryption, for loopback.
    Http(String),
}

impl Address {
    /// The address in `HOSTEL_ADDR`, or where a daemon of this user listens when nobody said otherwise.
    ///
    /// # Errors
    /// [`Error::Address`] when `HOSTEL_ADDR` is not an address.
    pub fn from_environment() -> Result<Self> {
        match std::env::var(ADDRESS_VARIABLE) {
            Ok(text) if !text.is_empty() => text.parse(),
            _ => Ok(Self::default_for_user()),
        }
    }

    /// Where a daemon of this user listens by default: `/run/hostel/hosteld.sock` for root, else
    /// `$XDG_RUNTIME_DIR/hostel/hosteld.sock`, else `/tmp/hostel-<uid>/hosteld.sock`.
    #[must_use]
    pub fn default_for_user() -> Self {
        let uid = rustix::process::geteuid();
        let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
            _ if uid.is_root() => PathBuf::from("/run/hostel"),
            Some(runtime) if Path::new(&runtime).is_absolute() => Path::new(&runtime).join("hostel"),
            _ => PathBuf::from(format!("/tmp/hostel-{}", uid.as_raw())),
        };
        Self::Unix(directory.join("hosteld.sock"))
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |problem: &str| Error::Address { text: text.to_owned(), problem: problem.to_owned() };
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(wrong("after unix:// comes an absolute path, so three slashes"));
            }
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with("https://") {
            return Err(wrong("this client does not speak TLS yet; use unix:// or http:// on loopback"));
        }
        let Some(authority) = text.strip_prefix("http://") else {
            return Err(wrong("write unix:///path or http://host:port"));
        };
        let authority = authority.trim_end_matches('/');
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        if !has_port || authority.contains(['/', '@', ' ']) {
            return Err(wrong("write http://host:port and nothing after it"));
        }
        Ok(Self::Http(authority.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http(authority) => write!(f, "http://{authority}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in
            ["unix:///run/hostel/hosteld.sock", "http://127.0.0.1:7777", "http://[::1]:1", "http://h:80"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_explained() {
        for bad in
            ["", "/run/x.sock", "unix://relative", "http://host", "http://:80", "http://h:0", "http://h:80/x"]
        {
            let message = bad.parse::<Address>().unwrap_err().to_string();
            assert!(message.contains("://"), "{bad}: {message}");
        }
        assert!("https://host:1".parse::<Address>().unwrap_err().to_string().contains("TLS"));
    }
}
