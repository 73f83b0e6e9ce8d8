//! What is measured.

mod claims;
mod create;
mod docker;
mod exec;
mod files;
mod latency;
mod memory;
mod one_shot;
mod rate;
mod reach;
mod recovery;
mod sessions;
mod stdout;

use crate::daemon::{self, Daemon};
use crate::measure::Measured;
use crate::options::Scale;
use crate::peers::{self, Peers};
use crate::report::{Report, Section};
use anyhow::{Context as _, Result, ensure};
use hostel_client::{Client, CreateSandbox};
use hostel_sandbox::{ResourceLimits, SandboxId, SandboxSpec};
use std::path::PathBuf;

/// Names for `--only`, in the order in which they are measured and shown.
const NAMES: [&str; 12] = [
    "create",
    "one_shot",
    "exec",
    "stdout",
    "files",
    "rate",
    claims::NAME,
    "memory",
    "recovery",
    docker::NAME,
    reach::NAME,
    sessions::NAME,
];

/// Everything that measuring needs.
pub(crate) struct Bench<'a> {
    pub(crate) daemon: &'a mut Daemon,
    pub(crate) client: Client,
    pub(crate) peers: &'a Peers,
    pub(crate) scale: Scale,
    pub(crate) only: Vec<String>,
    /// Where the programs are that are measured.
    pub(crate) binaries: PathBuf,
}

impl Bench<'_> {
    /// Measures what was asked for. What fails is noted in its section, and the rest goes on.
    pub(crate) async fn run(&mut self, report: &mut Report) -> Result<()> {
        for name in &self.only {
            ensure!(NAMES.contains(&name.as_str()), "--only {name}: there are {}", NAMES.join(", "));
        }
        let mut sections = latency::sections(self).await?;
        report.sections.append(&mut sections);
        for name in ["stdout", "files", "rate", claims::NAME, "memory", "recovery"] {
            if !self.wants(name) {
                continue;
            }
            eprintln!("measuring {name} …");
            let mut section = heading(name, &self.scale);
            let measured = match name {
                "stdout" => stdout::measure(self, &mut section).await,
                "files" => files::measure(self, &mut section).await,
                "rate" => rate::measure(self, &mut section).await,
                claims::NAME => claims::measure(self, &mut section).await,
                "memory" => memory::measure(self, &mut section).await,
                _ => recovery::measure(self, &mut section).await,
            };
            section.failures.extend(measured.err().map(|error| format!("{error:#}")));
            report.sections.push(section);
            // What a failed measurement left must not burden the next.
            daemon::delete_all(&self.client).await.context("clean up between measurements")?;
        }
        if self.wants(docker::NAME) && self.peers.docker.is_some() {
            // The daemon may be another one by now.
            self.client = self.daemon.client().await?;
            report.sections.extend(docker::sections(self).await?);
        }
        if self.wants(reach::NAME) {
            eprintln!("measuring {} …", reach::NAME);
            report.sections.extend(reach::sections(&self.binaries, &self.scale).await?);
        }
        if self.wants(sessions::NAME) {
            eprintln!("measuring {} …", sessions::NAME);
            report.sections.extend(sessions::sections(&self.binaries, &self.scale).await?);
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// A sandbox that stays.
    async fn sandbox(&self, limits: ResourceLimits) -> Result<SandboxId> {
        create(&self.client, limits).await
    }
}

/// Makes a sandbox.
async fn create(client: &Client, limits: ResourceLimits) -> Result<SandboxId> {
    let create =
        CreateSandbox { spec: SandboxSpec { limits, ..SandboxSpec::default() }, ..Default::default() };
    Ok(client.create_sandbox(create).await.context("create a sandbox")?.sandbox.id)
}

fn heading(name: &str, scale: &Scale) -> Section {
    match name {
        "stdout" => stdout::heading(scale),
        "files" => files::heading(scale),
        "rate" => rate::heading(scale),
        claims::NAME => claims::heading(scale),
        "memory" => memory::heading(scale),
        _ => recovery::heading(scale),
    }
}

/// Puts what came of cases into their section: ours that failed are failures, peers that failed are notes.
fn fill(section: &mut Section, measured: Vec<Measured>) {
    for one in measured {
        if let Some(summary) = one.summary {
            section.row(one.name, one.label, summary);
        }
        match one.failure {
            Some(failure) if one.name.starts_with("hostel") => section.failures.push(failure),
            Some(failure) => section.notes.push(format!("a peer failed: {failure}")),
            None => {}
        }
    }
}

/// The limits for what is made again and again.
fn tight() -> ResourceLimits {
    peers::tight()
}
