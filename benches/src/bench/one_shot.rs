//! One command in a sandbox of its own.

use super::{Bench, create, tight};
use crate::bench::exec::run_to_end;
use crate::measure::Case;
use crate::peers;
use crate::report::{Bound, Section};
use anyhow::{Context as _, Result};
use hostel_client::Client;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "one_shot";

pub(super) fn heading() -> Section {
    Section::new(
        NAME,
        "One-shot: make, run `true`, delete",
        "Ours: create, exec, all output and the exit status, delete, each a call over gRPC, one after another. \
         `hostel run` is the same with the start of the command line around it. `bwrap --unshare-all` with the host's \
         `/usr` read-only, `/proc` and `/dev`, no limits. `runc run` with the same memory, processor and process \
         limits as ours and all namespaces. All run the host's `true`.",
    )
}

pub(super) fn cases<'a>(bench: &'a Bench<'_>, address: &'a str) -> Vec<Case<'a>> {
    let client = &bench.client;
    let mut cases = Vec::new();
    if let Some(bwrap) = &bench.peers.bwrap {
        cases.push(Case::timed(
            NAME,
            "bwrap",
            "bwrap --unshare-all",
            move || async move { bwrap.run_true() },
        ));
    }
    cases.push(Case::timed(NAME, "hostel", "Hostel", move || async move { one_shot(client).await }));
    if let Some(hostel) = &bench.peers.hostel {
        let run = move || async move { command_line(hostel, address) };
        cases.push(Case::timed(NAME, "hostel_run", "Hostel, `hostel run -- true`", run));
    }
    if let Some(runc) = &bench.peers.runc {
        cases.push(Case::timed(NAME, "runc", "runc run", move || async move { runc.run_true() }));
    }
    cases
}

async fn one_shot(client: &Client) -> Result<Duration> {
    let start = Instant::now();
    let sandbox = create(client, tight()).await?;
    run_to_end(client, &sandbox, &["true"], b"").await?;
    client.delete_sandbox(&sandbox).await.context("delete a sandbox")?;
    Ok(start.elapsed())
}

fn command_line(hostel: &Path, address: &str) -> Result<Duration> {
    let mut command = Command::new(hostel);
    command
        .args(["--addr", address, "run", "--memory", "256M", "--cpus", "1", "--pids", "128", "--", "true"]);
    peers::timed(&mut command)
}

pub(super) fn finish(section: &mut Section) {
    for (peer, limit) in [("bwrap", 1.0), ("runc", 1.0)] {
        if let (Some(ours), Some(theirs)) = (section.median("hostel"), section.median(peer)) {
            section.expect(format!("one-shot ÷ {peer}"), ours / theirs, Bound::AtMost, limit, "×");
        }
    }
}
