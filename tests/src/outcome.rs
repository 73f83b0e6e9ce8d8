//! What came of a command, and waiting for what comes by itself.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up: far longer than it does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at what is waited for, so that looking leaves it the processor.
pub const LOOK: Duration = Duration::from_millis(20);

/// Asks again until it is true.
///
/// # Panics
/// When it is not true within half a minute.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        rest(start);
    }
}

/// Rests between two looks at what is waited for since `start`: at first hardly, for most is there at once.
pub(crate) fn rest(start: Instant) {
    std::thread::park_timeout((start.elapsed() / 8).clamp(Duration::from_millis(1), LOOK));
}

/// Says loudly that something is not tested here, and why. `scripts/with-docker.sh` tells it again at the end, for
/// nobody sees what a test says that goes well.
pub fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    let Some(list) = std::env::var_os("HOSTEL_SKIPPED") else { return };
    if let Ok(mut list) = std::fs::File::options().append(true).open(list) {
        let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = list.write_all(format!("{line}\n").as_bytes());
    }
}

/// Where cargo put an executable of ours: beside the tests, or where `HOSTEL_BIN_DIR` says.
///
/// # Panics
/// Where it was not built.
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

/// An exit code as a shell shows it: 128 and the signal for a process that a signal ended.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
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
    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it cannot be started, or does not end within a minute: nothing of ours may hang.
    #[must_use]
    pub fn of(command: Command) -> Self {
        Self::within(2 * PATIENCE, command)
    }

    /// Runs a command to its end that may take longer: one that fetches packages, say.
    ///
    /// # Panics
    /// Where it cannot be started, or does not end by then.
    #[must_use]
    pub fn within(patience: Duration, mut command: Command) -> Self {
        let shown = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (pid, (sender, ended)) = (child.id(), sync_channel(1));
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = ended.recv_timeout(patience).unwrap_or_else(|_| {
            crate::signal(pid, rustix::process::Signal::KILL);
            panic!("{shown} hangs")
        });
        output.expect("it can be waited for").into()
    }

    /// Its standard output, without the last newline.
    ///
    /// # Panics
    /// Where it failed.
    #[must_use]
    pub fn success(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.trim_end()
    }

    /// Its standard error.
    ///
    /// # Panics
    /// Where it did not end with this code.
    #[must_use]
    pub fn failure(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr.trim_end()
    }
}
