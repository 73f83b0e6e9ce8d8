//! `hostel-bench`: measures Hostel through its API beside bubblewrap, runc and plain processes, in one run.
#![forbid(unsafe_code)]

mod bench;
mod daemon;
mod machine;
mod measure;
mod options;
mod peers;
mod quiet;
mod report;
mod stages;

use anyhow::{Context as _, Result};
use bench::Bench;
use clap::Parser as _;
use daemon::Daemon;
use options::{Arguments, Command, RunArguments};
use peers::Peers;
use report::Report;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Report { file, again }) => Report::read_all(file, again).map(|report| {
            print!("{}", report.markdown());
            ExitCode::SUCCESS
        }),
        None => run(&arguments.run),
    };
    result.unwrap_or_else(|error| {
        eprintln!("hostel-bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &RunArguments) -> Result<ExitCode> {
    // One thread, as a program that waits for an answer has. A peer is waited for without it: nothing else runs then.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let report = runtime.block_on(measure_all(arguments))?;
    if let Some(file) = &arguments.json {
        report.write(file)?;
    }
    print!("{}", report.text());
    // A missed expectation is a finding; a measurement that could not be made is a failure.
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts a daemon, measures, and takes everything away again, however it went.
async fn measure_all(arguments: &RunArguments) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("hostel-bench.").tempdir().context("make a directory")?;
    let mut daemon = Daemon::start(&arguments.binaries()?, directory.path()).await?;
    let measured = tokio::select! {
        measured = with_peers(arguments, &mut daemon, directory.path()) => measured,
        interrupted = interruption() => interrupted,
    };
    let ended = daemon.shutdown().await;
    machine::remove_unless_mounted(directory)?;
    let report = measured?;
    ended.context("end the daemon")?;
    Ok(report)
}

async fn with_peers(
    arguments: &RunArguments,
    daemon: &mut Daemon,
    directory: &std::path::Path,
) -> Result<Report> {
    let peers = Peers::find(directory, &arguments.binaries()?)?;
    let client = daemon.client().await?;
    let mut report = Report::new(machine::describe(&client).await?, arguments.as_typed());
    report.notes.extend(peers.missing.iter().cloned());
    let (scale, only, binaries) = (arguments.scale(), arguments.only.clone(), arguments.binaries()?);
    Bench { daemon, client, peers: &peers, scale, only, binaries }.run(&mut report).await?;
    report.machine.load_after = machine::load();
    Ok(report)
}

/// Resolves, with an error, when somebody wants us to stop.
async fn interruption<T>() -> Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminate.recv() => {}
    }
    anyhow::bail!("interrupted")
}
