//! A terminal with somebody in front of it.

use crate::children;
use crate::outcome::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Runs a command as a shell does and says how it ended and whether the terminal is as it was. The shell stays the
/// session's leader: at its end the kernel hangs the terminal up. A Ctrl-C that the terminal makes a signal is for the
/// command, and does not end the shell.
const SHELL: &str = r#"trap : INT; before=$(stty -g); "$@"; code=$?; after=$(stty -g)
if [ "$before" = "$after" ]; then after=restored; fi; echo "[ended $code $after]""#;

/// A terminal on which a command runs.
#[derive(Debug)]
pub struct Terminal {
    keyboard: OwnedFd,
    shell: Child,
    screen: Vec<u8>,
    looked_at: usize,
}

impl Terminal {
    /// Starts a command on a new terminal of so many rows and columns.
    ///
    /// # Panics
    /// Where this host gives no terminal.
    #[must_use]
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let keyboard =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("the other end of it");
        let name = ptsname(&keyboard, Vec::new()).expect("its name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = open(name, flags, Mode::empty()).expect("the other end of it");
        let stream = || Stdio::from(line.try_clone().expect("a descriptor"));
        let mut shell = Command::new("setsid");
        shell.args(["--ctty", "sh", "-c", SHELL, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let mut terminal = Self {
            keyboard,
            shell: shell.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("setsid(1) starts"),
            screen: Vec::new(),
            looked_at: 0,
        };
        terminal.resize(rows, columns);
        terminal
    }

    /// Types.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn keys(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written = rustix::io::write(&self.keyboard, rest).expect("the keys arrive");
            rest = &rest[written..];
        }
    }

    /// Changes the size of the window.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("the window gets its size");
    }

    /// Whether keys go through as they are, Ctrl-C too.
    ///
    /// # Panics
    /// Where the terminal is gone.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.keyboard).expect("the terminal's modes").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO)
    }

    /// The command that the shell runs.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn command_pid(&self) -> u32 {
        *children(self.shell.id()).first().expect("a command that runs")
    }

    /// Waits until this is on the screen, after what was waited for before.
    ///
    /// # Panics
    /// Where it does not come.
    pub fn expect(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            let fresh = String::from_utf8_lossy(&self.screen[self.looked_at..]).into_owned();
            if let Some(at) = fresh.find(text) {
                self.looked_at += at + text.len();
                return;
            }
            let whole = String::from_utf8_lossy(&self.screen);
            assert!(
                start.elapsed() < PATIENCE,
                "no {text:?} after the first {} of {whole:?}",
                self.looked_at
            );
            self.look();
        }
    }

    /// All that was on the screen so far.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen).into_owned()
    }

    /// Waits for what is new on the screen, for a moment.
    fn look(&mut self) {
        let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut waiting = [PollFd::from_borrowed_fd(self.keyboard.as_fd(), PollFlags::IN)];
        if !matches!(poll(&mut waiting, Some(&moment)), Ok(1)) {
            return;
        }
        let mut buffer = [0; 4096];
        if let Ok(length) = rustix::io::read(&self.keyboard, &mut buffer) {
            self.screen.extend_from_slice(&buffer[..length]);
        }
    }

    /// Waits until the command has ended with this code and the terminal is as it was before.
    ///
    /// # Panics
    /// Where it is not so.
    pub fn ends_with(&mut self, code: i32) {
        self.expect("[ended ");
        self.expect("]");
        let end = String::from_utf8_lossy(&self.screen[..self.looked_at]).into_owned();
        assert!(end.ends_with(&format!("[ended {code} restored]")), "{end:?}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for process in children(self.shell.id()) {
            crate::signal(process, rustix::process::Signal::KILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
