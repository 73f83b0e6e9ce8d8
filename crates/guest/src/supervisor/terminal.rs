//! Pseudo-terminals, from the sandbox's own devpts.

use hostel_guest_protocol::TerminalSize;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};
use std::os::fd::{BorrowedFd, OwnedFd};

/// A new terminal: our end, nonblocking, and the program's.
pub(crate) fn new(size: TerminalSize) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let ours = match open(c"/dev/ptmx", flags, Mode::empty()) {
        Err(Errno::NOENT) => open(c"/dev/pts/ptmx", flags, Mode::empty())?,
        other => other?,
    };
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    resize(&ours, size)?;
    Ok((ours, theirs))
}

/// Gives it to a user, as login(1) does.
pub(crate) fn give(theirs: &OwnedFd, uid: u32, gid: u32) {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    // Without the right to, it stays with us: programs have it open anyway.
    let _ = rustix::fs::fchown(theirs, Some(uid), Some(gid));
}

/// A new size; programs get SIGWINCH.
pub(crate) fn resize(terminal: impl std::os::fd::AsFd, size: TerminalSize) -> Result<()> {
    let number = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size =
        Winsize { ws_row: number(size.rows), ws_col: number(size.columns), ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size)
}

/// The character that ends input.
pub(crate) fn end_of_input(terminal: BorrowedFd<'_>) -> u8 {
    const CONTROL_D: u8 = 4;
    tcgetattr(terminal).map_or(CONTROL_D, |settings| settings.special_codes[SpecialCodeIndex::VEOF])
}
