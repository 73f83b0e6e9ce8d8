//! Signals to us, for the commands that must not just die of them.

use crate::failure::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP.
pub(crate) const HANGUP: i32 = 1;
/// SIGINT.
pub(crate) const INTERRUPT: i32 = 2;
/// SIGKILL.
pub(crate) const KILL: i32 = 9;
/// SIGPIPE.
pub(crate) const PIPE: i32 = 13;

/// The signals that would end us, and the one that says that the window has another size.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    window: Signal,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A signal that asks us to end: its number.
    End(i32),
    /// The window has another size.
    Resized,
}

impl Signals {
    /// From here on these signals come to [`Self::next`] and do nothing else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::other("SIGNALS", format!("cannot listen to signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            window: listen(SignalKind::window_change())?,
        })
    }

    /// The next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.interrupt.recv() => Event::End(INTERRUPT),
            _ = self.terminate.recv() => Event::End(15),
            _ = self.hangup.recv() => Event::End(HANGUP),
            _ = self.quit.recv() => Event::End(3),
            _ = self.window.recv() => Event::Resized,
        }
    }

    /// The next signal that asks us to end. Cancel safe.
    pub(crate) async fn end(&mut self) -> i32 {
        loop {
            if let Event::End(signal) = self.next().await {
                return signal;
            }
        }
    }

    /// Does this unless a signal asks us to end: then it is dropped, and what it holds is cleaned up.
    ///
    /// # Errors
    /// [`Failure::Signal`], or those of `work`.
    pub(crate) async fn guard<T, E: Into<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done.map_err(Into::into),
            signal = self.end() => Err(Failure::Signal(signal)),
        }
    }
}

/// The exit code of a program that a signal ended.
pub(crate) fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}
