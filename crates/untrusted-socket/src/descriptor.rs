//! A descriptor that somebody sent: anything until looked at.

use rustix::net::sockopt;
use std::os::fd::OwnedFd;

/// A received descriptor, closed where that may take time.
#[derive(Debug)]
pub struct Descriptor(Option<OwnedFd>);

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }

    /// Takes it, if it is what was expected. That must be nothing that takes time to close.
    pub fn take_if(mut self, expected: impl FnOnce(&OwnedFd) -> bool) -> Option<OwnedFd> {
        // What was not expected stays in here.
        self.0.take_if(|fd| expected(fd))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            // So that many of them do not take all threads that may block. Its owner may be setting it again.
            let _ = sockopt::set_socket_linger(&fd, None);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn_blocking(move || drop(fd));
            }
        }
    }
}
