//! A daemon in directories of its own, driven through the real executables.

use crate::outcome::{PATIENCE, eventually, executable, rest};
use crate::{Caller, leftovers, signal};
use rustix::process::Signal;
use std::ffi::OsString;
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// What is not as usual about a daemon.
#[derive(Debug, Default, Clone)]
pub struct Setup {
    /// More arguments of `hosteld`.
    pub arguments: Vec<OsString>,
    /// More of its environment.
    pub environment: Vec<(&'static str, OsString)>,
    /// The ordinary user that it and its clients run as. Needs root.
    pub user: Option<u32>,
}

/// A daemon that is killed with its test.
#[derive(Debug)]
pub struct TestDaemon {
    /// Removed with it.
    _place: TempDir,
    child: Option<Child>,
    setup: Setup,
    caller: Caller,
}

impl Deref for TestDaemon {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Default for TestDaemon {
    fn default() -> Self {
        Self::start()
    }
}

impl TestDaemon {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn start() -> Self {
        let mut daemon = Self::prepare(Setup::default());
        daemon.restart();
        daemon
    }

    /// Makes its directories and starts nothing. A user of its own gets copies of the executables that it may read.
    ///
    /// # Panics
    /// Where they cannot be made.
    #[must_use]
    pub fn prepare(setup: Setup) -> Self {
        let place = tempfile::Builder::new().prefix("hostel-test-").tempdir().expect("a temporary directory");
        if let Some(user) = setup.user {
            std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
            for name in ["hosteld", "hostel"] {
                std::fs::copy(executable(name), place.path().join(name)).expect("a copy of an executable");
            }
            chown(place.path(), Some(user), Some(user)).expect("chown");
        }
        let caller = Caller { home: place.path().to_owned(), user: setup.user, address: None };
        Self { _place: place, child: None, setup, caller }
    }

    /// `hosteld`, not yet started.
    ///
    /// # Panics
    /// Where it was not built.
    #[must_use]
    pub fn hosteld(&self) -> Command {
        let mut command = self.program("hosteld");
        command
            .args(&self.setup.arguments)
            .env("HOSTEL_STATE_DIR", self.state())
            .env("HOSTEL_RUNTIME_DIR", self.runtime())
            .env("HOSTEL_TEMPLATES_DIR", self.templates())
            .env("NO_COLOR", "1")
            .envs(self.setup.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts it, again in the same directories, and does not wait.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn launch(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.home.join("log"));
        let child = self.hosteld().stderr(log.expect("a log")).spawn().expect("hosteld starts");
        self.child = Some(child);
    }

    /// Starts it, again in the same directories, and waits until it answers.
    ///
    /// # Panics
    /// Where it does not answer.
    pub fn restart(&mut self) {
        self.launch();
        eventually("the daemon answers", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "the daemon ended by itself, {ended:?}:\n{}", self.log());
            // A look at the socket is cheaper than a program that asks there.
            self.is_listening() && self.hostel(&["node", "info"]).code == Some(0)
        });
    }

    /// Whether somebody takes connections at the socket, where clients use that.
    fn is_listening(&self) -> bool {
        self.caller.address.is_some() || UnixStream::connect(self.socket()).is_ok()
    }

    /// Gives the next start this in its environment.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.setup.environment.retain(|(known, _)| *known != name);
        self.setup.environment.push((name, value.into()));
    }

    /// Has clients from now on use another address than the socket in the runtime directory.
    pub fn reach_at(&mut self, address: String) {
        self.caller.address = Some(address);
    }

    /// Its clients, for threads of their own.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Where templates are declared, for the next start. Not there unless a test makes it.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.home.join("templates.d")
    }

    /// Its process.
    ///
    /// # Panics
    /// Where it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a daemon that runs").id()
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// Where it is not running.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a daemon that runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// Where it does not.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a daemon that was started");
        let mut status = None;
        eventually("the daemon stops", || {
            status = child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        status.expect("a status")
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Panics
    /// Where it is not running, or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        signal(self.pid(), Signal::TERM);
        self.ended()
    }

    /// Removes every pool and sandbox, stops, and looks that nothing is left on the host.
    ///
    /// # Panics
    /// Where something is left.
    pub fn finish(&mut self) {
        self.remove_pools();
        let removed = self.hostel(&["sandbox", "rm", "--all"]);
        assert_eq!(removed.code, Some(0), "{removed:?}");
        assert!(self.stop().success(), "the daemon's log:\n{}", self.log());
        let start = Instant::now();
        loop {
            let left = leftovers(self);
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "left on the host: {left:#?}");
            rest(start);
        }
    }
}

impl TestDaemon {
    /// Removes every pool: a daemon that stops leaves warm sandboxes to the next.
    fn remove_pools(&self) {
        let pools = self.hostel(&["pool", "list", "-q"]).stdout;
        for pool in pools.lines() {
            let _ = self.hostel(&["pool", "rm", "--allow-missing", pool]);
        }
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        let had_jails = self.state().join("jail/instance").exists();
        if self.child.is_none() && had_jails && !leftovers(self).is_empty() {
            // Only a daemon removes what it made.
            self.launch();
            let start = Instant::now();
            while start.elapsed() < PATIENCE && self.hostel(&["node", "info"]).code != Some(0) {
                rest(start);
            }
        }
        self.remove_pools();
        let _ = self.hostel(&["sandbox", "rm", "--all"]);
        if let Some(mut child) = self.child.take() {
            // Asked to end, it also removes what it keeps in stock.
            signal(child.id(), Signal::TERM);
            let start = Instant::now();
            while start.elapsed() < PATIENCE && !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                rest(start);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
