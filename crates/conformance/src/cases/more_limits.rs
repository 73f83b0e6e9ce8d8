//! Limits of disk, files and output.

use super::limits::{limited, refused};
use super::output::check;
use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, command, script};
use crate::{archive, pattern};
use hostel_sandbox::Error;
use hostel_sandbox::file::{Compression, WriteOptions};
use hostel_sandbox::process::ProcessSpec;
use std::sync::Arc;
use std::time::{Duration, Instant};

cases! { "limits":
    disk_is_bounded [DiskLimit],
    disk_that_is_freed_can_be_used_again [DiskLimit],
    a_full_disk_is_an_error_of_write_and_import [DiskLimit],
    a_full_disk_stops_no_process [DiskLimit],
    files_are_bounded [InodeLimit],
    open_files_are_bounded [OpenFilesLimit],
    output_is_slowed_and_nothing_lost [OutputRateLimit],
    kernel_objects_of_one_do_not_hurt_another,
    terminals_are_bounded [TerminalLimit],
}

type H = Arc<Harness>;

const DISK: u64 = 16 << 20;

async fn disk_is_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.disk_bytes = Some(DISK)).await?;
    let neighbour = h.sandbox().await?;
    let finished = sandbox.run_probe(&["eat-disk", "/tmp/fill", "268435456"]).await?.success()?;
    let count = refused(&finished.text())?;
    ensure!((DISK / 2..=DISK + DISK / 16).contains(&count), "{count} bytes of {DISK}");
    let text = finished.text();
    // ENOSPC or EDQUOT.
    ensure!(text.contains("(os error 28)") || text.contains("(os error 122)"), "{text}");
    // Elsewhere in the root there is no more.
    let home = sandbox.finish(ProcessSpec {
        user: Some("0".to_owned()),
        ..script("head -c 20000000 /dev/zero > /var/fill")
    });
    ensure!(home.await?.code() != Some(0), "20 MB more in /var");
    ensure_eq!(neighbour.sh("echo x > /tmp/x; cat /tmp/x").await?, "x\n");
    Ok(())
}

async fn disk_that_is_freed_can_be_used_again(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.disk_bytes = Some(DISK)).await?;
    for turn in 0..3 {
        let finished = sandbox.run_probe(&["eat-disk", "/tmp/fill", "268435456"]).await?.success()?;
        let count = refused(&finished.text())?;
        ensure!(count >= DISK / 2, "turn {turn}: only {count} bytes");
        sandbox.inside()?.remove("/tmp/fill", false).await?;
    }
    Ok(())
}

async fn a_full_disk_is_an_error_of_write_and_import(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.disk_bytes = Some(DISK)).await?;
    sandbox.put("/tmp/kept", "old").await?;
    let much = pattern::bytes(1, 0, 64 << 20);
    let write =
        sandbox.inside()?.write("/tmp/kept", WriteOptions::default(), archive::stream(much.clone())).await;
    ensure_err!(write, Error::LimitReached { .. });
    ensure_eq!(sandbox.get("/tmp/kept").await?, b"old");
    let tar = archive::Archive::new().file("much", 0o644, &much)?.bytes()?;
    let import = sandbox.inside()?.import("/tmp/in", Compression::None, archive::stream(tar)).await;
    ensure_err!(import, Error::LimitReached { .. });
    Ok(())
}

async fn a_full_disk_stops_no_process(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.disk_bytes = Some(DISK)).await?;
    let probe = sandbox.probe().await?;
    sandbox.run(&[probe, "eat-disk", "/tmp/fill", "268435456"]).await?.success()?;
    // Its output is more than is kept in memory.
    let finished = sandbox.run(&[probe, "pattern", "33554432", "1"]).await?.success()?;
    ensure_eq!(finished.stdout.len(), 32 << 20);
    check(1, 0, &finished.stdout)
}

async fn files_are_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.disk_inodes = Some(500)).await?;
    let text = format!("mkdir -p /tmp/many; {} eat-inodes /tmp/many 20000", sandbox.probe().await?);
    let said = sandbox.sh(&text).await?;
    let count = refused(&said)?;
    ensure!((100..=500).contains(&count), "{count} files of 500: {said}");
    Ok(())
}

async fn open_files_are_bounded(h: H) -> Outcome {
    let sandbox = limited(&h, |limits| limits.open_files = Some(64)).await?;
    let finished = sandbox.run_probe(&["eat-fds", "100000"]).await?.success()?;
    let count = refused(&finished.text())?;
    ensure!((32..=64).contains(&count), "{count} descriptors of 64");
    ensure!(finished.text().contains("(os error 24)"), "not EMFILE: {}", finished.text());
    Ok(())
}

async fn output_is_slowed_and_nothing_lost(h: H) -> Outcome {
    const RATE: u64 = 256 << 10;
    const SIZE: u64 = 8 * RATE;
    let sandbox = limited(&h, |limits| limits.output_bytes_per_second = Some(RATE)).await?;
    let probe = sandbox.probe().await?;
    let begin = Instant::now();
    let run = |seed: &'static str| sandbox.open(script_of(probe, SIZE / 2, seed));
    let (first, second) = futures::future::try_join(run("1"), run("2")).await?;
    let (first, second) = futures::future::try_join(first.finish(), second.finish()).await?;
    let took = begin.elapsed();
    check(1, 0, &first.stdout)?;
    check(2, 0, &second.stdout)?;
    ensure_eq!((first.stdout.len() + second.stdout.len()) as u64, SIZE);
    // Eight seconds' worth, of which a generous burst may go at once.
    ensure!(took > Duration::from_secs(3), "{SIZE} bytes in {took:?} at {RATE} bytes per second");
    Ok(())
}

fn script_of(probe: &str, size: u64, seed: &str) -> ProcessSpec {
    command(&[probe, "pattern", &size.to_string(), seed])
}

async fn kernel_objects_of_one_do_not_hurt_another(h: H) -> Outcome {
    let greedy = h.sandbox().await?;
    let neighbour = h.sandbox().await?;
    let probe = greedy.probe().await?;
    let spec = ProcessSpec { stdin: true, ..command(&[probe, "eat-kernel"]) };
    let mut session = greedy.open(spec).await?;
    session.reader.until("holding").await?;
    let terminal = h.has(hostel_sandbox::Capability::Pty).then(Default::default);
    let spec = ProcessSpec { terminal, ..script("echo a | cat | cat") };
    ensure_eq!(neighbour.finish(spec).await?.success()?.text().trim(), "a");
    // The kernel counts watches by user: where the daemon's is the only one, all sandboxes share them.
    if h.has(hostel_sandbox::Capability::FileWatch) && h.has(hostel_sandbox::Capability::OtherUsers) {
        drop(neighbour.inside()?.watch("/tmp", false).await?);
    }
    session.stdin.close().await?;
    session.finish().await?;
    Ok(())
}

/// Terminals are counted for the whole host: one sandbox must not have them all.
async fn terminals_are_bounded(h: H) -> Outcome {
    let greedy = h.sandbox().await?;
    let probe = greedy.probe().await?;
    let spec = ProcessSpec { stdin: true, ..command(&[probe, "eat-kernel"]) };
    let mut session = greedy.open(spec).await?;
    session.reader.until("holding").await?;
    let taken = String::from_utf8_lossy(&session.reader.stdout).into_owned();
    let terminals = taken.lines().find_map(|line| line.strip_prefix("terminals ")?.parse().ok());
    ensure!(terminals.is_some_and(|count: u64| count < 1024), "one sandbox took {taken}");
    session.stdin.close().await?;
    session.finish().await?;
    Ok(())
}
