//! The directories of a test's daemon, and clients of it, for threads that use it while it dies.

use crate::outcome::{Outcome, executable};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a daemon is and who its clients are.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(crate) home: PathBuf,
    pub(crate) user: Option<u32>,
    pub(crate) address: Option<String>,
}

impl Caller {
    pub(crate) fn program(&self, name: &str) -> Command {
        let Some(user) = self.user else { return Command::new(executable(name)) };
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
        command.arg(self.home.join(name)).env("HOME", &self.home).env_remove("XDG_RUNTIME_DIR");
        command.current_dir(&self.home);
        command
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// Its runtime directory.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.home.join("run")
    }

    /// Its socket, where nothing else was asked for.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime().join("hosteld.sock")
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// A command of `hostel` against it, not yet started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let socket = || format!("unix://{}", self.socket().display());
        let mut command = self.program("hostel");
        command
            .args(arguments)
            .env("HOSTEL_ADDR", self.address.clone().unwrap_or_else(socket))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command of `hostel` against it.
    ///
    /// # Panics
    /// Where it cannot be started, or does not end.
    #[must_use]
    pub fn hostel(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(arguments))
    }

    /// Makes a sandbox: its id.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn sandbox(&self, options: &[&str]) -> String {
        let arguments: Vec<&str> =
            ["sandbox", "create", "-q"].into_iter().chain(options.iter().copied()).collect();
        self.hostel(&arguments).success().to_owned()
    }

    /// Runs a shell command in a sandbox: its output.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn shell(&self, sandbox: &str, script: &str) -> String {
        self.hostel(&["exec", sandbox, "--", "sh", "-c", script]).success().to_owned()
    }

    /// The directory that holds everything of it.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }
}
