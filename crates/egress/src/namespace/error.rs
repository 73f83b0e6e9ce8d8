//! What can go wrong on the way into a namespace.

use std::io;
use std::time::Duration;

/// Why doors could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a step.
    #[error("{step}: {error}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// It took longer than this.
    #[error("a network namespace was not ready within {0:?}")]
    Late(Duration),
    /// [`super::Namespaces`] was shut down.
    #[error("no network namespace can be entered any more: the daemon is shutting down")]
    Closed,
}

impl Error {
    pub(super) fn step(step: &'static str, error: impl Into<io::Error>) -> Self {
        Self::Step { step, error: error.into() }
    }

    /// The same with what would help.
    pub(super) fn remedy(&self) -> String {
        let help = match self {
            Self::Step { error, .. } => match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run the daemon as root (CAP_SYS_ADMIN and CAP_NET_ADMIN); network policies other than none need it"
                }
                _ if is_missing(error) => {
                    "the kernel lacks a part of nf_tables; load its modules (modprobe nf_tables nft_tproxy nft_redir nft_chain_nat nft_ct nft_limit nft_reject_inet), or use a kernel that has them"
                }
                _ => "network policies other than none cannot be enforced here",
            },
            Self::Late(_) | Self::Closed => "try again",
        };
        format!("{self}; {help}")
    }
}

/// What nf_tables says of expressions, chains and protocols that it does not have.
fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let missing = [Errno::NOENT, Errno::OPNOTSUPP, Errno::PROTONOSUPPORT, Errno::AFNOSUPPORT, Errno::INVAL];
    missing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::Error;
    use rustix::io::Errno;

    #[test]
    fn what_is_missing_is_named_with_what_would_help() {
        let refused = |errno: Errno| Error::step("take connections (nft_tproxy)", errno).remedy();
        assert!(refused(Errno::NOENT).contains("nft_tproxy") && refused(Errno::NOENT).contains("modprobe"));
        assert!(refused(Errno::PERM).contains("as root"));
    }
}
