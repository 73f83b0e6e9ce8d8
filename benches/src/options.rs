//! What can be asked of the program.

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measures Hostel beside its peers, in one interleaved run.
#[derive(Debug, Parser)]
#[command(name = "hostel-bench", version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

/// What else it does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what `--json` wrote as a document.
    Report {
        /// The file.
        file: PathBuf,
        /// Files of later runs, of a part each: their sections take the place of those of the first, and say so.
        again: Vec<PathBuf>,
    },
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Few samples: shows in half a minute that everything can be measured.
    #[arg(long)]
    quick: bool,
    /// Write the results here.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Only these: create, one_shot, exec, stdout, files, rate, claims, memory, recovery, docker, reach, sessions.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Where hosteld and hostel are. [beside this program]
    #[arg(long, value_name = "DIRECTORY")]
    binaries: Option<PathBuf>,
    /// Sandboxes at a time for memory and recovery. [300; with --quick 20]
    #[arg(long, value_name = "COUNT")]
    sandboxes: Option<usize>,
    /// Samples of each latency. [300; with --quick 10]
    #[arg(long, value_name = "COUNT")]
    samples: Option<usize>,
    /// Milliseconds of rest before each sample of a latency. [10]
    #[arg(long, value_name = "MILLISECONDS")]
    pause: Option<u64>,
}

impl RunArguments {
    /// Where the programs are that we measure.
    pub(crate) fn binaries(&self) -> Result<PathBuf> {
        let directory = match &self.binaries {
            Some(directory) => directory.clone(),
            None => {
                let own = std::env::current_exe().context("find this program")?;
                own.parent().unwrap_or(Path::new(".")).to_owned()
            }
        };
        let directory = directory.canonicalize().with_context(|| format!("open {}", directory.display()))?;
        ensure!(
            directory.join("hosteld").is_file(),
            "no hosteld in {}: run `cargo build --profile dist --workspace`",
            directory.display()
        );
        Ok(directory)
    }

    /// How much to measure.
    pub(crate) fn scale(&self) -> Scale {
        let mut scale = if self.quick { Scale::QUICK } else { Scale::FULL };
        scale.sandboxes = self.sandboxes.unwrap_or(scale.sandboxes).max(1);
        scale.pause = self.pause.map_or(scale.pause, Duration::from_millis);
        scale.samples = self.samples.unwrap_or(scale.samples).max(1);
        scale
    }

    /// The command as a person types it, without what differs from machine to machine.
    pub(crate) fn as_typed(&self) -> String {
        let mut words = vec!["hostel-bench".to_owned()];
        if self.quick {
            words.push("--quick".to_owned());
        }
        if !self.only.is_empty() {
            words.push(format!("--only {}", self.only.join(",")));
        }
        for (name, value) in [("--sandboxes", self.sandboxes), ("--samples", self.samples)] {
            words.extend(value.map(|value| format!("{name} {value}")));
        }
        words.extend(self.pause.map(|pause| format!("--pause {pause}")));
        words.join(" ")
    }
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Samples of each latency.
    pub(crate) samples: usize,
    /// Rounds before them that do not count.
    pub(crate) warm_up: usize,
    /// Rest before each of them: what goes on behind a finished sample, ours or a peer's, is over by then.
    pub(crate) pause: Duration,
    /// Samples of what is done with containers.
    pub(crate) containers: usize,
    /// Samples of each throughput.
    pub(crate) bulk_samples: usize,
    /// Bytes of output in each.
    pub(crate) stdout_bytes: u64,
    /// Bytes of a file in each.
    pub(crate) file_bytes: u64,
    /// Slices of each rate.
    pub(crate) slices: usize,
    /// How long one lasts.
    pub(crate) slice: Duration,
    /// Sandboxes at a time for memory and recovery.
    pub(crate) sandboxes: usize,
    /// How often the daemon is killed.
    pub(crate) recoveries: usize,
}

impl Scale {
    const FULL: Self = Self {
        samples: 300,
        warm_up: 10,
        pause: Duration::from_millis(10),
        containers: 25,
        bulk_samples: 9,
        stdout_bytes: 2 << 30,
        file_bytes: 256 << 20,
        slices: 5,
        slice: Duration::from_secs(2),
        sandboxes: 300,
        recoveries: 5,
    };
    const QUICK: Self = Self {
        samples: 10,
        warm_up: 2,
        pause: Duration::from_millis(10),
        containers: 2,
        bulk_samples: 1,
        stdout_bytes: 256 << 20,
        file_bytes: 32 << 20,
        slices: 1,
        slice: Duration::from_millis(400),
        sandboxes: 20,
        recoveries: 1,
    };
}
