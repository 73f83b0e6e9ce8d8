//! The list of abuse probes and their runner.

use crate::verdict::{Verdict, in_child};
use crate::{kernel, namespaces, network, procfs, supervisor};
use std::io::Write;
use std::process::ExitCode;

/// What the test tells the probes about the host, through the environment.
#[derive(Default)]
pub(crate) struct Context {
    /// `HOSTEL_PROBE_TCP`: addresses, with ports, at which the host listens; separated by spaces.
    pub(crate) host_listeners: Vec<String>,
    /// `HOSTEL_PROBE_ABSTRACT`: name of an abstract socket on which the host listens.
    pub(crate) abstract_socket: Option<String>,
    /// `HOSTEL_PROBE_HOST_PATHS`: paths of the host that must not show; separated by colons.
    pub(crate) host_paths: Vec<String>,
    /// Descriptors above 2 that were open when this program started.
    pub(crate) inherited: Vec<i32>,
}

impl Context {
    fn from_environment(inherited: &[i32]) -> Self {
        let list = |name: &str, separator: char| -> Vec<String> {
            let value = std::env::var(name).unwrap_or_default();
            value.split(separator).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        Self {
            host_listeners: list("HOSTEL_PROBE_TCP", ' '),
            abstract_socket: std::env::var("HOSTEL_PROBE_ABSTRACT").ok().filter(|name| !name.is_empty()),
            host_paths: list("HOSTEL_PROBE_HOST_PATHS", ':'),
            inherited: inherited.to_vec(),
        }
    }
}

/// One attempt.
pub(crate) type Probe = (&'static str, fn(&Context) -> Verdict);

fn probes() -> impl Iterator<Item = &'static Probe> {
    [namespaces::PROBES, kernel::PROBES, supervisor::PROBES, procfs::PROBES, network::PROBES]
        .into_iter()
        .flatten()
}

/// Prints the names.
pub(crate) fn list() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, _) in probes() {
        writeln!(out, "{name}")?;
    }
    Ok(())
}

/// Runs the probes named, or all, each in a child. Ends with 1 if one escaped.
pub(crate) fn run(names: &[String], inherited: &[i32]) -> std::io::Result<ExitCode> {
    if let Some(unknown) = names.iter().find(|name| !probes().any(|(known, _)| known == name)) {
        return Err(std::io::Error::other(format!("no probe {unknown:?}; see `hostel-probe list`")));
    }
    let context = Context::from_environment(inherited);
    let mut escaped = false;
    for (name, probe) in
        probes().filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name))
    {
        let verdict = in_child(|| probe(&context));
        escaped |= matches!(verdict, Verdict::Escaped(_));
        let (word, detail) = verdict.parts();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{name}\t{word}\t{}", detail.replace(['\t', '\n'], " "))?;
        out.flush()?;
    }
    Ok(if escaped { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
