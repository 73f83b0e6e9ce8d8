//! A session server in front of a daemon, driven as clients drive it.

use crate::outcome::{PATIENCE, eventually, rest};
use crate::{TestDaemon, signal};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;

/// A session server that is killed with its test. Its files are in the daemon's directory.
#[derive(Debug)]
pub struct TestSessiond {
    child: Option<Child>,
    arguments: Vec<String>,
    home: PathBuf,
    address: Option<SocketAddr>,
}

impl TestSessiond {
    /// Starts one for a daemon and waits until it listens.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn start(daemon: &TestDaemon, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let home = daemon.home().to_owned();
        let mut server = Self { child: None, arguments, home, address: None };
        server.restart(daemon);
        server
    }

    /// Starts it, again with the same sessions, and waits until it listens. It keeps its address.
    ///
    /// # Panics
    /// Where it does not.
    pub fn restart(&mut self, daemon: &TestDaemon) {
        let log = self.home.join("sessiond.log");
        let _ = fs::remove_file(&log);
        let file = fs::File::options().create(true).append(true).open(&log).expect("a log");
        let listen = self.address.map_or("127.0.0.1:0".to_owned(), |address| address.to_string());
        let mut command = daemon.program("hostel-sessiond");
        command
            .args(["--listen", &listen, "--config", "/dev/null"])
            .args(&self.arguments)
            .env("HOSTEL_ADDR", format!("unix://{}", daemon.socket().display()))
            .env("HOSTEL_SESSIOND_STATE_DIR", self.home.join("sessions"))
            .env("HOSTEL_LOG", "info,hostel_session=debug,hostel_sessiond=debug")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        self.child = Some(command.spawn().expect("hostel-sessiond starts"));
        eventually("the session server listens", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "the session server ended by itself, {ended:?}:\n{}", self.log());
            let log = self.log();
            let line = log.lines().find(|line| line.contains("listening"));
            let address =
                line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok());
            self.address = address.or(self.address);
            address.is_some()
        });
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Where it was never started.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a server that was started")
    }

    /// The address of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("sessiond.log")).unwrap_or_default()
    }

    /// Its process.
    ///
    /// # Panics
    /// Where it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a server that runs").id()
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// Where it is not running.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a server that runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Panics
    /// Where it is not running, or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a server that runs");
        signal(child.id(), Signal::TERM);
        let mut status = None;
        eventually("the session server stops", || {
            status = child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        status.expect("a status")
    }
}

impl Drop for TestSessiond {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the session server's log:\n{}", self.log());
        }
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE && !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            rest(start);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
