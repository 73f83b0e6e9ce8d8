//! Listening sockets inside a sandbox whose connections the daemon takes.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most of them in one sandbox.
pub const MAX_LISTENERS: usize = 16;
/// Longest path, in bytes, and longest last name of it (unix(7)).
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 107;

/// Where programs inside connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenAddress {
    /// A unix stream socket.
    Unix {
        /// Absolute, inside. Missing directories are made; a socket that is there is replaced.
        path: String,
        /// Permission bits: who may write may connect. At most `0o777`.
        mode: u32,
    },
    /// TCP on 127.0.0.1.
    Tcp {
        /// From 1.
        port: u16,
    },
}

impl ListenAddress {
    /// Checks form and sizes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the field.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Tcp { port: 0 } => Err(Error::invalid("port", "name a port, from 1 to 65535")),
            Self::Tcp { .. } => Ok(()),
            Self::Unix { mode, .. } if *mode > 0o777 => {
                Err(Error::invalid("mode", "permission bits are at most 777 (octal)"))
            }
            Self::Unix { path, .. } => {
                let name = path.rsplit('/').next().unwrap_or_default();
                if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_PATH {
                    return Err(Error::invalid(
                        "path",
                        format!("an absolute path of at most {MAX_PATH} bytes"),
                    ));
                }
                if matches!(name, "" | "." | "..") || name.len() > MAX_NAME {
                    return Err(Error::invalid("path", format!("its last name has 1 to {MAX_NAME} bytes")));
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ListenAddress;

    #[test]
    fn addresses_are_checked() {
        let unix = |path: &str| ListenAddress::Unix { path: path.to_owned(), mode: 0o666 };
        assert!(unix("/run/hostel/model.sock").validate().is_ok());
        for wrong in ["", "run/x", "/", "/run/..", "/run/", "/a\0b"] {
            assert!(unix(wrong).validate().is_err(), "{wrong:?}");
        }
        assert!(unix(&format!("/{}", "x".repeat(108))).validate().is_err());
        assert!(ListenAddress::Tcp { port: 0 }.validate().is_err());
        assert!(ListenAddress::Unix { path: "/x".to_owned(), mode: 0o4777 }.validate().is_err());
    }
}
