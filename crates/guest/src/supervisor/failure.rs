//! Failures that are told to the host.

use hostel_guest_protocol::{Failure, FailureKind};
use rustix::io::Errno;

/// What an operation for the host comes to.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Longest message, in bytes: names can be long.
const MOST_MESSAGE: usize = 4 << 10;

/// A failure in the words of the protocol.
pub(crate) fn failure(kind: FailureKind, message: impl Into<String>, reason: &str) -> Failure {
    let mut message = message.into();
    message.truncate(message.floor_char_boundary(MOST_MESSAGE));
    Failure { kind: kind.into(), message, reason: reason.to_owned() }
}

/// The request is wrong in that field.
pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Failure {
    failure(FailureKind::Invalid, message, field)
}

/// No such process.
pub(crate) fn no_process(id: &str) -> Failure {
    failure(FailureKind::NotFound, format!("there is no process {id:?}"), "process")
}

/// The state forbids it, by that rule.
pub(crate) fn wrong_state(rule: &str, message: impl Into<String>) -> Failure {
    failure(FailureKind::WrongState, message, rule)
}

/// What the kernel answered to `what`.
pub(crate) fn refused(errno: Errno, what: &str) -> Failure {
    let (kind, reason) = match errno {
        Errno::NOENT => (FailureKind::NotFound, ""),
        Errno::EXIST => (FailureKind::Exists, ""),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => (FailureKind::Denied, ""),
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => (FailureKind::Limit, "disk"),
        Errno::MFILE | Errno::NFILE => (FailureKind::Limit, "open_files"),
        Errno::AGAIN => (FailureKind::Limit, "processes"),
        Errno::NOMEM => (FailureKind::Limit, "memory"),
        Errno::NOTEMPTY => (FailureKind::WrongState, "DIRECTORY_NOT_EMPTY"),
        Errno::NOTDIR
        | Errno::ISDIR
        | Errno::LOOP
        | Errno::NAMETOOLONG
        | Errno::INVAL
        | Errno::XDEV
        | Errno::BUSY
        | Errno::TXTBSY
        | Errno::NXIO => (FailureKind::Invalid, "path"),
        _ => (FailureKind::Internal, ""),
    };
    failure(kind, format!("{what}: {errno}"), reason)
}
