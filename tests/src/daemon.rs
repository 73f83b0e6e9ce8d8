//! A daemon in directories of its own, driven through the real executables.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again until it is true.
///
/// # Panics
/// When it is not true within half a minute.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// Where cargo put the executables: beside the tests, or where `HOSTEL_BIN_DIR` says.
///
/// # Panics
/// Where it is not built.
#[must_use]
pub fn executable(name: &str) -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().ok()?;
        Some(test.parent()?.parent()?.to_owned())
    };
    let directory = std::env::var_os("HOSTEL_BIN_DIR").map(PathBuf::from).or_else(beside).unwrap_or_default();
    let path = directory.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace` first", path.display());
    path
}

/// What a command of `hostel` did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Outcome {
    /// Its standard output, without the last newline.
    ///
    /// # Panics
    /// Where it failed.
    #[must_use]
    pub fn success(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.trim_end()
    }
}

/// A daemon that is killed with its test.
#[derive(Debug)]
pub struct TestDaemon {
    home: TempDir,
    child: Option<Child>,
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
        let home = tempfile::Builder::new().prefix("hostel-test-").tempdir().expect("a temporary directory");
        let mut daemon = Self { home, child: None };
        daemon.restart();
        daemon
    }

    /// Starts it again in the same directories.
    ///
    /// # Panics
    /// Where it does not answer.
    pub fn restart(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.home.path().join("log"));
        let child = Command::new(executable("hosteld"))
            .env("HOSTEL_STATE_DIR", self.state())
            .env("HOSTEL_RUNTIME_DIR", self.runtime())
            .env("HOSTEL_TEMPLATES_DIR", self.templates())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("hosteld starts");
        self.child = Some(child);
        eventually("the daemon answers", || self.hostel(&["node", "info"]).code == Some(0));
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Its runtime directory.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.home.path().join("run")
    }

    /// Where templates are declared, for the next start. Not there unless a test makes it.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.home.path().join("templates.d")
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// A command of `hostel` against it, not yet started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(executable("hostel"));
        command
            .args(arguments)
            .env("HOSTEL_ADDR", format!("unix://{}", self.runtime().join("hosteld.sock").display()))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command of `hostel` against it.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn hostel(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments).output().expect("hostel starts").into()
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

    /// SIGTERM, and its exit status.
    ///
    /// # Panics
    /// Where it is not running, or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a daemon that runs");
        let killed = Command::new("kill").arg(child.id().to_string()).status().expect("kill(1) starts");
        assert!(killed.success());
        let mut status = None;
        eventually("the daemon stops", || {
            status = child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        status.expect("a status")
    }

    /// The directory that holds everything of it.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let list = self.hostel(&["sandbox", "list", "-q"]);
            for id in list.stdout.split_whitespace() {
                let _ = self.hostel(&["sandbox", "rm", id]);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
