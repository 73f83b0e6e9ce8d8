//! The programs that we are compared with.

mod bwrap;
mod docker;
mod host;
mod nginx;
mod runc;

pub(crate) use bwrap::Bwrap;
pub(crate) use docker::{Docker, DockerContainer};
pub(crate) use host::{dd_arguments, echo, spawn, stream_dd, write_and_read};
pub(crate) use nginx::Nginx;
pub(crate) use runc::{Runc, RuncContainer};

use anyhow::{Context as _, Result, bail};
use hostel_sandbox::ResourceLimits;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Limits for what is made again and again, the same for ours and for runc.
pub(crate) fn tight() -> ResourceLimits {
    ResourceLimits {
        memory_bytes: Some(256 << 20),
        cpu_millis: Some(1000),
        pids: Some(128),
        ..ResourceLimits::default()
    }
}

/// Limits that do not limit what stays and is worked in, the same for ours and for runc: all cores, and room for the
/// largest file.
pub(crate) fn roomy() -> ResourceLimits {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ResourceLimits { memory_bytes: Some(2 << 30), cpu_millis: u32::try_from(cores * 1000).ok(), ..tight() }
}

/// The peers that are here and work.
pub(crate) struct Peers {
    pub(crate) bwrap: Option<Bwrap>,
    pub(crate) runc: Option<Runc>,
    pub(crate) docker: Option<Docker>,
    /// Our own command line.
    pub(crate) hostel: Option<PathBuf>,
    /// Which are not, and why.
    pub(crate) missing: Vec<String>,
}

impl Peers {
    /// Tries each once.
    pub(crate) fn find(directory: &Path, binaries: &Path) -> Result<Self> {
        let mut missing = Vec::new();
        let bwrap = note(&mut missing, "bwrap (package bubblewrap)", Bwrap::find());
        let runc = note(&mut missing, "runc (package runc)", Runc::find(directory));
        let docker = note(&mut missing, "docker (package docker.io)", Docker::find());
        let hostel = Some(binaries.join("hostel")).filter(|path| path.is_file());
        if hostel.is_none() {
            missing.push("the command line: no hostel beside hosteld".to_owned());
        }
        Ok(Self { bwrap, runc, docker, hostel, missing })
    }
}

fn note<T>(missing: &mut Vec<String>, what: &str, found: Result<T>) -> Option<T> {
    found.map_err(|error| missing.push(format!("{what}: {error:#}"))).ok()
}

/// Runs a command to its end, output thrown away, and tells how long it took. Started by `posix_spawn`, as the
/// standard library does where nothing forbids it.
pub(crate) fn timed(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // Ends when the program does; what it says is for us if it fails.
        let _ = stderr.read_to_string(&mut complaint);
    }
    let status = child.wait().context("wait for a program")?;
    let duration = start.elapsed();
    if !status.success() {
        bail!("{command:?} ended with {status}: {}", complaint.trim());
    }
    Ok(duration)
}

/// Runs a command, counts its output, and tells how long it took to its end.
pub(crate) fn counted(command: &mut Command) -> Result<(u64, Duration)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut buffer = vec![0; 256 << 10];
    let mut count = 0;
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let mut output = child.stdout.take().context("a pipe")?;
    loop {
        match output.read(&mut buffer).context("read output")? {
            0 => break,
            length => count += u64::try_from(length)?,
        }
    }
    let status = child.wait().context("wait for a program")?;
    let duration = start.elapsed();
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok((count, duration))
}
