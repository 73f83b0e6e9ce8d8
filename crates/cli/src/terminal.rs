//! The terminal that we were started on: raw while a session has it, and as it was on every way out.

use crate::failure::Failure;
use hostel_sandbox::process::TerminalSize;
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{stderr, stdin, stdout};
use std::sync::{Mutex, PoisonError};

/// How the terminal was, while it is not so. Here, not in the guard, so that a panic can restore it before it prints.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether stdin is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    isatty(stdin())
}

/// Whether stdout is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    isatty(stdout())
}

/// Whether stderr is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    isatty(stderr())
}

/// The size of the terminal that we are shown on, if any.
pub(crate) fn size() -> Option<TerminalSize> {
    let size =
        tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).or_else(|_| tcgetwinsize(stderr())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// The terminal is not as it was, until this is dropped.
#[derive(Debug)]
pub(crate) struct Changed(());

/// Makes the terminal raw: every key goes to the session, Ctrl-C too.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn raw() -> Result<Changed, Failure> {
    change("raw", Termios::make_raw)
}

/// Has the terminal not show what is typed.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn hidden() -> Result<Changed, Failure> {
    change("hide what is typed", |terminal| terminal.local_modes.remove(LocalModes::ECHO))
}

fn change(what: &str, how: impl FnOnce(&mut Termios)) -> Result<Changed, Failure> {
    let failed = |error: rustix::io::Errno| {
        Failure::other("TERMINAL", format!("cannot make the terminal {what}: {error}"))
    };
    let before = tcgetattr(stdin()).map_err(failed)?;
    let mut changed = before.clone();
    how(&mut changed);
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    let guard = Changed(());
    // What was typed ahead stays: it is for the session.
    tcsetattr(stdin(), OptionalActions::Now, &changed).map_err(failed)?;
    Ok(guard)
}

impl Drop for Changed {
    fn drop(&mut self) {
        restore();
    }
}

/// Remembers how stdin's terminal is, and makes it so again when dropped: for whoever lets a library change it.
#[derive(Debug)]
pub(crate) struct Kept(Option<Termios>);

impl Kept {
    /// As it is now; nothing where stdin is no terminal.
    pub(crate) fn of_stdin() -> Self {
        Self(tcgetattr(stdin()).ok())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Where nothing changed nothing is set: in the background even that would stop us.
        if let Some(before) = &self.0
            && tcgetattr(stdin()).is_ok_and(|now| now.local_modes != before.local_modes)
        {
            // If the terminal is gone there is nothing to restore.
            let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Whether the terminal is raw now.
pub(crate) fn is_raw() -> bool {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Makes the terminal as it was, if it is raw.
fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // After what we wrote is shown. If the terminal is gone there is nothing to restore.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}

/// Has a panic restore the terminal before it prints its message.
pub(crate) fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}
