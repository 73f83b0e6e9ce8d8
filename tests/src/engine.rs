//! A Docker engine of a test's own, to be stopped, killed and filled up.

use crate::outcome::{Outcome, PATIENCE, eventually, rest, skip};
use crate::signal;
use rustix::process::Signal;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// The image that `scripts/with-docker.sh` makes, and the engine that has it; `None`, said loudly, where there is
/// no engine.
#[must_use]
pub fn shared_engine() -> Option<(String, String)> {
    let found = std::env::var("DOCKER_HOST").ok().zip(std::env::var("HOSTEL_DOCKER_IMAGE").ok());
    if found.is_none() {
        skip("there is no Docker engine; scripts/with-docker.sh cargo nextest run … starts one");
    }
    found
}

/// Runs the `docker` command against an engine.
///
/// # Panics
/// Where it cannot be started, or does not end.
#[must_use]
pub fn docker(host: &str, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("docker");
    command.arg("--host").arg(host).args(arguments).stdin(Stdio::null());
    Outcome::of(command)
}

/// `dockerd` with its own data, socket and containers. It ends with its test.
#[derive(Debug)]
pub struct TestEngine {
    place: TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
    image: String,
}

impl TestEngine {
    /// Starts one that has the shared engine's image; `None`, said loudly, where none can run.
    ///
    /// # Panics
    /// Where it does not start although it should.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let mut engine = Self::prepare(arguments)?;
        engine.restart();
        engine.load();
        Some(engine)
    }

    /// Makes its directories and starts nothing.
    ///
    /// # Panics
    /// Where they cannot be made.
    #[must_use]
    pub fn prepare(arguments: &[&str]) -> Option<Self> {
        let (_, image) = shared_engine()?;
        if !rustix::process::geteuid().is_root() || !Path::new("/usr/sbin/dockerd").exists() {
            skip("only root can start an engine, and dockerd must be installed");
            return None;
        }
        let place =
            tempfile::Builder::new().prefix("hostel-engine-").tempdir().expect("a temporary directory");
        std::fs::create_dir(place.path().join("data")).expect("a directory");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Some(Self { place, arguments, child: None, image })
    }

    /// Copies the shared engine's image here.
    ///
    /// # Panics
    /// Where that fails.
    pub fn load(&self) {
        let (host, _) = shared_engine().expect("an engine to copy from");
        let mut save = Command::new("docker");
        save.args(["--host", &host, "save", &self.image]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut save = save.spawn().expect("docker save");
        let mut load = Command::new("docker");
        load.args(["--host", &self.host(), "load", "--quiet"]).stdin(save.stdout.take().expect("a pipe"));
        let loaded = Outcome::of(load);
        let _ = loaded.success();
        assert!(save.wait().expect("docker save ends").success());
    }

    /// Where it listens.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.place.path().display())
    }

    /// Where its images and containers are.
    #[must_use]
    pub fn data(&self) -> std::path::PathBuf {
        self.place.path().join("data")
    }

    /// The image that it has.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Runs `docker` against it.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> Outcome {
        docker(&self.host(), arguments)
    }

    /// Starts it, again with the same data, and waits until it answers.
    ///
    /// # Panics
    /// Where it does not.
    pub fn restart(&mut self) {
        self.launch();
        eventually("the engine answers", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "dockerd ended by itself, {ended:?}:\n{}", self.log());
            self.docker(&["version"]).code == Some(0)
        });
    }

    fn launch(&mut self) {
        let place = self.place.path();
        let log = std::fs::File::options().create(true).append(true).open(place.join("log")).expect("a log");
        let mut command = Command::new("/usr/sbin/dockerd");
        command.arg("--host").arg(self.host());
        command.arg("--data-root").arg(place.join("data")).arg("--exec-root").arg(place.join("exec"));
        command.arg("--pidfile").arg(place.join("pid"));
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]).args(&self.arguments);
        command.env_remove("DOCKER_HOST").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("dockerd starts"));
    }

    /// SIGTERM, and waits until it is gone.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// Where its containerd does not end with it.
    pub fn kill(&mut self) {
        let containerd = std::fs::read_to_string(self.place.path().join("exec/containerd/containerd.pid"));
        self.end(Signal::KILL);
        // The next one would take a dead one that nobody has waited for yet for one that lives.
        let process = Path::new("/proc").join(containerd.unwrap_or_default().trim());
        eventually("containerd is gone", || !process.join("stat").exists() || process.ends_with("proc"));
    }

    /// It does nothing any more, and does not hang up either, until what this returns is dropped.
    #[must_use]
    pub fn freeze(&self) -> FrozenEngine {
        let process = self.child.as_ref().map_or(0, Child::id);
        signal(process, Signal::STOP);
        FrozenEngine(process)
    }

    /// Lets every user of this host use it, for the time of a test.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn open_to_all(&self) {
        let open = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode));
        open(self.place.path(), 0o711).expect("chmod");
        open(&self.place.path().join("docker.sock"), 0o666).expect("chmod");
    }

    fn end(&mut self, how: Signal) {
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), how);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            rest(start);
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("level=info")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// An engine that does nothing.
#[derive(Debug)]
pub struct FrozenEngine(u32);

impl Drop for FrozenEngine {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the engine's log:\n{}", self.log());
        }
        // Containers that outlive their engine can only be removed by it.
        if self.child.is_none() {
            self.launch();
            let start = Instant::now();
            while start.elapsed() < PATIENCE && self.docker(&["version"]).code != Some(0) {
                rest(start);
            }
        }
        let listed = self.docker(&["ps", "--all", "--quiet"]);
        for container in listed.stdout.split_whitespace() {
            let _ = self.docker(&["rm", "--force", container]);
        }
        self.stop();
        let place = self.place.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounted = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in mounted.filter(|mount| mount.starts_with(&place)).collect::<Vec<_>>().into_iter().rev() {
            let _ = Command::new("umount").args(["--lazy", mount]).status();
        }
    }
}
