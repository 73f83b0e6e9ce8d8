//! A daemon of our own, in directories of its own.

use anyhow::{Context as _, Result, bail};
use hostel_client::{Address, Client, ListSandboxes};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// How long a daemon may take to serve, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a started daemon came up, from the moment it was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartTimes {
    /// Until it answered.
    pub(crate) serving: Duration,
    /// Until as many sandboxes were ready as were asked for.
    pub(crate) ready: Duration,
}

/// The process and its places. Dropping it kills the process.
pub(crate) struct Daemon {
    program: PathBuf,
    directory: PathBuf,
    /// On a tmpfs, as `/run` is where a daemon is installed.
    runtime: TempDir,
    environment: Vec<(&'static str, OsString)>,
    child: Child,
}

impl Daemon {
    /// Starts one below `directory` and waits until it serves.
    pub(crate) async fn start(binaries: &Path, directory: &Path) -> Result<Self> {
        Self::start_with(binaries, directory, Vec::new()).await
    }

    /// The same with more in its environment.
    pub(crate) async fn start_with(
        binaries: &Path,
        directory: &Path,
        environment: Vec<(&'static str, OsString)>,
    ) -> Result<Self> {
        let directory = directory.join("hostel");
        fs::create_dir_all(directory.join("state")).context("make the daemon's directory")?;
        let runtime = tempfile::Builder::new()
            .prefix("hostel-bench.")
            .tempdir_in(tmpfs().unwrap_or(&directory))
            .context("make the daemon's runtime directory")?;
        let program = binaries.join("hosteld");
        let child = launch(&program, &directory, runtime.path(), &environment)?;
        let mut daemon = Self { program, directory, runtime, environment, child };
        daemon.wait_until_ready(Instant::now(), 0).await?;
        Ok(daemon)
    }

    /// A connection of its own.
    pub(crate) async fn client(&self) -> Result<Client> {
        Client::connect(&self.address()).await.context("connect to the daemon")
    }

    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.socket())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.path().join("hosteld.sock")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it where it stands, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill the daemon")?;
        self.child.wait().context("wait for the daemon")?;
        Ok(())
    }

    /// Starts it again in the same places, after [`Self::kill`], and waits for so many ready sandboxes.
    pub(crate) async fn restart(&mut self, sandboxes: usize) -> Result<StartTimes> {
        let start = Instant::now();
        self.child = launch(&self.program, &self.directory, self.runtime.path(), &self.environment)?;
        self.wait_until_ready(start, sandboxes).await
    }

    async fn wait_until_ready(&mut self, start: Instant, sandboxes: usize) -> Result<StartTimes> {
        let mut serving = None;
        let mut client = None;
        loop {
            if let Some(status) = self.child.try_wait().context("look after the daemon")? {
                bail!("hosteld ended with {status}; its log:\n{}", self.log_tail());
            }
            if client.is_none() {
                client = self.client().await.ok();
            }
            let list = match &client {
                Some(client) => client.list_sandboxes(&ListSandboxes::default()).await.ok(),
                None => None,
            };
            if let Some(page) = list {
                let serving = *serving.get_or_insert_with(|| start.elapsed());
                let ready =
                    page.sandboxes.iter().filter(|one| one.state == hostel_sandbox::SandboxState::Ready);
                if ready.count() >= sandboxes {
                    return Ok(StartTimes { serving, ready: start.elapsed() });
                }
            }
            if start.elapsed() > PATIENCE {
                bail!("{sandboxes} sandboxes were not ready in {PATIENCE:?}; the log:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Deletes every sandbox, ends the daemon in good order, and kills it if it does not end.
    pub(crate) async fn shutdown(&mut self) -> Result<()> {
        if self.child.try_wait().context("look after the daemon")?.is_some() {
            // It died or was killed: only a daemon can take away what it left.
            self.restart(0).await.context("start the daemon again to clean up")?;
        }
        let client = self.client().await?;
        delete_all(&client).await?;
        signal(&self.child, Signal::TERM);
        // Not on this thread: the daemon waits for its clients, and ours are served by it.
        if let Some(pid) = pid(&self.child) {
            tokio::task::spawn_blocking(move || until_ended(pid, PATIENCE)).await.context("wait")??;
        }
        if let Some(status) = self.child.try_wait().context("wait for the daemon")? {
            if !status.success() {
                bail!("hosteld ended with {status}; its log:\n{}", self.log_tail());
            }
            return Ok(());
        }
        self.kill()?;
        bail!("hosteld did not end within {PATIENCE:?} of SIGTERM")
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("hosteld.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(&self.child, Signal::TERM);
            if let Some(pid) = pid(&self.child) {
                let _ = until_ended(pid, PATIENCE);
            }
            if !matches!(self.child.try_wait(), Ok(Some(_))) {
                let _ = self.kill();
            }
        }
    }
}

/// Deletes every sandbox of a daemon.
pub(crate) async fn delete_all(client: &Client) -> Result<()> {
    let page = client.list_sandboxes(&ListSandboxes::default()).await.context("list what is left")?;
    for sandbox in page.sandboxes {
        client.delete_sandbox_if_there(&sandbox.id).await.context("delete a sandbox")?;
    }
    Ok(())
}

/// Where this machine has a tmpfs.
fn tmpfs() -> Option<&'static Path> {
    ["/run", "/dev/shm"].map(Path::new).into_iter().find(|path| {
        rustix::fs::statfs(*path).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
            && rustix::fs::access(*path, rustix::fs::Access::WRITE_OK).is_ok()
    })
}

fn launch(
    program: &Path,
    directory: &Path,
    runtime: &Path,
    environment: &[(&'static str, OsString)],
) -> Result<Child> {
    let log = File::options().create(true).append(true).open(directory.join("hosteld.log"));
    let log = log.context("open the daemon's log")?;
    Command::new(program)
        .arg("--state-dir")
        .arg(directory.join("state"))
        .arg("--runtime-dir")
        .arg(runtime)
        .env_remove("HOSTEL_LISTEN")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C is for us: we end the daemon when its sandboxes are gone.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", program.display()))
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// The child has not been waited for when this is called, so its number is still its own.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = pid(child) {
        let _ = kill_process(pid, signal);
    }
}

/// Returns when a child has ended, or after `patience`.
fn until_ended(child: Pid, patience: Duration) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let descriptor = pidfd_open(child, PidfdFlags::empty()).context("watch the daemon")?;
    let timeout = Timespec::try_from(patience).context("a timeout")?;
    let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout));
    Ok(())
}
