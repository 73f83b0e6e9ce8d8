//! Docker's own command line, on the engine that our daemon uses too.

use super::{counted, roomy, tight, timed};
use anyhow::{Context as _, Result, ensure};
use hostel_sandbox::ResourceLimits;
use std::cell::Cell;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `docker` with options that give a container what ours have.
pub(crate) struct Docker {
    /// The image that ours are made of too.
    image: String,
    prefix: String,
    count: Cell<u32>,
}

impl Docker {
    /// The engine that `DOCKER_HOST` names, as `scripts/with-docker.sh` sets it.
    pub(crate) fn find() -> Result<Self> {
        let image =
            std::env::var("HOSTEL_DOCKER_IMAGE").ok().filter(|_| std::env::var_os("DOCKER_HOST").is_some());
        let image = image.context("no engine: run this by scripts/with-docker.sh")?;
        let prefix = format!("hostel-bench-{}", std::process::id());
        let docker = Self { image, prefix, count: Cell::new(0) };
        docker.run_true()?;
        Ok(docker)
    }

    fn next_name(&self) -> String {
        self.count.set(self.count.get() + 1);
        format!("{}-{}", self.prefix, self.count.get())
    }

    /// `docker run` with the same limits as ours, and as little to reach.
    fn run(&self, options: &[&str], limits: &ResourceLimits, argv: &[&str]) -> Command {
        let memory = limits.memory_bytes.unwrap_or_default().to_string();
        let cores = limits.cpu_millis.unwrap_or_default();
        let mut command = Command::new("docker");
        command.arg("run").args(options);
        command.args(["--memory", &memory, "--memory-swap", &memory]);
        command.arg("--cpus").arg(format!("{}.{:03}", cores / 1000, cores % 1000));
        command.arg("--pids-limit").arg(limits.pids.unwrap_or_default().to_string());
        command.args(["--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
        command.args(["--read-only", "--log-driver", "none", "--ulimit", "core=0", "--user", "1000:1000"]);
        for place in ["/workspace", "/home", "/root", "/tmp", "/var/tmp", "/run"] {
            command.arg("--tmpfs").arg(format!("{place}:exec,mode=1777,size=1g"));
        }
        command.arg(&self.image).args(argv);
        command
    }

    /// Makes a container, runs `true` in it, removes it.
    pub(crate) fn run_true(&self) -> Result<Duration> {
        timed(&mut self.run(&["--rm"], &tight(), &["true"]))
    }

    /// Until the first output of `docker run` has come; what comes after is not timed.
    pub(crate) fn first_output(&self) -> Result<Duration> {
        use std::io::Read as _;
        let mut command = self.run(&["--rm"], &tight(), &["echo", "hi"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let start = Instant::now();
        let mut child = command.spawn().context("start docker")?;
        let mut output = child.stdout.take().context("a pipe")?;
        let mut said = [0; 3];
        output.read_exact(&mut said).context("read output")?;
        let duration = start.elapsed();
        ensure!(&said == b"hi\n", "echo wrote {said:?}");
        ensure!(child.wait()?.success(), "docker run failed");
        Ok(duration)
    }

    /// A container that runs until it is dropped, and how long it took to start.
    pub(crate) fn start(&self, limits: &ResourceLimits) -> Result<(DockerContainer, Duration)> {
        let container = DockerContainer { name: self.next_name(), gone: false };
        let options = ["--detach", "--name", &container.name];
        let duration = timed(&mut self.run(&options, limits, &["sleep", "infinity"]))?;
        Ok((container, duration))
    }

    /// One with room to work in.
    pub(crate) fn start_roomy(&self) -> Result<DockerContainer> {
        Ok(self.start(&roomy())?.0)
    }

    /// So many `docker run --detach` at once; they are removed untimed.
    pub(crate) fn start_many(&self, many: usize) -> Result<Duration> {
        let mut containers = Vec::with_capacity(many);
        let mut children: Vec<Child> = Vec::with_capacity(many);
        let start = Instant::now();
        for _ in 0..many {
            let container = DockerContainer { name: self.next_name(), gone: false };
            let mut command =
                self.run(&["--detach", "--name", &container.name], &tight(), &["sleep", "infinity"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            children.push(command.spawn().context("start docker")?);
            containers.push(container);
        }
        let mut failed = 0;
        for child in &mut children {
            failed += usize::from(!child.wait().context("wait for docker")?.success());
        }
        let duration = start.elapsed();
        remove(&mut containers)?;
        ensure!(failed == 0, "{failed} of {many} docker run failed");
        Ok(duration)
    }
}

/// Removes many at once, as one command does.
fn remove(containers: &mut [DockerContainer]) -> Result<()> {
    let mut command = Command::new("docker");
    command.args(["rm", "--force"]);
    for container in containers {
        command.arg(&container.name);
        container.gone = true;
    }
    timed(&mut command).map(drop)
}

/// A running container. Removed when dropped.
pub(crate) struct DockerContainer {
    name: String,
    gone: bool,
}

impl DockerContainer {
    fn exec(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("exec").arg(&self.name).args(argv);
        command
    }

    /// `docker exec` of `true`.
    pub(crate) fn exec_true(&self) -> Result<Duration> {
        timed(&mut self.exec(&["true"]))
    }

    /// Runs something that prepares a measurement.
    pub(crate) fn prepare(&self, argv: &[&str]) -> Result<()> {
        timed(&mut self.exec(argv)).map(drop)
    }

    /// `docker exec` of `cat` into a pipe.
    pub(crate) fn cat(&self, path: &str, bytes: u64) -> Result<Duration> {
        let (count, duration) = counted(&mut self.exec(&["cat", path]))?;
        ensure!(count == bytes, "cat wrote {count} of {bytes} bytes");
        Ok(duration)
    }

    /// `docker rm --force`.
    pub(crate) fn remove(mut self) -> Result<Duration> {
        self.gone = true;
        timed(Command::new("docker").args(["rm", "--force", &self.name]))
    }
}

impl Drop for DockerContainer {
    fn drop(&mut self) {
        if !self.gone
            && let Err(error) = timed(Command::new("docker").args(["rm", "--force", &self.name]))
        {
            eprintln!("hostel-bench: docker rm: {error:#}");
        }
    }
}
