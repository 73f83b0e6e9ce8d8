//! runc: what Docker and Kubernetes start containers with.

use super::{counted, host, roomy, tight, timed};
use anyhow::{Context as _, Result, ensure};
use hostel_sandbox::ResourceLimits;
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// `runc` with a bundle like our sandboxes.
pub(crate) struct Runc {
    /// Its own state.
    state: PathBuf,
    /// A container that runs `true`.
    once: PathBuf,
    /// A container that stays.
    staying: PathBuf,
    /// Part of the names of containers, which are also names of control groups of the whole machine.
    prefix: String,
    count: Cell<u32>,
}

impl Runc {
    pub(crate) fn find(directory: &Path) -> Result<Self> {
        let directory = directory.join("runc");
        let runc = Self {
            state: directory.join("state"),
            once: directory.join("once"),
            staying: directory.join("staying"),
            prefix: format!("hostel-bench-{}", std::process::id()),
            count: Cell::new(0),
        };
        write_bundle(&runc.once, &["true"], &tight())?;
        write_bundle(&runc.staying, &["sleep", "infinity"], &roomy())?;
        runc.run_true()?;
        Ok(runc)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state);
        command
    }

    fn next_name(&self) -> String {
        self.count.set(self.count.get() + 1);
        format!("{}-{}", self.prefix, self.count.get())
    }

    /// Makes a container, runs `true` in it, deletes it.
    pub(crate) fn run_true(&self) -> Result<Duration> {
        timed(self.command().arg("run").arg("--bundle").arg(&self.once).arg(self.next_name()))
    }

    /// A container that runs until it is dropped.
    pub(crate) fn start(&self) -> Result<RuncContainer<'_>> {
        let container = RuncContainer { runc: self, name: self.next_name() };
        let mut command = self.command();
        command.arg("run").arg("--detach").arg("--bundle").arg(&self.staying).arg(&container.name);
        // It keeps what it is given: pipes of ours would stay open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().context("start runc")?;
        ensure!(status.success(), "runc run --detach ended with {status}");
        Ok(container)
    }
}

/// A running container. Deleted when dropped.
pub(crate) struct RuncContainer<'a> {
    runc: &'a Runc,
    name: String,
}

impl RuncContainer<'_> {
    fn exec(&self) -> Command {
        let mut command = self.runc.command();
        command.arg("exec").arg(&self.name);
        command
    }

    /// `runc exec` of `true`.
    pub(crate) fn exec_true(&self) -> Result<Duration> {
        timed(self.exec().arg("true"))
    }

    /// `runc exec` of `echo hi`.
    pub(crate) fn exec_echo(&self) -> Result<Duration> {
        let (count, duration) = counted(self.exec().args(["echo", "hi"]))?;
        ensure!(count == 3, "echo wrote {count} bytes");
        Ok(duration)
    }

    /// `runc exec` of `dd` into a pipe.
    pub(crate) fn stream_dd(&self, bytes: u64) -> Result<Duration> {
        let (count, duration) = counted(self.exec().arg("dd").args(host::dd_arguments(bytes)))?;
        ensure!(count == bytes, "dd wrote {count} of {bytes} bytes");
        Ok(duration)
    }
}

impl Drop for RuncContainer<'_> {
    fn drop(&mut self) {
        let mut command = self.runc.command();
        command.args(["delete", "--force"]).arg(&self.name);
        if let Err(error) = command.status() {
            eprintln!("hostel-bench: runc delete: {error}");
        }
    }
}

fn write_bundle(bundle: &Path, argv: &[&str], limits: &ResourceLimits) -> Result<()> {
    let root = bundle.join("rootfs");
    for directory in ["usr", "proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(directory)).context("make a bundle")?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        if Path::new("/usr").join(name).exists() {
            symlink(format!("usr/{name}"), root.join(name)).context("make a bundle")?;
        }
    }
    let text = serde_json::to_string_pretty(&configuration(argv, limits)).context("write a bundle")?;
    fs::write(bundle.join("config.json"), text).context("write a bundle")
}

/// What `runc spec` proposes, with limits like ours, the host's `/usr`, and a user namespace too.
fn configuration(argv: &[&str], limits: &ResourceLimits) -> Value {
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user"];
    let ids = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": argv,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {},
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777", "size=65536k"]),
            mount("/usr", "bind", "/usr", &["bind", "ro"]),
        ],
        "linux": {
            "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            "uidMappings": ids,
            "gidMappings": ids,
            "resources": {
                "memory": { "limit": limits.memory_bytes, "swap": limits.memory_bytes },
                "cpu": { "quota": limits.cpu_millis.map(|millis| millis * 100), "period": 100_000 },
                "pids": { "limit": limits.pids },
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
