//! Where a guest listens.

use crate::failure::Fault;
use crate::relay::Relay;
use hostel_sandbox::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;

/// Pause before another attempt where the guest's queue of connections is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(2);

/// The socket that a guest listens on, and the secret that proves us to it.
#[derive(Clone)]
pub struct Endpoint {
    way: Way,
    token: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Way {
    /// A socket of that name in a directory of this host.
    Here(Arc<OwnedFd>, String),
    /// A socket elsewhere.
    Relay(Arc<Relay>),
}

impl fmt::Debug for Endpoint {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("way", &self.way).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// A socket called `socket` in an open directory (`O_PATH` is enough).
    pub fn new(directory: impl Into<OwnedFd>, socket: impl Into<String>, token: impl Into<Vec<u8>>) -> Self {
        Self { way: Way::Here(Arc::new(directory.into()), socket.into()), token: token.into() }
    }

    /// A guest that is reached through a relay beside it.
    pub fn relayed(relay: Arc<Relay>, token: impl Into<Vec<u8>>) -> Self {
        Self { way: Way::Relay(relay), token: token.into() }
    }

    /// Whether descriptors come with answers.
    pub(crate) fn hands_descriptors(&self) -> bool {
        matches!(self.way, Way::Here(..))
    }

    pub(crate) fn set_frozen(&self, frozen: bool) {
        if let Way::Relay(relay) = &self.way {
            relay.set_frozen(frozen);
        }
    }

    /// Lets go of what connections need besides themselves.
    pub(crate) async fn close(&self) {
        if let Way::Relay(relay) = &self.way {
            relay.close().await;
        }
    }

    /// A socket called `socket` in the directory with that path, which may be of any length.
    ///
    /// # Errors
    /// `Unavailable` where the directory cannot be opened.
    pub fn open(
        directory: &Path,
        socket: impl Into<String>,
        token: impl Into<Vec<u8>>,
    ) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty()).map_err(|errno| {
            Error::Unavailable { what: "guest", detail: format!("open {}: {errno}", directory.display()) }
        })?;
        Ok(Self::new(opened, socket, token))
    }

    /// See [`hostel_guest_protocol::Hello`].
    pub(crate) fn token(&self) -> &[u8] {
        &self.token
    }

    /// Connects. A path in a socket address has 107 bytes at most, and a guest that can write to the directory
    /// could put a link to some other socket there; so the socket itself is opened and connected to by number.
    pub(crate) async fn connect(&self) -> Result<UnixStream, Fault> {
        let (directory, name) = match &self.way {
            Way::Here(directory, name) => (directory, name),
            Way::Relay(relay) => return relay.connect().await,
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let gone = |error: io::Error| Fault::Gone(format!("connect to {name}: {error}"));
        let socket = rustix::fs::openat(&**directory, name, flags, Mode::empty())
            .map_err(|errno| gone(errno.into()))?;
        let stat = rustix::fs::fstat(&socket).map_err(|errno| gone(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(Fault::Rule(format!("{name} is not a socket")));
        }
        loop {
            match UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(QUEUE_PAUSE).await;
                }
                other => return other.map_err(gone),
            }
        }
    }
}
